"""Scores from sliding windows over the epochs of one short proxy run: Dyn-Unc, DUAL and TDDS.

Each is a `dynamics.Dynamics`, updated epoch by epoch or by `dynamics.replay`; its state holds the last J epochs only.
Pure and jit-able, except for the checks in the factories. For the cross-entropy, the probability of the label is
exp(-`Signals.loss`). A NaN affects the score of its own sample only.

`N` is the number of training samples, `C` the number of classes, `J` the window in epochs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.coresets.dynamics import Dynamics
from dynsel_jax.options import check_at_least, check_fraction

__all__ = ["TddsState", "WindowState", "dual", "dyn_unc", "tdds"]

_LOG_EPSILON = 1e-8  # inside the logarithm of TDDS, as in its code


class WindowState(NamedTuple):
  """State of a mean over sliding windows."""

  recent: Array  # [J, N] float32, ring buffer of the last J columns
  total: Array  # [N] float32, sum over the complete windows
  epochs: Array  # [] int32


class TddsState(NamedTuple):
  """State of TDDS."""

  previous: Array  # [N, C] float32, probabilities in the last epoch
  changes: Array  # [J - 1, N] float32, ring buffer of the last changes between epochs
  average: Array  # [N] float32, exponential moving average over the complete windows
  epochs: Array  # [] int32


def dyn_unc(*, window: int = 10) -> Dynamics:
  """Dynamic uncertainty (Dyn-Unc): `update(state, probability_of_label [N])`. High is uncertain, and kept.

  The sample standard deviation (divisor J - 1) over J successive epochs, averaged over all such windows: He et al.,
  arXiv 2306.05175, on the views that were trained on. The code of DUAL multiplies it by 10. NaN before J epochs.

  Args:
    window: J, at least 2.

  Raises:
    UserError: the window is too short.
  """
  return _windowed(window, lambda recent: jnp.std(recent, axis=0, ddof=1))


def dual(*, window: int = 10) -> Dynamics:
  """Difficulty times uncertainty (DUAL): `update(state, probability_of_label [N])`. High is hard and uncertain.

  The sample standard deviation (divisor J - 1) times (1 - mean) over J successive epochs, averaged over all such
  windows: Cho et al., arXiv 2502.06905, on the views of the first epochs of training (30 for CIFAR). Their code
  multiplies it by 10. `selectors.dual` implements their sampling from a Beta distribution. NaN before J epochs.

  Args:
    window: J, at least 2.

  Raises:
    UserError: the window is too short.
  """
  return _windowed(window, lambda recent: jnp.std(recent, axis=0, ddof=1) * (1.0 - jnp.mean(recent, axis=0)))


def tdds(num_classes: int, *, window: int = 10, decay: float = 0.9) -> Dynamics:
  """Temporal dual-depth score (TDDS): `update(state, probabilities [N, C])`. High is kept.

  J successive epochs give J - 1 changes k = sum_c |p'_c (log p'_c - log p_c)| from probabilities p to p'; the window's
  value r is the norm of the centred changes. The score s starts at 0 and becomes (1 - decay) s + decay r after each
  window: Zhang et al., arXiv 2311.13613, on the views that were trained on. With their decay of 0.9 the last window
  dominates. The code of DUAL never moves the window and uses logits as probabilities. NaN before J epochs.

  Args:
    num_classes: C.
    window: J, at least 3.
    decay: weight of the newest window, in (0, 1].

  Raises:
    UserError: a value is out of range.
  """
  check_at_least("window", window, 3)
  check_fraction("decay", decay)

  def init(n: int) -> TddsState:
    return TddsState(
      previous=jnp.zeros((n, num_classes), jnp.float32),
      changes=jnp.zeros((window - 1, n), jnp.float32),
      average=jnp.zeros(n, jnp.float32),
      epochs=jnp.int32(0),
    )

  def update(state: TddsState, probabilities: Array) -> TddsState:
    newest = probabilities.astype(jnp.float32)
    growth = jnp.log(newest + _LOG_EPSILON) - jnp.log(state.previous + _LOG_EPSILON)
    change = jnp.sum(jnp.abs(newest * growth), axis=-1)
    # The first epoch has no predecessor: its entry is overwritten in the epoch that completes the first window.
    changes = state.changes.at[state.epochs % (window - 1)].set(change)
    spread = jnp.linalg.norm(changes - jnp.mean(changes, axis=0, keepdims=True), axis=0)
    newer = (1.0 - decay) * state.average + decay * spread
    complete = state.epochs + 1 >= window
    return TddsState(newest, changes, jnp.where(complete, newer, state.average), state.epochs + 1)

  def score(state: TddsState) -> Array:
    return jnp.where(state.epochs >= window, state.average, jnp.nan)

  return Dynamics(init, update, score)


def _windowed(window: int, value: Callable[[Array], Array]) -> Dynamics:
  """Averages `value`, which maps `[J, N]` in any order of the epochs to `[N]`, over all complete windows."""
  check_at_least("window", window, 2)

  def init(n: int) -> WindowState:
    return WindowState(jnp.zeros((window, n), jnp.float32), jnp.zeros(n, jnp.float32), jnp.int32(0))

  def update(state: WindowState, column: Array) -> WindowState:
    recent = state.recent.at[state.epochs % window].set(column.astype(jnp.float32))
    complete = state.epochs + 1 >= window
    return WindowState(recent, state.total + jnp.where(complete, value(recent), 0.0), state.epochs + 1)

  def score(state: WindowState) -> Array:
    windows = state.epochs - window + 1
    return jnp.where(windows > 0, state.total / windows.astype(jnp.float32), jnp.nan)

  return Dynamics(init, update, score)
