"""A training run without a model: random signals drive a selector, so that a method is tested by being registered."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynsel_jax.selectors import ranking
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

NUM_SAMPLES, NUM_CLASSES, BATCH_SIZE, EPOCHS = 53, 4, 8, 8  # the last batch of an epoch is padded
QUICK = {"xla_backend_optimization_level": 0}  # halves the time to compile


def table(num_samples: int = NUM_SAMPLES) -> SampleTable:
  """Class 3 has one sample; every column that a registered method reads is there."""
  rng = np.random.default_rng(0)
  labels = rng.integers(0, NUM_CLASSES - 1, num_samples)
  labels[num_samples // 2] = NUM_CLASSES - 1
  names = ["representativeness", "rarity", "diversity", "score", "irreducible_loss"]
  names += ["aum", "dual", "el2n", "label_probability", "moderate"]
  columns = {name: jnp.asarray(rng.random(num_samples), jnp.float32) for name in names}
  return SampleTable(jnp.asarray(labels, jnp.int32), NUM_CLASSES, columns)


def signals(index: Any, epoch: int = 0, trained: Any = True, loss: Any = None) -> Signals:
  """Signals that depend on sample and epoch alone; rows of padding hold what must never be read."""
  index = np.asarray(index, np.int32)
  pad = index < 0
  draws = np.random.default_rng(1000 + epoch).random((5, NUM_SAMPLES + 1))[:, np.maximum(index, 0) % (NUM_SAMPLES + 1)]
  loss = -2 * np.log(draws[0] + 1e-3) + 0.1 if loss is None else np.broadcast_to(loss, index.shape)
  rows = [np.where(pad, np.nan, row) for row in (loss, draws[1], 2 * draws[2] - 1, draws[3])]
  return Signals(
    jnp.asarray(index),
    *(jnp.asarray(row, jnp.float32) for row in rows),
    correct=jnp.asarray(pad | (draws[4] < 0.6)),
    trained=jnp.asarray(pad | np.broadcast_to(trained, index.shape)),
    epoch=jnp.int32(epoch),
  )


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
  return Compiled(selector, *(Counted(function) for function in selector))


def epoch_key(epoch: int) -> jax.Array:
  return jax.random.fold_in(jax.random.key(7), epoch)


def batches(selection: Selection) -> list[np.ndarray]:
  """The steps' indices, each of the batch size, -1 on padding."""
  size = int(selection.size)
  steps = -(-size // BATCH_SIZE)
  padded = np.full(steps * BATCH_SIZE, -1, np.int32)
  padded[:size] = np.asarray(selection.indices)[:size]
  return list(padded.reshape(steps, BATCH_SIZE))


class Epoch(NamedTuple):
  """What happened in an epoch."""

  selection: Selection
  info: dict[str, Any]
  state: Any  # after the epoch
  thinned: list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # a step's index, positions, weights


def run_epoch(program: Compiled, state: Any, epoch: int, loss: np.ndarray | None = None) -> Epoch:
  """Selects, then observes every step. `loss` is [N], random if not given."""

  def seen(index: np.ndarray, trained: Any) -> Signals:
    return signals(index, epoch, trained, None if loss is None else loss[np.maximum(index, 0)])

  selection, info = program.select(epoch_key(epoch), state, jnp.int32(epoch))
  thinned = []
  for step, index in enumerate(batches(selection)):
    trained = np.ones(BATCH_SIZE, bool)
    if program.selector.thin is not None and bool(selection.thin):
      key = jax.random.fold_in(epoch_key(epoch), 100 + step)
      positions, weights = map(np.asarray, program.thin(key, state, seen(index, False)))
      thinned.append((index, positions, weights))
      trained = np.isin(np.arange(BATCH_SIZE), positions[weights > 0])
    state = program.observe(state, seen(index, trained))
  if program.selector.refresh is not None:
    for index in batches(program.refresh(state, jnp.int32(epoch))):
      state = program.observe(state, seen(index, False))
  return Epoch(selection, info, state, thinned)


def run(program: Compiled, epochs: int = EPOCHS) -> list[Epoch]:
  """Runs all epochs from a fixed key."""
  state, history = program.init(jax.random.key(3)), []
  for epoch in range(epochs):
    history.append(run_epoch(program, state, epoch))
    state = history[-1].state
  return history


def assert_plan(selection: Selection, num_samples: int = NUM_SAMPLES) -> None:
  """Checks what every `Selection` must hold."""
  indices, weights, size = (np.asarray(field) for field in selection[:3])
  assert indices.shape == weights.shape == (num_samples,)
  assert (indices.dtype, weights.dtype, size.dtype) == (np.int32, np.float32, np.int32)
  assert 0 < size <= num_samples
  chosen = indices[:size]
  assert np.all((chosen >= 0) & (chosen < num_samples))
  assert np.unique(chosen).size == size
  assert np.all(indices[size:] == -1)
  assert np.all(weights[size:] == 0)
  assert np.all(np.isfinite(weights)) and np.all(weights >= 0) and weights.sum() > 0
  multiplier, thin = np.asarray(selection.learning_rate_multiplier), np.asarray(selection.thin)
  assert (multiplier.shape, multiplier.dtype) == ((), np.float32) and multiplier > 0
  assert (thin.shape, thin.dtype) == ((), bool)


def assert_same(left: Any, right: Any) -> None:
  """Equal structure, types and values."""
  assert jax.tree.structure(left) == jax.tree.structure(right)
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def is_full(selection: Selection, key: jax.Array) -> bool:
  """Whether a plan is that of plain training, bit for bit."""
  plain = ranking.everything(key, selection.indices.shape[0])
  return all(np.array_equal(a, b) for a, b in zip(selection[:3], plain[:3], strict=True)) and not bool(selection.thin)
