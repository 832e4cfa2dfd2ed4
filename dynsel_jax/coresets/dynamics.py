"""Scores from the training dynamics of one short proxy run: functions of what each epoch recorded of every sample.

A `Dynamics` takes in one epoch at a time, so that memory does not grow with the number of epochs; `replay` feeds it a
recorded run. Those that look at several epochs together are in `windows`. Everything is pure and jit-able. Each update
wants all N samples: the proxy run trains on everything. The columns of an epoch are those of `types.Signals`, in the
order of the training set. A NaN spoils the score of its own sample and of no other.

`N` is the number of training samples, `C` the number of classes, `T` the number of epochs.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

__all__ = [
  "AverageState",
  "Dynamics",
  "ForgettingState",
  "average",
  "el2n",
  "entropy",
  "forgetting",
  "margin",
  "replay",
]


class Dynamics(NamedTuple):
  """A score that is built up epoch by epoch."""

  init: Callable[[int], Any]  # N -> state
  update: Callable[..., Any]  # (state, column of one epoch) -> state
  score: Callable[[Any], Array]  # state -> [N] float32


class AverageState(NamedTuple):
  """What a mean over epochs remembers."""

  total: Array  # [N] float32
  epochs: Array  # [] int32


class ForgettingState(NamedTuple):
  """What counting of forgetting events remembers."""

  previous: Array  # [N] bool, whether the last prediction was correct
  forgotten: Array  # [N] int32, times that a correct prediction was followed by a wrong one
  first_learned: Array  # [N] int32, epoch of the first correct prediction, counted from 0; -1 for never
  epochs: Array  # [] int32


def el2n(probabilities: Array, labels: Array) -> Array:
  """Returns the Euclidean norm of probabilities minus one-hot label, `[N]`: `Signals.el2n`. High is hard.

  Paul et al., arXiv 2107.07075, Sec. 2: clean views, early in training, the mean over runs (`average`).

  Args:
    probabilities: `[N, C]` float32.
    labels: `[N]` int32.
  """
  return jnp.linalg.norm(probabilities - _one_hot(probabilities, labels).astype(probabilities.dtype), axis=-1)


def margin(probabilities: Array, labels: Array) -> Array:
  """Returns the label's probability minus the largest other one, `[N]`: `Signals.margin`. Low is hard.

  Its `average` over the epochs of training is the area under the margin (AUM; Pleiss et al., arXiv 2001.10528), on
  the views that were trained on. That paper takes logits; probabilities are what CCS (arXiv 2210.15809) takes, which
  sums where this averages.

  Args:
    probabilities: `[N, C]` float32.
    labels: `[N]` int32.
  """
  is_label = _one_hot(probabilities, labels)
  of_label = jnp.sum(jnp.where(is_label, probabilities, 0.0), axis=-1)
  return of_label - jnp.max(jnp.where(is_label, -jnp.inf, probabilities), axis=-1)


def entropy(probabilities: Array) -> Array:
  """Returns the entropy of the prediction in nats, `[N]`, of a trained model on clean views. High is hard.

  DeepCore (arXiv 2204.08499) without class balance keeps the lowest entropies instead.

  Args:
    probabilities: `[N, C]` float32; a zero adds nothing.
  """
  return -jnp.sum(jax.scipy.special.xlogy(probabilities, probabilities), axis=-1)


def average() -> Dynamics:
  """The mean over epochs, or over runs, of any column `[N]`; NaN before the first update."""

  def init(n: int) -> AverageState:
    return AverageState(total=jnp.zeros(n, jnp.float32), epochs=jnp.int32(0))

  def update(state: AverageState, column: Array) -> AverageState:
    return AverageState(total=state.total + column.astype(jnp.float32), epochs=state.epochs + 1)

  def score(state: AverageState) -> Array:
    return state.total / state.epochs.astype(jnp.float32)

  return Dynamics(init, update, score)


def forgetting() -> Dynamics:
  """Counts how often a sample was forgotten: `update(state, correct [N] bool)`. High is hard.

  Toneva et al., arXiv 1812.05159, Sec. 3, on the views that were trained on. A sample that was never learned comes
  before all others: it scores the number of epochs, more than any count, where the paper has infinity. DeepCore
  (arXiv 2204.08499) gives it no special place, so that its score is 0, the easiest.
  """

  def init(n: int) -> ForgettingState:
    return ForgettingState(
      previous=jnp.zeros(n, bool),
      forgotten=jnp.zeros(n, jnp.int32),
      first_learned=jnp.full(n, -1, jnp.int32),
      epochs=jnp.int32(0),
    )

  def update(state: ForgettingState, correct: Array) -> ForgettingState:
    learned_now = correct & (state.first_learned < 0)
    return ForgettingState(
      previous=correct,
      forgotten=state.forgotten + (state.previous & ~correct).astype(jnp.int32),
      first_learned=jnp.where(learned_now, state.epochs, state.first_learned),
      epochs=state.epochs + 1,
    )

  def score(state: ForgettingState) -> Array:
    return jnp.where(state.first_learned < 0, state.epochs, state.forgotten).astype(jnp.float32)

  return Dynamics(init, update, score)


@functools.partial(jax.jit, static_argnames="dynamics")
def replay(dynamics: Dynamics, columns: Array) -> Array:
  """Returns the score `[N]` float32 of a recorded run.

  Args:
    dynamics: the score.
    columns: `[T, N]`, or `[T, N, C]` for `windows.tdds`.
  """

  def step(state: Any, column: Array) -> tuple[Any, None]:
    return dynamics.update(state, column), None

  state, _ = jax.lax.scan(step, dynamics.init(columns.shape[1]), columns)
  return dynamics.score(state)


def _one_hot(probabilities: Array, labels: Array) -> Array:
  return jnp.arange(probabilities.shape[-1])[None, :] == labels[:, None]
