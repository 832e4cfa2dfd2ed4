"""A training run without a model: random signals drive a selector, so that a method is tested by being registered."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynsel_jax import batching, selectors
from dynsel_jax.selectors.wrappers.full_data import everything
from dynsel_jax.types import PROJECTION_WIDTH, Plan, SampleTable, Selection, Selector, Signals

NUM_SAMPLES, NUM_CLASSES, BATCH_SIZE, EPOCHS = 53, 4, 8, 8  # the last batch of an epoch is padded
QUICK = {"xla_backend_optimization_level": 0}  # halves the time to compile
COLUMNS = sorted({column for name in selectors.METHODS for column in selectors.columns(name)})
EXTRAS = ("confidence", "margin", "el2n", "correct", "nuclear_norm", "projection")


def table(num_samples: int = NUM_SAMPLES) -> SampleTable:
  """Class 3 has one sample; every column that a registered method reads is there, and none else."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, NUM_CLASSES - 1, num_samples)
  labels[num_samples // 2] = NUM_CLASSES - 1
  columns = {name: jnp.asarray(rng.random(num_samples), jnp.float32) for name in COLUMNS}
  return SampleTable(num_samples, jnp.asarray(labels, jnp.int32), NUM_CLASSES, columns)


def part_of(whole: SampleTable, names: Collection[str]) -> SampleTable:
  """The table with nothing but the columns of these names, and the labels if "labels" is one of them."""
  columns = {name: column for name, column in whole.columns.items() if name in names}
  return whole._replace(columns=columns) if "labels" in names else SampleTable(whole.num_samples, columns=columns)


def signals(index: Any, epoch: int = 0, trained: Any = True, loss: Any = None) -> Signals:
  """Signals that depend on sample and epoch alone; rows of padding hold what must never be read."""
  index = np.asarray(index, np.int32)
  pad = index < 0
  draws = np.random.default_rng(1000 + epoch).random((5, NUM_SAMPLES + 1))[:, np.maximum(index, 0) % (NUM_SAMPLES + 1)]
  loss = -2 * np.log(draws[0] + 1e-3) + 0.1 if loss is None else np.broadcast_to(loss, index.shape)
  rows = [np.where(pad, np.nan, row) for row in (loss, draws[1], 2 * draws[2] - 1, draws[3], 1 + draws[1])]
  loss, *extras, norm = (jnp.asarray(row, jnp.float32) for row in rows)
  projection = np.outer(draws[2] / draws[3], np.linspace(-1, 1, PROJECTION_WIDTH) ** 3) + draws[4][:, None]
  projection = jnp.asarray(np.where(pad[:, None], np.nan, projection), jnp.float32)
  return Signals(
    jnp.asarray(index),
    loss,
    trained=jnp.asarray(pad | np.broadcast_to(trained, index.shape)),
    epoch=jnp.int32(epoch),
    extras=dict(zip(EXTRAS, (*extras, jnp.asarray(pad | (draws[4] < 0.6)), norm, projection), strict=True)),
  )


def map_rows(function: Callable[[jax.Array], jax.Array], given: Signals) -> Signals:
  """Applies a function to each array of the signals that has a row for each sample of the batch."""
  return jax.tree.map(function, given._replace(epoch=None))._replace(epoch=given.epoch)


class Counted:
  """A function that is compiled, and how often it was traced."""

  def __init__(self, function: Callable[..., Any] | None):
    self.traces = 0

    def traced(*arguments: Any) -> Any:
      self.traces += 1
      assert function is not None
      return function(*arguments)

    self.call = jax.jit(traced, compiler_options=QUICK)

  def __call__(self, *arguments: Any) -> Any:
    return self.call(*arguments)


class Compiled(NamedTuple):
  selector: Selector
  init: Counted
  select: Counted
  observe: Counted
  thin: Counted
  refresh: Counted


def compiled(selector: Selector) -> Compiled:
  """Compiles the functions of a selector. As in training, they see no extras that the selector does not read."""

  def reading(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
    def read(*arguments: Any) -> Any:
      assert function is not None
      *others, given = arguments
      extras = {name: extra for name, extra in given.extras.items() if name in selector.reads}
      return function(*others, given._replace(extras=extras))

    return read

  return Compiled(
    selector,
    Counted(selector.init),
    Counted(selector.select),
    Counted(reading(selector.observe)),
    Counted(reading(selector.thin)),
    Counted(selector.refresh),
  )


def over_keys(function: Callable[..., Any], draws: int, seed: int = 1) -> Any:
  """Stacks what a function of a key returns over many keys.

  A loop: `vmap` may turn the `cond` of a choice into a `select` of keys, which counts as a second use of them.
  """
  loop = jax.jit(lambda keys: jax.lax.map(function, keys), compiler_options=QUICK)
  return loop(jax.random.split(jax.random.key(seed), draws))


order = jax.jit(batching.order, compiler_options=QUICK)


def epoch_keys(epoch: int) -> tuple[jax.Array, jax.Array]:
  """The keys of an epoch, as those of a run: that of `select`, and that of `order`."""
  return batching.epoch_keys(jax.random.key(7), jnp.int32(epoch))


def select_key(epoch: int) -> jax.Array:
  return epoch_keys(epoch)[0]


def batches(indices: Any) -> list[np.ndarray]:
  """The steps' indices, each of the batch size, -1 on padding."""
  size = len(indices)
  steps = -(-size // BATCH_SIZE)
  padded = np.full(steps * BATCH_SIZE, -1, np.int32)
  padded[:size] = indices
  return list(padded.reshape(steps, BATCH_SIZE))


class Epoch(NamedTuple):
  """The record of an epoch."""

  selection: Selection
  plan: Plan
  info: dict[str, Any]
  state: Any  # after the epoch
  thinned: list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # a step's index, positions, weights

  @property
  def chosen(self) -> np.ndarray:
    """The chosen samples in visiting order."""
    return np.asarray(self.plan.indices)[: int(self.plan.size)]


def run_epoch(program: Compiled, state: Any, epoch: int, loss: np.ndarray | None = None) -> Epoch:
  """Selects and orders, then observes every step. `loss` is [N], random if not given."""

  def seen(index: np.ndarray, trained: Any) -> Signals:
    return signals(index, epoch, trained, None if loss is None else loss[np.maximum(index, 0)])

  select_key, order_key = epoch_keys(epoch)
  selection, info = program.select(select_key, state, jnp.int32(epoch))
  outcome = Epoch(selection, order(order_key, selection), info, state, [])
  for step, index in enumerate(batches(outcome.chosen)):
    trained = np.ones(BATCH_SIZE, bool)
    if program.selector.thin is not None and bool(selection.thin):
      key = jax.random.fold_in(jax.random.key(8), 100 * epoch + step)
      positions, weights = map(np.asarray, program.thin(key, state, seen(index, False)))
      outcome.thinned.append((index, positions, weights))
      trained = np.isin(np.arange(BATCH_SIZE), positions[weights > 0])
    state = program.observe(state, seen(index, trained))
  if program.selector.refresh is not None:
    for index in batches(np.flatnonzero(program.refresh(state, jnp.int32(epoch)))):
      state = program.observe(state, seen(index, False))
  return outcome._replace(state=state)


def run(program: Compiled, epochs: int = EPOCHS) -> list[Epoch]:
  """Runs all epochs from a fixed key."""
  state, history = program.init(jax.random.key(3)), []
  for epoch in range(epochs):
    history.append(run_epoch(program, state, epoch))
    state = history[-1].state
  return history


def assert_selection(selection: Selection, num_samples: int = NUM_SAMPLES) -> None:
  """Checks what every `Selection` must hold."""
  keep = np.asarray(selection.keep)
  assert (keep.shape, keep.dtype) == ((num_samples,), bool) and keep.any()
  if selection.weights is not None:
    weights = np.asarray(selection.weights)
    assert (weights.shape, weights.dtype) == ((num_samples,), np.float32)
    assert np.all(np.isfinite(weights[keep])) and np.all(weights[keep] >= 0) and weights[keep].sum() > 0
  multiplier, thin = np.asarray(selection.learning_rate_multiplier), np.asarray(selection.thin)
  assert (multiplier.shape, multiplier.dtype) == ((), np.float32) and multiplier > 0
  assert (thin.shape, thin.dtype) == ((), bool)


def assert_plan(plan: Plan, selection: Selection) -> None:
  """Checks that a plan holds each sample of a selection once, with its weight, and nothing behind them."""
  keep = np.asarray(selection.keep)
  indices, weights, size = map(np.asarray, plan)
  assert indices.shape == weights.shape == keep.shape and size.shape == ()
  assert (indices.dtype, weights.dtype, size.dtype) == (np.int32, np.float32, np.int32)
  assert size == keep.sum()
  np.testing.assert_array_equal(np.sort(indices[:size]), np.flatnonzero(keep))
  by_sample = np.ones(keep.shape, np.float32) if selection.weights is None else np.asarray(selection.weights)
  np.testing.assert_array_equal(weights[:size], by_sample[indices[:size]])
  assert np.all(indices[size:] == -1)
  assert np.all(weights[size:] == 0)


def assert_epoch(epoch: Epoch) -> None:
  """Checks an epoch's selection, plan and info, and what was picked of its meta-batches."""
  assert_selection(epoch.selection)
  assert_plan(epoch.plan, epoch.selection)
  assert all(np.shape(value) == () for value in epoch.info.values())
  for index, positions, weights in epoch.thinned:
    assert np.unique(positions).size == positions.size
    assert np.all((positions >= 0) & (positions < BATCH_SIZE))
    assert np.all(np.isfinite(weights)) and np.all(weights >= 0)
    assert np.all(weights[index[positions] < 0] == 0)


def assert_same(left: Any, right: Any) -> None:
  """Equal structure, types and values."""
  assert jax.tree.structure(left) == jax.tree.structure(right)
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def is_full(selection: Selection, epoch: int = 0) -> bool:
  """Whether the plan that a selection gives in an epoch is that of plain training, bit for bit."""
  plan, plain = (order(epoch_keys(epoch)[1], chosen) for chosen in (selection, everything(selection.keep.shape[0])))
  same = all(np.array_equal(a, b) for a, b in zip(plan, plain, strict=True))
  return same and not bool(selection.thin) and float(selection.learning_rate_multiplier) == 1.0
