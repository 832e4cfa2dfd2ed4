"""A monitor: a number about the run in each line of `metrics.jsonl`, updated at the end of each epoch. Host-side."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

__all__ = ["EpochEnd", "Monitor", "State"]

State = Any  # JSON must be able to hold it: it is saved with each checkpoint


class EpochEnd(NamedTuple):
  """A finished epoch, for monitors to look at."""

  visits: np.ndarray  # [N] int32, backward passes of each training sample over the run
  backward_visits: int  # of this epoch
  metric: float  # of the test set
  evaluate: Callable[[str], Mapping[str, float]]  # the task's metrics by name, over the set of a split's name
  corrupt: Mapping[str, list[int]] | None  # damaged samples met so far, by split; None for a set in memory


class UpdateFn(Protocol):
  """Returns the state after an epoch. Every process of a run calls it."""

  def __call__(self, state: State, end: EpochEnd) -> State: ...


class Monitor(NamedTuple):
  """A monitor. Its fields are the names of what it adds to a line of metrics and to the summary."""

  name: str
  init: Callable[[], State]
  update: UpdateFn
  metrics: Callable[[State], dict[str, Any]]  # for the epoch's line of `metrics.jsonl`
  summary: Callable[[State, int], dict[str, Any]]  # for `summary.json`, given the run's backward visits
