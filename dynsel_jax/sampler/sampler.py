"""The `Sampler`. Host-side, numpy in and out.

`N` is the number of training samples, `B` the global batch size, `b` the rows of a batch, or of one rank's part of it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dynsel_jax import batching, selectors
from dynsel_jax.batching import Purpose
from dynsel_jax.options import UserError
from dynsel_jax.sampler.arguments import check_numbers, check_rank, digest, sample_table, wrappers
from dynsel_jax.sampler.epoch import Batches, Epoch
from dynsel_jax.sampler.plan import HostPlan
from dynsel_jax.sampler.programs import Batch, Programs, signals_of
from dynsel_jax.types import SampleTable, Selector

__all__ = ["Sampler"]

_VERSION = 1  # of `state_dict`


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
  the gathered indices and losses of all ranks. The last batch of an epoch may be shorter, and empty on some ranks.
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
      columns: `{name: [N] float}`, static scores, for the methods that read them; `proxy_rank` may be `[N, epochs]`.
      wrap: wrappers around the method, the first innermost: names, or their options by name.
      seed: of every draw, in [0, 2**32).
      rank: of this process, in [0, world_size).
      world_size: number of processes.
      **options: of the method.

    Raises:
      UserError: a name or a value is wrong, or what the method reads is missing.
    """
    check_numbers(num_samples, epochs, batch_size, seed)
    check_rank(rank, world_size, batch_size)
    wrapped_in, table = wrappers(wrap), sample_table(num_samples, labels, num_classes, columns)
    self.num_samples, self.num_epochs, self.batch_size = num_samples, epochs, batch_size
    self.selector = _created(method, table, epochs, wrapped_in, options)
    self.loss_normalization = self.selector.loss_normalization
    self.extras = tuple(n for n in self.selector.reads if n not in columns and n != "labels")  # that `observe` needs
    selectors.check_reads(method, self.selector, table, self.extras, "give it, [N] int, in labels=")
    self.rank, self.world_size = rank, world_size
    made_by = {"method": method, "options": options, "wrap": wrapped_in, "epochs": epochs, "batch_size": batch_size}
    made_by |= {"num_samples": num_samples, "seed": seed, "table": digest(table)}
    self._made_by = json.dumps(made_by, sort_keys=True, default=str)
    # The same keys as a run of `dynsel_jax.training` with this seed has, and so the same draws.
    init_key, self._key = jax.random.split(jax.random.key(seed))
    _, selector_key = jax.random.split(init_key)
    self._programs = Programs(self.selector, batch_size, num_samples)
    self._state = self._programs.init(selector_key)
    self._plan = HostPlan.of(num_samples, np.zeros(0, np.int32), np.zeros(0, np.float32), 1.0, False)
    self._planned = -1  # epoch of the current plan
    self._epoch, self._step = 0, 0  # the running epoch, and its batches that are done
    self._read_ahead_of = -1  # the epoch whose batches count as done when they are observed, not when they are yielded
    self._in_epochs = False  # whether a loop over `epochs` runs
    self._queue, self.info = list[Batch](), dict[str, float]()  # `info` is the method's, for the running epoch
    self.forward_visits, self.backward_visits, self.non_finite = 0, 0, 0  # observed so far

  @property
  def epoch(self) -> int:
    """The running epoch, counted from 0."""
    return self._epoch

  @property
  def progress(self) -> float:
    """The epochs that are done, with the done fraction of the running one."""
    planned = len(self._plan.indices)  # the last batch may be small
    return self._epoch + min(self._step * self.batch_size, planned) / max(planned, 1)

  @property
  def realised_keep_fraction(self) -> float:
    """Backward visits so far over those that training on everything would have taken."""
    return self.backward_visits / (self.num_samples * self.progress) if self.progress else 1.0

  @property
  def _num_batches(self) -> int:
    return -(-len(self._plan.indices) // self.batch_size)

  @property
  def step(self) -> int:
    """The batches of the running epoch that are done."""
    return self._step

  @property
  def learning_rate_multiplier(self) -> float:
    """That of the epoch whose samples were selected last."""
    return self._plan.learning_rate_multiplier

  def epochs(self) -> Iterator[Epoch]:
    """Yields the epochs that are left, the first of them from the batch at which a loaded state stands."""
    self._in_epochs = True
    try:
      while (epoch := self.current()) is not None:
        yield epoch
        if self._epoch == epoch.number:  # the caller left the epoch early, or read ahead
          self._end_epoch()
    finally:
      self._in_epochs = False

  def current(self) -> Epoch | None:
    """Returns the running epoch, whose samples it selects if nobody has; None if all epochs have ended."""
    if self._epoch >= self.num_epochs:
      return None
    self._make_plan()
    left = self._num_batches - self._step
    rows = self.batch_size // self.world_size
    return Epoch(self._epoch, left, self.learning_rate_multiplier, self._batches, self._read_ahead, rows)

  def read_ahead(self, group: int = 1, *, drop_last: bool = False) -> Batches:
    """Returns what `Epoch.read_ahead` does of the running epoch, for a loop that is not over `epochs`.

    If all of the epoch is done, this ends it and goes on to the next. Behind the last epoch it returns no batch.
    """
    batches: Batches = []
    while not batches and (epoch := self.current()) is not None:
      batches = epoch.read_ahead(group, drop_last=drop_last)
      if self._in_epochs:
        break
      if not batches:
        self._end_epoch()
    return batches

  def weight_of(self, index: Any) -> np.ndarray:
    """Returns the loss weights `[b]` float32 of samples of the epoch, for a loop whose loader gives indices alone.

    Raises:
      UserError: the epoch does not train on one of the samples.
    """
    return self._plan.weights[self._plan.places_of(np.asarray(index))]

  def divided(self, weight: Any, terms: Any = 1) -> np.ndarray:
    """Divides a batch's loss weights as `loss_normalization` says, so that its loss is `sum(divided * losses)`.

    Args:
      weight: `[b]` float, of the samples of the batch.
      terms: `[b]`, of how many terms each sample's loss is the sum, such as tokens.

    Returns:
      `[b]` float32.
    """
    weight = np.asarray(weight, np.float32)
    divisor = np.sum(np.broadcast_to(terms, weight.shape) * (weight if self.loss_normalization == "weight_sum" else 1))
    return weight / np.float32(max(divisor, 1e-9))

  def _make_plan(self) -> None:
    if self._planned == self._epoch:
      return
    self._flush()
    select_key, order_key = batching.epoch_keys(self._key, jnp.int32(self._epoch))
    plan, multiplier, thin, info = self._programs.plan(select_key, order_key, self._state, np.int32(self._epoch))
    size = int(plan.size)
    if not size:
      raise UserError(f"the method selects no sample in epoch {self._epoch + 1}")
    indices, weights = np.asarray(plan.indices)[:size], np.asarray(plan.weights)[:size]
    self._plan = HostPlan.of(self.num_samples, indices, weights, float(multiplier), bool(thin))
    self._planned = self._epoch
    self.info = {name: float(value) for name, value in info.items()}

  def _batches(self, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    while self._epoch == number and self._step < self._num_batches:
      self._step += 1
      yield self._part(self._step - 1)
    if self._epoch == number:
      self._end_epoch()

  def _part(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    return self._plan.part(step, self.batch_size, self.rank, self.world_size)

  def _read_ahead(self, number: int, group: int, drop_last: bool) -> Batches:
    if self._epoch != number:
      return []
    self._read_ahead_of = number
    least = self.batch_size if drop_last else self.world_size
    last = self._num_batches - (0 < len(self._plan.indices) % self.batch_size < least)
    last = last // group * group or last
    return [self._part(step) for step in range(self._step, last)]

  def _end_epoch(self) -> None:
    self._flush()
    self._epoch, self._step = self._epoch + 1, 0

  def observe(self, index: Any, losses: Any, *, trained: Any = True, **extras: Any) -> None:
    """Takes the losses of a batch that was trained on, or scored; queued until the epoch ends.

    In a loop that reads ahead, this is what counts a trained batch, and those before it, as done.

    Args:
      index: `[b]` int, as the epoch yielded it, or of all ranks; b at most B. Rows of padding, -1, are left out.
      losses: `[b]` float, one for each sample. A loss that is not finite is counted in `non_finite` and is the worst.
      trained: `[b]` bool, or one for all: whether the sample had a backward pass.
      **extras: `[b]` or `[b, D]` each, the further signals named in `self.extras`.

    Raises:
      UserError: an array has another length, or an index is not of this epoch.
    """
    self._enqueue(self._batch(index, losses, trained, extras))

  def _enqueue(self, batch: Batch, *, scored_first: bool = False) -> None:
    self._queue.append(batch)
    trained = int(np.count_nonzero(batch.trained))
    self.backward_visits += trained
    self.forward_visits += len(batch.index) + (trained if scored_first else 0)
    if self._read_ahead_of == self._epoch and batch.trained.any():
      self._step = max(self._step, self._step_of(batch) + 1)

  def _step_of(self, batch: Batch) -> int:
    return self._plan.last_place(batch.index) // self.batch_size

  def thin(self, index: Any, losses: Any, *, second_pass: bool = True, **extras: Any) -> tuple[np.ndarray, np.ndarray]:
    """Picks the rows of a scored batch to train on, for the methods of level "batch", and observes it.

    For other methods, and in epochs that are not thinned, it picks every row. Not for several ranks.

    Args:
      index: `[b]` int, as the epoch yielded it.
      losses: `[b]` float, of a forward pass; they need not be observed again.
      second_pass: whether the picked rows take another forward pass to be trained, which `forward_visits` counts.
      **extras: as for `observe`.

    Returns:
      Positions in the batch `[p]` int32, ascending, and the loss weights to train them with `[p]` float32.
    """
    batch = self._batch(index, losses, False, extras)
    weights = self.weight_of(batch.index)
    if self.selector.thin is None or not self._plan.thin:
      self._enqueue(batch._replace(trained=np.ones(len(batch.index), bool)))
      return np.arange(len(batch.index), dtype=np.int32), weights
    if self.world_size > 1:
      raise UserError("thin works on the whole batch: with several ranks call it on one and share the positions")
    self._flush()
    step = np.int32(self._step_of(batch))
    key = jax.random.fold_in(batching.key_of(self._key, self._planned, Purpose.THIN), step)
    signals = signals_of(batch, self.batch_size, self._planned)
    positions, thin_weights = map(np.asarray, self._programs.thin(key, self._state, signals))
    kept = (thin_weights > 0) & (positions < len(batch.index))
    positions, thin_weights = positions[kept], thin_weights[kept]
    trained = np.zeros(len(batch.index), bool)
    trained[positions] = True
    self._enqueue(batch._replace(trained=trained), scored_first=second_pass)
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

  def _batch(self, index: Any, losses: Any, trained: Any, extras: Mapping[str, Any]) -> Batch:
    index, losses = np.array(index), _queued(losses)
    padding = index == -1  # of `Epoch.padded`
    size = index.size - np.count_nonzero(padding)
    if index.ndim != 1 or index.dtype.kind not in "iu" or size > self.batch_size:
      raise UserError(
        f"index has shape {index.shape} and type {index.dtype}; it must be at most {self.batch_size} integers"
      )
    if losses.shape != index.shape:
      raise UserError(
        f"losses has shape {losses.shape}, index {index.shape}: give one loss for each sample, not their mean"
      )
    named = {name: _queued(extras[name]) for name in self.extras if name in extras}
    for name, values in named.items():
      if values.shape[:1] != index.shape:
        raise UserError(f"{name} has shape {values.shape}, index {index.shape}")
    trained = np.broadcast_to(np.array(trained, bool), index.shape)
    if size < index.size:
      index, trained, losses = index[~padding], trained[~padding], np.asarray(losses)[~padding]
      named = {name: np.asarray(values)[~padding] for name, values in named.items()}
    if index.size and (index.min() < 0 or index.max() >= self.num_samples or not self._plan.given[index].all()):
      wrong = next(i for i in index.tolist() if not 0 <= i < self.num_samples or not self._plan.given[i])
      raise UserError(f"index contains {wrong}, which the sampler has not given in this epoch")
    if len(named) < len(self.extras):
      missing = ", ".join(name for name in self.extras if name not in named)
      raise UserError(f"the method reads {missing}: give it to observe by name, one value a sample")
    return Batch(index, losses, trained, named)

  def _flush(self) -> None:
    """Applies the queued batches to the method's state, in the order in which they came."""
    queue, self._queue = self._queue, []
    if queue:
      self._state, non_finite = self._programs.observe(self._state, queue, self._planned)
      self.non_finite += non_finite

  def state_dict(self) -> dict[str, Any]:
    """Returns everything that a continued loop needs, as numpy arrays, numbers and strings.

    A batch that an epoch has yielded counts as done: call it when the batch has been trained on and observed. In a
    loop that reads ahead, a batch counts as done when it has been observed, however far the loader has read.
    """
    self._flush()
    leaves = jax.tree.leaves(self._state)
    return {
      "version": _VERSION,
      "made_by": self._made_by,
      "epoch": self._epoch,
      "step": self._step,
      "planned": self._planned,
      "info": json.dumps(self.info),
      "forward_visits": self.forward_visits,
      "backward_visits": self.backward_visits,
      "non_finite": self.non_finite,
      **self._plan.state(),
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
    self._plan = HostPlan.from_state(state)
    self._epoch, self._step, self._planned = (int(state[name]) for name in ("epoch", "step", "planned"))
    self._read_ahead_of, self.info = -1, json.loads(state["info"])
    self.forward_visits, self.backward_visits = int(state["forward_visits"]), int(state["backward_visits"])
    self.non_finite = int(state["non_finite"])
    self._queue = []


def _created(method: str, table: SampleTable, epochs: int, wrapped_in: Any, options: Mapping[str, Any]) -> Selector:
  try:
    return selectors.create(method, table, epochs, wrapped_in, **options)
  except UserError as error:
    raise UserError(f"{error} (labels= and columns= make the table)" if "table" in str(error) else error) from None


def _queued(values: Any) -> Any:
  """Copies values that their owner may overwrite; an array of JAX is not waited for until the queue is applied."""
  return values if isinstance(values, jax.Array) else np.array(values)
