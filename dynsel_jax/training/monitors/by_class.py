"""Counts the samples of each class that an epoch trained on. `C` is the number of classes."""

from typing import Any

import numpy as np

from dynsel_jax.training.monitors.monitor import EpochEnd, Monitor

__all__ = ["by_class"]


def by_class(labels: np.ndarray, num_labels: int) -> Monitor:
  """Logs `kept_by_class`, C counts per epoch, from the training labels `[N]` int32 in [0, C).

  The summary has `class_sizes`, the C numbers of training samples.
  """

  def init() -> dict[str, list[int]]:
    return {"total": [0] * num_labels, "kept": [0] * num_labels}

  def update(state: dict[str, list[int]], end: EpochEnd) -> dict[str, list[int]]:
    total = np.zeros(num_labels, np.int64)
    np.add.at(total, labels, end.visits)
    return {"total": total.tolist(), "kept": (total - np.asarray(state["total"])).tolist()}

  def metrics(state: dict[str, list[int]]) -> dict[str, Any]:
    return {"kept_by_class": state["kept"]}

  def summary(state: dict[str, list[int]], backward_visits: int) -> dict[str, Any]:
    del state, backward_visits
    return {"class_sizes": np.bincount(labels, minlength=num_labels).tolist()}

  return Monitor("by_class", init, update, metrics, summary)
