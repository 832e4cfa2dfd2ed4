"""Monitors: each adds its numbers to the line of an epoch, and the loop knows none of them by name. Host-side."""

from collections.abc import Mapping

import numpy as np

from dynsel_jax.data import Source
from dynsel_jax.factors.coverage import Firings
from dynsel_jax.metric import Metric
from dynsel_jax.training.monitors.by_class import by_class
from dynsel_jax.training.monitors.corrupt import corrupt
from dynsel_jax.training.monitors.coverage import coverage
from dynsel_jax.training.monitors.label_noise import label_noise
from dynsel_jax.training.monitors.monitor import EpochEnd, Monitor
from dynsel_jax.training.monitors.validation import validation

__all__ = ["EpochEnd", "Monitor", "create"]


def create(source: Source, metric: Metric, *, streamed: bool, firings: Mapping[str, np.ndarray]) -> list[Monitor]:
  """Builds the monitors that apply to a run.

  Args:
    source: the data set.
    metric: the task's headline.
    streamed: whether the images stay on disk.
    firings: the arrays of `factors.coverage.Firings`; empty without factors.
  """
  found: list[Monitor] = []
  if source.labels is not None:
    found.append(by_class(source.labels, source.num_classes))
  if source.validation is not None:
    found.append(validation(metric))
  if source.noisy is not None:
    found.append(label_noise(source.noisy))
  if firings:
    found.append(coverage(Firings(**firings)))
  if streamed:
    found.append(corrupt())
  return found
