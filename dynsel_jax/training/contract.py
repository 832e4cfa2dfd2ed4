"""Tries a selector on made-up signals: what shapes and types cannot show. Host-side; its functions are compiled.

`check_values` is for a user's own selector before a run; `findings` is all that can be tried, for
`experiments.check_selector`. `N` is the number of samples, `B` the batch size, `b` the rows that `thin` picks.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dynsel_jax.options import UserError
from dynsel_jax.types import Selection, Selector, Signals

__all__ = ["CHECKS", "Trial", "check_values", "findings"]

_EPOCHS = 3


class Trial:
  """A selector with compiled functions, and signals for it."""

  def __init__(self, selector: Selector, num_samples: int, shapes: Signals):
    """Takes the selector of N samples, and the shapes and types of a step's signals."""
    self.selector, self.num_samples = selector, num_samples
    self.batch_size = shapes.index.shape[0]
    self._extras = {name: shapes.extras[name] for name in selector.reads if name in shapes.extras}
    self.init, self.select, self.observe = jax.jit(selector.init), jax.jit(selector.select), jax.jit(selector.observe)
    self.thin = None if selector.thin is None else jax.jit(selector.thin)
    self.refresh = None if selector.refresh is None else jax.jit(selector.refresh)
    self.first = self.init(jax.random.key(0))

  def signals(self, index: Any, epoch: int, *, loss: float | None = None) -> Signals:
    """Returns signals of samples `[B]`, which depend on sample and epoch alone; rows of padding, -1, hold NaN."""
    index = np.resize(np.asarray(index, np.int32), self.batch_size)
    draws = np.random.default_rng(epoch).random((1 + len(self._extras), self.num_samples))[:, index]
    draws[:, index < 0] = np.nan

    def typed(values: np.ndarray, like: Any) -> jax.Array:
      floating = jnp.issubdtype(like.dtype, jnp.floating)
      numbers = jnp.asarray(values if floating else np.nan_to_num(values, nan=1.0) > 0.5).astype(like.dtype)
      return jnp.broadcast_to(numbers.reshape(-1, *[1] * (len(like.shape) - 1)), like.shape)

    losses = -np.log(draws[0]) if loss is None else np.full(self.batch_size, loss)
    return Signals(
      index=jnp.asarray(index),
      loss=jnp.asarray(losses, jnp.float32),
      trained=jnp.ones(self.batch_size, bool),
      epoch=jnp.int32(epoch),
      extras={name: typed(draws[n], like) for n, (name, like) in enumerate(self._extras.items(), start=1)},
    )

  def steps(self, samples: np.ndarray) -> list[np.ndarray]:
    """Splits samples into batches of B, the last one filled up with -1."""
    padded = np.full(-(-len(samples) // self.batch_size) * self.batch_size, -1, np.int32)
    padded[: len(samples)] = samples
    return list(padded.reshape(-1, self.batch_size))

  def selection(self, state: Any, epoch: int) -> Selection:
    """Returns what `select` keeps in an epoch, as NumPy arrays."""
    return jax.device_get(self.select(jax.random.key(1 + epoch), state, jnp.int32(epoch))[0])

  def after(self, state: Any, samples: np.ndarray, epoch: int, **changes: Any) -> Any:
    """Returns the state after an epoch on samples."""
    for index in self.steps(samples):
      state = self.observe(state, self.signals(index, epoch, **changes))
    return state


def _same(one: Any, other: Any, *, rounded: bool = False) -> bool:
  pairs = zip(*(jax.tree.leaves(jax.device_get(tree)) for tree in (one, other)), strict=True)
  close = np.allclose if rounded else np.array_equal
  return all(
    close(old, new, equal_nan=True) if old.dtype.kind == "f" else np.array_equal(old, new) for old, new in pairs
  )


def padding(trial: Trial) -> str:
  """Whether `observe` leaves the state alone on a batch of padding."""
  empty = trial.signals([-1], 0)
  if _same(trial.first, trial.observe(trial.first, empty)):
    return ""
  return (
    "observe changes the state on rows with index -1, which are padding: write with memory.scatter, or to index N with"
    " mode='drop'"
  )


def _wrong_selection(found: Selection, when: str) -> str:
  if not found.keep.any():
    return f"select keeps no sample {when}"
  weights = found.keep if found.weights is None else np.asarray(found.weights)[found.keep]
  if not np.all(np.isfinite(weights)) or np.any(weights < 0) or not np.any(weights > 0):
    low, high = np.min(weights), np.max(weights)
    return f"select gives kept samples weights from {low} to {high} {when}; they must be finite, at least 0, not all 0"
  multiplier = float(np.asarray(found.learning_rate_multiplier))
  if not 0 < multiplier < np.inf:
    return f"select gives learning_rate_multiplier={multiplier} {when}; it must be finite and greater than 0"
  return ""


def first_selection(trial: Trial) -> str:
  """Whether the first epoch keeps samples, with weights that a loss can have."""
  return _wrong_selection(trial.selection(trial.first, 0), "in epoch 1")


def later_selections(trial: Trial) -> str:
  """Likewise in epochs after losses were observed, and refreshed ones."""
  state, wrong = trial.first, ""
  for epoch in range(_EPOCHS):
    found = trial.selection(state, epoch)
    wrong = wrong or _wrong_selection(found, f"in epoch {epoch + 1}")
    state = trial.after(state, np.flatnonzero(found.keep), epoch)
    if trial.refresh is not None:
      state = trial.after(state, np.flatnonzero(trial.refresh(state, jnp.int32(epoch))), epoch)
  return wrong


def thinning(trial: Trial) -> str:
  """Whether `thin` picks rows of the batch, each once, and padding only where rows are too few."""
  if trial.thin is None:
    return ""
  for valid in (trial.batch_size, max(trial.batch_size // 4, 1)):
    index = np.where(np.arange(trial.batch_size) < valid, np.arange(trial.batch_size) % trial.num_samples, -1)
    key = jax.random.key(valid)
    positions, weights = map(np.asarray, trial.thin(key, trial.first, trial.signals(index, 0)))
    if positions.dtype != np.int32 or positions.min() < 0 or positions.max() >= trial.batch_size:
      kind = f"{positions.min()} to {positions.max()} of type {positions.dtype}"
      return f"thin gives positions {kind}; they must be int32 in [0, {trial.batch_size}), the rows of the batch"
    if len(np.unique(positions)) < len(positions):
      return "thin gives a position twice; a row is trained on once"
    if not np.all(np.isfinite(weights)) or np.any(weights < 0):
      return f"thin gives weights from {weights.min()} to {weights.max()}; they must be finite and at least 0"
    padded = index[positions] < 0
    if np.any(weights[padded] != 0) or (~padded).sum() < min(valid, len(positions)):
      return f"thin picks padding, rows with index -1, where {valid} of {trial.batch_size} rows are samples"
  return ""


def repeats(trial: Trial) -> str:
  """Whether the same key gives the same selection, also when the function is traced anew."""
  one, other = (
    jax.jit(lambda *given: trial.selector.select(*given)[0])(jax.random.key(5), trial.first, jnp.int32(1))
    for _ in range(2)
  )
  if _same(one, other):
    return ""
  return "select gives another selection for the same key: draw by jax.random from its key, not from NumPy or a clock"


def order_of_steps(trial: Trial) -> str:
  """Whether the order of steps, a step seen twice, or the order of rows changes the state after an epoch."""
  size = trial.batch_size
  if trial.num_samples < 2 * size:
    return ""
  one, other = (trial.signals(np.arange(start, start + size), 0) for start in (0, size))
  both = trial.observe(trial.observe(trial.first, one), other)
  if not _same(both, trial.observe(trial.observe(trial.first, other), one)):
    return "observe gives another state when two steps of an epoch come in the other order"
  if not _same(both, trial.observe(both, other)):
    return "observe changes the state when it is shown a step of an epoch again; signals.epoch tells the epoch"
  turned = jax.tree.map(lambda rows: rows[::-1] if rows.ndim else rows, one)
  if not _same(trial.observe(trial.first, one), trial.observe(trial.first, turned), rounded=True):
    return "observe gives another state when the rows of a batch come in another order"
  return ""


def bad_losses(trial: Trial) -> str:
  """Whether a selection is possible after losses that are NaN or infinite."""
  for loss in (np.nan, np.inf):
    state = trial.after(trial.first, np.arange(trial.num_samples), 0, loss=loss)
    if wrong := _wrong_selection(trial.selection(state, 1), f"after losses of {loss}"):
      return f"{wrong}; ranking.sanitize makes such scores the worst"
  return ""


def keys(trial: Trial) -> str:
  """Whether each function uses its key once."""
  given: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "init": (trial.selector.init, ()),
    "select": (trial.selector.select, (trial.first, jnp.int32(0))),
  }
  if trial.selector.thin is not None:
    given["thin"] = (trial.selector.thin, (trial.first, trial.signals(np.arange(trial.batch_size), 0)))
  for name, (function, arguments) in given.items():
    try:
      with jax.debug_key_reuse(True):
        jax.jit(lambda *args, function=function: function(*args))(jax.random.key(3), *arguments)
    except jax.errors.KeyReuseError:
      return f"{name} uses its key twice, so that two draws are the same: split it by jax.random.split"
  return ""


# What is tried, in words that are true of a selector that keeps the contract.
CHECKS: dict[str, Callable[[Trial], str]] = {
  "observe leaves padding alone": padding,
  "select keeps samples, with weights that a loss can have": first_selection,
  "so it does after losses were observed": later_selections,
  "thin picks rows of the batch, each once": thinning,
  "the same key gives the same selection": repeats,
  "each key is used once": keys,
  "observe does not depend on the order of steps or rows, nor on a step seen twice": order_of_steps,
  "losses that are NaN or infinite do no harm": bad_losses,
}
_QUICK = (padding, first_selection, thinning)


def check_values(name: str, selector: Selector, num_samples: int, signals: Signals) -> None:
  """Raises `UserError` if a cheap trial of a user's own selector finds it wrong; arguments as for `findings`."""
  trial = Trial(selector, num_samples, signals)
  for check in _QUICK:
    if wrong := check(trial):
      raise UserError(f"selector={name}: {wrong}")


def findings(selector: Selector, num_samples: int, signals: Signals) -> dict[str, str]:
  """Tries everything, and returns for each of `CHECKS` what is wrong in words, "" for nothing.

  Args:
    selector: whose functions return what `types` says, as `checks.check_selector` makes sure.
    num_samples: N, at least 2 B for all to be tried.
    signals: the shapes and types of a step's signals.
  """
  trial = Trial(selector, num_samples, signals)
  return {words: check(trial) for words, check in CHECKS.items()}
