"""`Sampler`: any method of selection in any training loop. Host-side, numpy in and out, no framework.

`N` is the number of training samples, `B` the global batch size, `b` the rows of a batch, or of one rank's part of it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dynsel_jax import batching, selectors
from dynsel_jax.batching import Purpose
from dynsel_jax.options import UserError, check_at_least, check_positive, check_seed
from dynsel_jax.types import Plan, SampleTable, Selector, Signals

__all__ = ["Epoch", "Sampler"]

_VERSION = 1  # of `state_dict`


class _Batch(NamedTuple):
  """One observed batch, not applied yet."""

  index: np.ndarray  # type: ignore[assignment]  # [b] int32
  loss: np.ndarray  # [b] float32
  trained: np.ndarray  # [b] bool
  extras: dict[str, np.ndarray]  # [b] each


class Epoch:
  """One epoch of a `Sampler`: iterates over the batches that are left of it. Its length is their number."""

  def __init__(self, sampler: "Sampler", number: int, first: int, num_batches: int, learning_rate_multiplier: float):
    self._sampler, self._first, self._num_batches = sampler, first, num_batches
    self.number = number  # counted from 0
    self.learning_rate_multiplier = learning_rate_multiplier  # of the whole epoch; 1 for most methods

  def __len__(self) -> int:
    """Returns the number of batches that are left."""
    return self._num_batches - self._first

  def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields sample indices `[b]` int32 and loss weights `[b]` float32; a batch that was yielded counts as done."""
    return self._sampler._batches(self.number)


