"""A task: the functions that compute losses, signals and metrics from a model's outputs on a batch.

`N` is the number of samples of a data set, `b` the number of rows of a batch.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax import Array

from dynsel_jax.data.gather import Batch, View
from dynsel_jax.metric import Metric

__all__ = [
  "Batch",
  "InputsFn",
  "LossesFn",
  "Metric",
  "MetricsFn",
  "ObjectiveFn",
  "ReduceFn",
  "RowWeightsFn",
  "RowsFn",
  "SummarizeFn",
  "Task",
]

InputsFn = View  # (key or None, index [b], batch) -> batch; see `Task.inputs`


class ReduceFn(Protocol):
  """Computes from a model's outputs what `losses` and `metrics` need, `[b, ...]` each, from a batch of any length."""

  def __call__(self, outputs: Any, batch: Batch, /) -> Any: ...


class RowWeightsFn(Protocol):
  """Computes how much each row counts in the mean of a step, `[b] float32`."""

  def __call__(self, batch: Batch, /) -> Array: ...


class LossesFn(Protocol):
  """Computes the losses `[b] float32` that selectors observe, and the extras `{name: [b] or [b, D]}`."""

  def __call__(self, outputs: Any, batch: Batch, /) -> tuple[Array, dict[str, Array]]: ...


class ObjectiveFn(Protocol):
  """Computes the losses `[b] float32` whose weighted mean a step minimises."""

  def __call__(self, outputs: Any, batch: Batch, /) -> Array: ...


class MetricsFn(Protocol):
  """Computes `{name: (sum, count)}` over the rows that are `valid` `[b] bool`, all scalars.

  Sums and counts are added over batches and devices; the metric of a data set is their quotient.
  """

  def __call__(self, outputs: Any, batch: Batch, valid: Array, /) -> dict[str, tuple[Array, Array]]: ...


class RowsFn(Protocol):
  """Computes `{name: [b] float32}`, the numbers of each row from which `Task.summarize` computes further metrics."""

  def __call__(self, outputs: Any, batch: Batch, /) -> dict[str, Array]: ...


class SummarizeFn(Protocol):
  """Computes `{metric: value}` from the rows `{name: [N] float32}` of a whole data set, on the host."""

  def __call__(self, rows: Mapping[str, np.ndarray], /) -> dict[str, float]: ...


class Task(NamedTuple):
  """A learning task. Its functions are pure and jit-able, except `summarize`.

  A factory of tasks is `task(source, view, *, options) -> Task`. `source` is the data set (`dynsel_jax.data.Source`);
  `view` augments and normalises it as the config says (`data.gather.view`), and most tasks use it as their `inputs`. A
  user's own factory is named by its path, `my_lab.my_task:task`.

  `inputs` augments, normalises or masks a batch; the model is given "inputs" of the result. Its draws depend on the
  key, one per epoch, and on each sample's index alone. With the key None it returns the batch as evaluation sees it.
  """

  name: str
  metric: Metric  # the headline: one of the names in `metrics` or `summarize`
  signals: tuple[str, ...]  # names of the extras that `losses` gives
  num_outputs: int  # width of the model's last layer
  inputs: InputsFn
  losses: LossesFn
  metrics: MetricsFn
  objective: ObjectiveFn | None = None  # the loss to minimise, if it is not the one that selectors observe
  rows: RowsFn | None = None  # for metrics that are not a mean over samples, such as correlations
  summarize: SummarizeFn | None = None  # given exactly if `rows` is
  reduce: ReduceFn | None = None  # called at once on outputs that are too large to be kept
  row_weights: RowWeightsFn | None = None  # if a step's mean is not over samples, as with tokens

  def reduced(self, outputs: Any, batch: Batch) -> Any:
    """Returns what the other functions take as `outputs`."""
    return outputs if self.reduce is None else self.reduce(outputs, batch)
