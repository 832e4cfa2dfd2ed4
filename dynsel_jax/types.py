"""The vocabulary every room shares: what a selector is given, what it returns, and what it is.

A selector is a NamedTuple of pure functions, as an optax transformation is. `N` is the number of training samples,
`B` the global batch size, `b` the number of samples of a scored meta-batch that a step trains on.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from jax import Array

__all__ = [
  "InitFn",
  "ObserveFn",
  "RefreshFn",
  "SampleTable",
  "SelectFn",
  "Selection",
  "Selector",
  "SelectorState",
  "Signals",
  "ThinFn",
]

SelectorState = Any  # a pytree of arrays without a leaf of size zero, so that it can be checkpointed


class SampleTable(NamedTuple):
  """What is known of the training set before training."""

  labels: Array  # [N] int32, in [0, num_classes)
  num_classes: int
  columns: Mapping[str, Array] = {}  # name -> [N] float32, for example "representativeness"


class Signals(NamedTuple):
  """What one step saw of its global batch. Rows with index -1 are padding and carry no meaning."""

  index: Array  # type: ignore[assignment]  # [B] int32, position in the training set, -1 on padding
  loss: Array  # [B] float32, cross-entropy of the view that was seen, in nats, without label smoothing
  confidence: Array  # [B] float32, probability of the predicted class
  margin: Array  # [B] float32, probability of the label minus the largest other probability
  el2n: Array  # [B] float32, Euclidean norm of probabilities minus one-hot label
  correct: Array  # [B] bool, whether the predicted class is the label
  trained: Array  # [B] bool, whether the sample had a backward pass, False where it was only scored
  epoch: Array  # [] int32, counted from 0; lets `observe` see a batch twice without counting it twice


class Selection(NamedTuple):
  """One epoch's plan."""

  indices: Array  # [N] int32, the chosen samples in visiting order, then -1
  weights: Array  # [N] float32, loss weight of the sample at the same place, 0 on the tail
  size: Array  # [] int32, how many samples are chosen
  learning_rate_multiplier: Array | float = 1.0  # [] float32, for the whole epoch
  thin: Array | bool = True  # [] bool, whether this epoch's meta-batches are thinned, if the selector can


class InitFn(Protocol):
  """Builds the state before the first epoch."""

  def __call__(self, key: Array) -> SelectorState: ...


class SelectFn(Protocol):
  """Plans one epoch. `epoch` is `[] int32`, counted from 0; the info holds scalars for the log.

  The info name `non_finite` is kept for the count of scores that were NaN or infinite and counted as the worst.
  """

  def __call__(self, key: Array, state: SelectorState, epoch: Array) -> tuple[Selection, dict[str, Array]]: ...


class ObserveFn(Protocol):
  """Takes in one step's signals. Idempotent, and the order of the steps of an epoch is of no consequence."""

  def __call__(self, state: SelectorState, signals: Signals) -> SelectorState: ...


class ThinFn(Protocol):
  """Chooses which of a scored meta-batch to train on: positions in the batch `[b] int32`, loss weights `[b] float32`.

  `b` is fixed by the batch's shape, and no position occurs twice. A padded row may be chosen only when fewer than `b`
  rows are valid, and then with weight 0. The state is the one before this meta-batch was observed.
  """

  def __call__(self, key: Array, state: SelectorState, signals: Signals) -> tuple[Array, Array]: ...


class RefreshFn(Protocol):
  """Names samples whose signals are to be made new by a forward pass after the epoch that just ended.

  Returns a `Selection` whose weights are not read; the signals come to `observe` with `trained` False.
  """

  def __call__(self, state: SelectorState, epoch: Array) -> Selection: ...


class Selector(NamedTuple):
  """A method of dynamic data selection."""

  init: InitFn
  select: SelectFn
  observe: ObserveFn
  thin: ThinFn | None = None
  refresh: RefreshFn | None = None
