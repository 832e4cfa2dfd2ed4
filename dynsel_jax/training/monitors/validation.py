"""Follows the metric on the validation set, and the test metric of the epoch that is best there."""

import math
from typing import Any

from dynsel_jax.metric import Metric
from dynsel_jax.training.monitors.monitor import EpochEnd, Monitor

__all__ = ["validation"]


def validation(metric: Metric) -> Monitor:
  """Logs `validation_METRIC`; the summary holds its best value and the test metric of that epoch."""

  def init() -> dict[str, Any]:
    return {"now": None, "best": None, "test_at_best": None}

  def update(state: dict[str, Any], end: EpochEnd) -> dict[str, Any]:
    now = end.evaluate("validation")[metric.name]
    if state["best"] is None or math.isnan(state["best"]) or metric.better(now, state["best"]):
      return {"now": now, "best": now, "test_at_best": end.metric}
    return {**state, "now": now}

  def metrics(state: dict[str, Any]) -> dict[str, Any]:
    return {f"validation_{metric.name}": state["now"]}

  def summary(state: dict[str, Any], backward_visits: int) -> dict[str, Any]:
    del backward_visits
    return {
      f"best_validation_{metric.name}": state["best"],
      f"test_{metric.name}_at_best_validation": state["test_at_best"],
    }

  return Monitor("validation", init, update, metrics, summary)
