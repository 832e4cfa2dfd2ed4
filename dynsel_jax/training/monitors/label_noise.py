"""Measures the fraction of an epoch's samples whose label is wrong, if label noise was added."""

from typing import Any

import numpy as np

from dynsel_jax.training.monitors.monitor import EpochEnd, Monitor

__all__ = ["label_noise"]


def label_noise(noisy: np.ndarray) -> Monitor:
  """Logs `noisy_fraction_kept`; `noisy` `[N]` bool is True for the training samples whose label is wrong."""

  def init() -> dict[str, Any]:
    return {"total": 0, "fraction": 0.0}

  def update(state: dict[str, Any], end: EpochEnd) -> dict[str, Any]:
    total = int(end.visits[noisy].sum())
    return {"total": total, "fraction": (total - state["total"]) / max(end.backward_visits, 1)}

  def metrics(state: dict[str, Any]) -> dict[str, Any]:
    return {"noisy_fraction_kept": state["fraction"]}

  def summary(state: dict[str, Any], backward_visits: int) -> dict[str, Any]:
    return {"noisy_fraction_kept": state["total"] / max(backward_visits, 1)}

  return Monitor("label_noise", init, update, metrics, summary)
