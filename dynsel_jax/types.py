"""The shared vocabulary: sample tables, signals, selections, plans, and the functions of a selector.

A selector is a NamedTuple of pure functions, like an optax transformation. `N` is the number of training samples,
`B` the global batch size, `b` the number of samples of a scored meta-batch that a step trains on.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from jax import Array

__all__ = [
  "LOSS_NORMALIZATIONS",
  "PROJECTION_WIDTH",
  "InitFn",
  "ObserveFn",
  "Plan",
  "RefreshFn",
  "SampleTable",
  "SelectFn",
  "Selection",
  "Selector",
  "SelectorState",
  "Signals",
  "ThinFn",
  "Volume",
]

SelectorState = Any  # a pytree of arrays without a leaf of size zero, so that it can be checkpointed

LOSS_NORMALIZATIONS = ("weight_sum", "batch_size")  # the divisor of a step's weighted loss
PROJECTION_WIDTH = 1024  # numbers of a sample in the extra "projection"


class SampleTable(NamedTuple):
  """The training set before training: its size, its labels and its columns of per-sample numbers."""

  num_samples: int  # N
  labels: Array | None = None  # [N] int32 in [0, num_classes): a class, or a domain to balance over
  num_classes: int = 0  # 0 without labels
  columns: Mapping[str, Array] = {}  # name -> [N] float32, such as "rarity"; "proxy_rank" may be [N, epochs]


class Signals(NamedTuple):
  """The signals of one step's global batch. Rows with index -1 are padding and carry no meaning."""

  index: Array  # type: ignore[assignment]  # [B] int32, position in the training set, -1 on padding
  loss: Array  # [B] float32, the task's loss of the view that the model saw
  trained: Array  # [B] bool, whether the sample had a backward pass; False if it was only scored
  epoch: Array  # [] int32, counted from 0; lets `observe` see a batch twice without counting it twice
  extras: Mapping[str, Array] = {}  # name -> [B] or [B, D], further signals of the task, for example "correct"


class Selection(NamedTuple):
  """Which samples an epoch trains on. Made by a method; `batching.order` decides the visiting order."""

  keep: Array  # [N] bool
  weights: Array | None = None  # [N] float32, loss weight of each sample by its index; None stands for 1
  learning_rate_multiplier: Array | float = 1.0  # [] float32, for the whole epoch
  thin: Array | bool = True  # [] bool, whether to thin the epoch's meta-batches, if the selector can


class Plan(NamedTuple):
  """The visiting order of an epoch. Made by `batching.order`."""

  indices: Array  # [N] int32, the kept samples in visiting order, then -1
  weights: Array  # [N] float32, loss weight of the sample at the same place, 0 on the tail
  size: Array  # [] int32, number of kept samples


class InitFn(Protocol):
  """Builds the state before the first epoch."""

  def __call__(self, key: Array) -> SelectorState: ...


class SelectFn(Protocol):
  """Selects the samples of one epoch. `epoch` is `[] int32`, counted from 0; the info holds scalars for the log.

  The info name `non_finite` is reserved for the number of scores that were NaN or infinite and counted as the worst.
  """

  def __call__(self, key: Array, state: SelectorState, epoch: Array) -> tuple[Selection, dict[str, Array]]: ...


class ObserveFn(Protocol):
  """Updates the state with one step's signals. Idempotent and independent of the order of an epoch's steps.

  A method whose state is a queue, and so depends on that order, says so in its docstring.
  """

  def __call__(self, state: SelectorState, signals: Signals) -> SelectorState: ...


class ThinFn(Protocol):
  """Picks the rows of a scored meta-batch to train on: positions `[b] int32` and loss weights `[b] float32`.

  `b` is fixed by the batch's shape, and positions are distinct. A padded row may be picked only when fewer than `b`
  rows are valid, and then with weight 0. The state is the one before this meta-batch was observed.
  """

  def __call__(self, key: Array, state: SelectorState, signals: Signals) -> tuple[Array, Array]: ...


class RefreshFn(Protocol):
  """Names the samples to score again, by a forward pass, after the epoch that just ended: `[N] bool`.

  Their signals come to `observe` with `trained` False.
  """

  def __call__(self, state: SelectorState, epoch: Array) -> Array: ...


class Volume(NamedTuple):
  """The fraction of the training set that a method keeps, and the method itself at other fractions."""

  keep_fraction: float
  at: Callable[[float], "Selector"]  # with another keep_fraction and otherwise the same options


class Selector(NamedTuple):
  """A method of dynamic data selection."""

  init: InitFn
  select: SelectFn
  observe: ObserveFn
  thin: ThinFn | None = None
  refresh: RefreshFn | None = None
  reads: tuple[str, ...] = ()  # needed beside the loss: "labels", names of columns of the table and of extras
  loss_normalization: str = "weight_sum"  # divisor of a step's weighted loss: its "weight_sum" or its "batch_size"
  full_epochs: tuple[int, int] = (0, 0)  # how many at the start and at the end train on the full data in any case
  volume: Volume | None = None  # set by `create` for a method with the option `keep_fraction`; no wrapper keeps it
