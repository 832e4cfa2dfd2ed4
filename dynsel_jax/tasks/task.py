"""A task: how losses, signals and metrics are computed from a model's outputs on a batch.

`N` is the number of samples of a set, `b` the rows of a batch.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax import Array

from dynsel_jax.data.gather import Batch, View
from dynsel_jax.metric import Metric

__all__ = ["Batch", "InputsFn", "LossesFn", "Metric", "MetricsFn", "ObjectiveFn", "RowsFn", "SummarizeFn", "Task"]


InputsFn = View  # (key or None, index [b], batch) -> batch; see `Task.inputs`


class LossesFn(Protocol):
  """Returns the losses `[b] float32` that selectors observe, and the extras `{name: [b]}`."""

  def __call__(self, outputs: Any, batch: Batch) -> tuple[Array, dict[str, Array]]: ...


class ObjectiveFn(Protocol):
  """Returns the losses `[b] float32` whose weighted mean a step descends."""

  def __call__(self, outputs: Any, batch: Batch) -> Array: ...


class MetricsFn(Protocol):
  """Returns `{name: (sum, count)}` over the rows that are `valid` `[b] bool`; a metric of a set is sum / count."""

  def __call__(self, outputs: Any, batch: Batch, valid: Array) -> dict[str, tuple[Array, Array]]: ...


class RowsFn(Protocol):
  """Returns `{name: [b] float32}`, numbers of each row that `Task.summarize` takes over the whole set."""

  def __call__(self, outputs: Any, batch: Batch) -> dict[str, Array]: ...


class SummarizeFn(Protocol):
  """Returns `{metric: value}` from the `{name: [N] float32}` of a whole set, on the host."""

  def __call__(self, of_set: Mapping[str, np.ndarray]) -> dict[str, float]: ...


class Task(NamedTuple):
  """A learning task. Its functions are pure and jit-able, except `summarize`.

  A factory of tasks is `task(source, view, *, options) -> Task`: `source` is the data set (`dynsel_jax.data.Source`),
  `view` its augmentation and normalisation as the config names them (`data.gather.view`), which most tasks take for
  `inputs` as it is. A user's own factory is named by its path, `my_lab.my_task:task`.
  """

  name: str
  metric: Metric  # one of the names of `metrics` or `summarize`; reports, tables and the console speak of it
  signals: tuple[str, ...]  # names of the extras that `losses` gives
  num_outputs: int  # width of the model's last layer
  inputs: InputsFn  # augments, normalises, masks; draws depend on the key, one an epoch, and the sample's index alone;
  #                   with the key None the batch is as in evaluation. The model is given batch["inputs"] of the result
  losses: LossesFn
  metrics: MetricsFn
  objective: ObjectiveFn | None = None  # where a step descends another loss than selectors observe; else `losses`
  rows: RowsFn | None = None  # for metrics that are not a mean over samples, such as correlations
  summarize: SummarizeFn | None = None
