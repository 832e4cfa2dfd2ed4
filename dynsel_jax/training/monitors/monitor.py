"""A monitor: adds numbers about the run to each line of `metrics.jsonl`, at the end of an epoch. Host-side."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

__all__ = ["EpochEnd", "Monitor", "State"]

State = Any  # can be written as JSON, since each checkpoint contains it


class EpochEnd(NamedTuple):
  """A finished epoch, as monitors see it."""

  visits: np.ndarray  # [N] int32, backward passes of each training sample over the whole run
  backward_visits: int  # of this epoch
  metric: float  # the headline on the test set
  evaluate: Callable[[str], Mapping[str, float]]  # the task's metrics by name, over the split of the given name
  corrupt: Mapping[str, list[int]] | None  # damaged samples found so far, by split; None for a data set in memory


class UpdateFn(Protocol):
  """Returns the state after an epoch. Every process of a run calls it."""

  def __call__(self, state: State, end: EpochEnd) -> State: ...


class Monitor(NamedTuple):
  """A monitor: a state, its update, and the fields that it adds to a line of metrics and to the summary."""

  name: str
  init: Callable[[], State]
  update: UpdateFn
  metrics: Callable[[State], dict[str, Any]]  # for the epoch's line of `metrics.jsonl`
  summary: Callable[[State, int], dict[str, Any]]  # for `summary.json`, given the run's backward visits