class Sampler:
  """Selects the samples of each epoch by a method that learns from the losses it is shown.

      sampler = dynsel_jax.Sampler("infobatch", num_samples=len(x), epochs=30, batch_size=128, seed=0)
      for epoch in sampler.epochs():
        for index, weight in epoch:
          losses = train_step(x[index], y[index], weight)  # minimises sum(weight * losses) / len(index)
          sampler.observe(index, losses)

  `loss_normalization` says by what the weighted sum of a batch's losses is divided: "batch_size", its number of
  samples, or "weight_sum", the sum of its weights. Most methods have weight 1 everywhere, and both are the mean.

  Several ranks: each builds the same sampler with its own `rank`, iterates over its part of every batch, and observes
  the gathered indices and losses of all ranks.
  """

  def __init__(
    self,
    method: str,
    *,
    num_samples: int,
    epochs: int,
    batch_size: int,
    labels: Any = None,
    num_classes: int = 0,
    columns: Mapping[str, Any] = {},
    wrap: Sequence[str] | Mapping[str, Mapping[str, Any]] = (),
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    **options: Any,
  ):
    """Builds the method's state.

    Args:
      method: a registered name, see `dynsel_jax.METHODS`, or the path of your own, `my_lab.my_module:my_selector`.
      num_samples: N.
      epochs: of the whole training.
      batch_size: B, over all ranks.
      labels: `[N]` int, a class or a domain, for the methods that read them.
      num_classes: of the labels; by default one more than the largest.
      columns: `{name: [N] float}`, static scores, for the methods that read them.
      wrap: wrappers around the method, the first innermost: names, or their options by name.
      seed: of every draw, in [0, 2**32).
      rank: of this process, in [0, world_size).
      world_size: number of processes.
      **options: of the method.

    Raises:
      UserError: a name or a value is wrong, or what the method reads is missing.
    """
    for name, value in (("num_samples", num_samples), ("epochs", epochs), ("batch_size", batch_size)):
      check_at_least(name, value, 1)
    check_seed("seed", seed)
    check_positive("world_size", world_size)
    if not 0 <= rank < world_size:
      raise UserError(f"rank={rank} must lie in [0, world_size={world_size})")
    if batch_size % world_size:
      raise UserError(f"batch_size={batch_size} must be a multiple of world_size={world_size}")
    wrapped_in = dict(wrap) if isinstance(wrap, Mapping) else {name: {} for name in wrap}
    table = _table(num_samples, labels, num_classes, columns)
    self.num_samples, self.num_epochs, self.batch_size = num_samples, epochs, batch_size
    self.selector: Selector = selectors.create(method, table, epochs, wrapped_in, **options)
    self.loss_normalization = self.selector.loss_normalization
    self.extras = tuple(n for n in self.selector.reads if n not in columns and n != "labels")  # that `observe` needs
    self._rank, self._world_size = rank, world_size
    made_by = {"method": method, "options": options, "wrap": wrapped_in, "epochs": epochs, "batch_size": batch_size}
    self._made_by = json.dumps(made_by | {"num_samples": num_samples, "seed": seed}, sort_keys=True, default=str)
    # The same keys as a run of `dynsel_jax.training` with this seed has, and so the same draws.
    init_key, self._key = jax.random.split(jax.random.key(seed))
    _, selector_key = jax.random.split(init_key)
    self._programs = _Programs(self.selector, batch_size, num_samples)
    self._state = self._programs.init(selector_key)
    self._plan = _HostPlan(np.zeros(0, np.int32), np.zeros(0, np.float32), 1.0, False, np.zeros(num_samples, bool))
    self._planned = -1  # the epoch that the plan is of
    self._epoch, self._step = 0, 0  # the running epoch, and its batches that were yielded
    self._queue: list[_Batch] = []
    self.info: dict[str, float] = {}  # of the method, for the running epoch
    self.forward_visits, self.backward_visits, self.non_finite = 0, 0, 0  # observed so far

  @property
  def epoch(self) -> int:
    """The running epoch, counted from 0."""
    return self._epoch

  @property
  def realised_keep_fraction(self) -> float:
    """Backward visits so far over those that training on everything would have taken."""
    done = self._epoch + self._step / max(self._num_batches, 1)
    return self.backward_visits / (self.num_samples * done) if done else 1.0

  @property
  def _num_batches(self) -> int:
    return -(-len(self._plan.indices) // self.batch_size)

  def epochs(self) -> Iterator[Epoch]:
    """Yields the epochs that are left, the first of them from the batch at which a loaded state stands."""
    while self._epoch < self.num_epochs:
      number = self._epoch
      self._make_plan()
      yield Epoch(self, number, self._step, self._num_batches, self._plan.learning_rate_multiplier)
      if self._epoch == number:  # the caller left the epoch early
        self._end_epoch()

  def _make_plan(self) -> None:
    if self._planned == self._epoch:
      return
    self._flush()
    select_key, order_key = batching.epoch_keys(self._key, jnp.int32(self._epoch))
    plan, multiplier, thin, info = self._programs.plan(select_key, order_key, self._state, np.int32(self._epoch))
    size = int(plan.size)
    if not size:
      raise UserError(f"the method selects no sample in epoch {self._epoch + 1}")
    given = np.zeros(self.num_samples, bool)
    indices = np.asarray(plan.indices)[:size]
    given[indices] = True
    self._plan = _HostPlan(indices, np.asarray(plan.weights)[:size], float(multiplier), bool(thin), given)
    self._planned = self._epoch
    self.info = {name: float(value) for name, value in info.items()}

  def _batches(self, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    while self._epoch == number and self._step < self._num_batches:
      start = self._step * self.batch_size
      rows = np.arange(start, min(start + self.batch_size, len(self._plan.indices)))
      mine = np.array_split(rows, self._world_size)[self._rank] if self._world_size > 1 else rows
      self._step += 1
      yield self._plan.indices[mine], self._plan.weights[mine]
    if self._epoch == number:
      self._end_epoch()

  def _end_epoch(self) -> None:
    self._flush()
    self._epoch, self._step = self._epoch + 1, 0

  def observe(self, index: Any, losses: Any, *, trained: Any = True, **extras: Any) -> None:
    """Takes the losses of a batch that was trained on, or scored; queued until the epoch ends.

    Args:
      index: `[b]` int, as the epoch yielded it, or of all ranks; b at most B.
      losses: `[b]` float, one for each sample. A loss that is not finite is counted in `non_finite` and is the worst.
      trained: `[b]` bool, or one for all: whether the sample had a backward pass.
      **extras: `[b]` each, the further signals named in `self.extras`.

    Raises:
      UserError: an array has another length, or an index is not of this epoch.
    """
    self._queue.append(self._batch(index, losses, trained, extras))

  def thin(self, index: Any, losses: Any, **extras: Any) -> tuple[np.ndarray, np.ndarray]:
    """Picks the rows of a scored batch to train on, for the methods of level "batch", and observes it.

    For other methods, and in epochs that are not thinned, it picks every row. Not for several ranks.

    Args:
      index: `[b]` int, as the epoch yielded it.
      losses: `[b]` float, of a forward pass; they need not be observed again.
      **extras: as for `observe`.

    Returns:
      Positions in the batch `[p]` int32, ascending, and the loss weights to train them with `[p]` float32.
    """
    batch = self._batch(index, losses, False, extras)
    places = {sample: weight for sample, weight in zip(*self._last_batch(), strict=True)}
    weights = np.array([places.get(sample, 1.0) for sample in batch.index.tolist()], np.float32)
    if self.selector.thin is None or not self._plan.thin:
      self._queue.append(batch._replace(trained=np.ones(len(batch.index), bool)))
      return np.arange(len(batch.index), dtype=np.int32), weights
    if self._world_size > 1:
      raise UserError("thin works on the whole batch: with several ranks call it on one and share the positions")
    self._flush()
    step = np.int32(self._step - 1)
    epoch_key = jax.random.fold_in(self._key, self._planned)
    key = jax.random.fold_in(jax.random.fold_in(epoch_key, Purpose.THIN), step)
    positions, thin_weights = map(np.asarray, self._programs.thin(key, self._state, self._signals(batch)))
    kept = (thin_weights > 0) & (positions < len(batch.index))
    positions, thin_weights = positions[kept], thin_weights[kept]
    trained = np.zeros(len(batch.index), bool)
    trained[positions] = True
    self._queue.append(batch._replace(trained=trained))
    return positions, thin_weights * weights[positions]

  def to_refresh(self) -> Iterator[np.ndarray]:
    """Yields batches of sample indices `[b]` int32 that the method wants scored after the epoch that just ended.

    Show their losses to `observe` with `trained=False`. Most methods want none.
    """
    if self.selector.refresh is None or self._planned < 0:
      return
    self._flush()
    names = np.flatnonzero(np.asarray(self._programs.refresh(self._state, np.int32(self._planned)))).astype(np.int32)
    self._plan.given[names] = True
    for start in range(0, len(names), self.batch_size):
      yield names[start : start + self.batch_size]

  def _last_batch(self) -> tuple[list[int], list[float]]:
    rows = slice((self._step - 1) * self.batch_size, self._step * self.batch_size)
    return self._plan.indices[rows].tolist(), self._plan.weights[rows].tolist()

  def _batch(self, index: Any, losses: Any, trained: Any, extras: Mapping[str, Any]) -> _Batch:
    index, losses = np.asarray(index), np.asarray(losses, np.float32)
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer) or len(index) > self.batch_size:
      raise UserError(
        f"index has shape {index.shape} and type {index.dtype}; it must be at most {self.batch_size} integers"
      )
    if losses.shape != index.shape:
      raise UserError(
        f"losses has shape {losses.shape}, index {index.shape}: give one loss for each sample, not their mean"
      )
    if index.size and (index.min() < 0 or index.max() >= self.num_samples or not self._plan.given[index].all()):
      wrong = next(i for i in index.tolist() if not 0 <= i < self.num_samples or not self._plan.given[i])
      raise UserError(f"index contains {wrong}, which the sampler has not given in this epoch")
    named = {name: np.asarray(extras[name]) for name in self.extras if name in extras}
    if missing := set(self.extras) - set(named):
      raise UserError(f"the method reads {', '.join(sorted(missing))}: give it to observe by name, one value a sample")
    for name, values in named.items():
      if values.shape != index.shape:
        raise UserError(f"{name} has shape {values.shape}, index {index.shape}")
    return _Batch(index.astype(np.int32), losses, np.broadcast_to(np.asarray(trained, bool), index.shape), named)

  def _signals(self, batch: _Batch) -> Signals:
    """Pads a batch to B rows."""
    missing = self.batch_size - len(batch.index)
    padded: Any = Signals  # of numpy arrays
    return padded(
      index=np.pad(batch.index, (0, missing), constant_values=-1),
      loss=np.pad(batch.loss, (0, missing)),
      trained=np.pad(batch.trained, (0, missing)),
      epoch=np.int32(self._planned),
      extras={name: np.pad(values, (0, missing)) for name, values in batch.extras.items()},
    )

  def _flush(self) -> None:
    """Applies the queued batches to the method's state, in the order in which they came."""
    queue, self._queue = self._queue, []
    for batch in queue:
      self.forward_visits += len(batch.index)
      self.backward_visits += int(batch.trained.sum())
      self.non_finite += int(np.count_nonzero(~np.isfinite(batch.loss)))
    self._state = self._programs.observe(self._state, [self._signals(batch) for batch in queue])

  def state_dict(self) -> dict[str, Any]:
    """Returns everything that a continued loop needs, as numpy arrays, numbers and strings.

    A batch that an epoch has yielded counts as done: call it when the batch has been trained on and observed.
    """
    self._flush()
    leaves = jax.tree.leaves(self._state)
    return {
      "version": _VERSION,
      "made_by": self._made_by,
      "epoch": self._epoch,
      "step": self._step,
      "planned": self._planned,
      "forward_visits": self.forward_visits,
      "backward_visits": self.backward_visits,
      "non_finite": self.non_finite,
      **{f"plan_{name}": value for name, value in self._plan._asdict().items()},
      **{f"state_{number:03}": np.asarray(leaf) for number, leaf in enumerate(leaves)},
    }

  def load_state_dict(self, state: Mapping[str, Any]) -> None:
    """Continues from the result of `state_dict`, also after it has been through JSON or another format.

    Raises:
      UserError: it is not of a sampler, or of one with another method, size or option.
    """
    if not isinstance(state, Mapping) or state.get("version") != _VERSION or "made_by" not in state:
      raise UserError("the state is not one that Sampler.state_dict of this version returned")
    theirs, ours = json.loads(state["made_by"]), json.loads(self._made_by)
    if differing := [name for name in ours if theirs.get(name) != ours[name]]:
      words = ", ".join(f"{name} ({theirs.get(name)!r} there, {ours[name]!r} here)" for name in differing)
      raise UserError(f"the state belongs to another sampler: {words}")
    leaves, structure = jax.tree.flatten(self._state)
    loaded = [jnp.asarray(state[f"state_{n:03}"], leaf.dtype).reshape(leaf.shape) for n, leaf in enumerate(leaves)]
    self._state = jax.tree.unflatten(structure, loaded)
    self._plan = _HostPlan(
      np.asarray(state["plan_indices"], np.int32),
      np.asarray(state["plan_weights"], np.float32),
      float(state["plan_learning_rate_multiplier"]),
      bool(state["plan_thin"]),
      np.asarray(state["plan_given"], bool),
    )
    self._epoch, self._step, self._planned = (int(state[name]) for name in ("epoch", "step", "planned"))
    self.forward_visits, self.backward_visits = int(state["forward_visits"]), int(state["backward_visits"])
    self.non_finite = int(state["non_finite"])
    self._queue = []


class _HostPlan(NamedTuple):
  """The plan of an epoch as numpy arrays."""

  indices: np.ndarray  # [size] int32
  weights: np.ndarray  # [size] float32
  learning_rate_multiplier: float
  thin: bool
  given: np.ndarray  # [N] bool, samples that may be observed


class _Programs:
  """The compiled functions of a selector; each is traced once, whatever the number of batches."""

  def __init__(self, selector: Selector, batch_size: int, num_samples: int):
    self._chunk = -(-num_samples // batch_size)  # batches that are applied in one call
    self._selector = selector
    self.init = jax.jit(selector.init)
    self.plan = jax.jit(self._select_and_order)
    self._observe = jax.jit(selector.observe, donate_argnums=0)
    self._observe_many = jax.jit(self._scan, donate_argnums=0)
    self.thin: Callable[..., Any] = jax.jit(selector.thin) if selector.thin else lambda *_: None
    self.refresh: Callable[..., Any] = jax.jit(selector.refresh) if selector.refresh else lambda *_: None

  def _select_and_order(
    self, select_key: Array, order_key: Array, state: Any, epoch: Array
  ) -> tuple[Plan, Any, Any, Any]:
    selection, info = self._selector.select(select_key, state, epoch)
    return batching.order(order_key, selection), selection.learning_rate_multiplier, selection.thin, info

  def _scan(self, state: Any, batches: Signals) -> Any:
    return jax.lax.scan(lambda state, signals: (self._selector.observe(state, signals), None), state, batches)[0]

  def observe(self, state: Any, batches: list[Signals]) -> Any:
    """Returns the state after batches of B rows each."""
    if not batches:
      return state
    if len(batches) == 1:
      return self._observe(state, batches[0])
    for start in range(0, len(batches), self._chunk):
      part = batches[start : start + self._chunk]
      padding = batches[0]._replace(index=np.full(batches[0].index.shape, -1, np.int32))  # type: ignore[arg-type]
      part = [*part, *[padding] * (self._chunk - len(part))]
      state = self._observe_many(state, jax.tree.map(lambda *rows: np.stack(rows), *part))
    return state


def _table(num_samples: int, labels: Any, num_classes: int, columns: Mapping[str, Any]) -> SampleTable:
  if labels is not None:
    labels = np.asarray(labels)
    if labels.shape != (num_samples,) or not np.issubdtype(labels.dtype, np.integer):
      raise UserError(
        f"labels has shape {labels.shape} and type {labels.dtype}; it must be num_samples={num_samples} integers"
      )
    num_classes = num_classes or int(labels.max()) + 1
    labels = jnp.asarray(labels, jnp.int32)
  return SampleTable(num_samples, labels, num_classes, {k: jnp.asarray(v, jnp.float32) for k, v in columns.items()})
