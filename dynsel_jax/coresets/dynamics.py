"""Scores from the training dynamics of one short proxy run, computed from the signals of each epoch. Pure and jit-able.

A `Dynamics` is updated epoch by epoch, so that memory does not grow with the number of epochs; `replay` applies it to a
recorded run. Scores over windows of epochs are in `windows`. Each update takes all N samples in the order of the
training set, since the proxy run trains on all of them; its columns correspond to the fields of `types.Signals`. A NaN
affects the score of its own sample only.

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
  """A score that is accumulated epoch by epoch."""

  init: Callable[[int], Any]  # N -> state
  update: Callable[..., Any]  # (state, column of one epoch) -> state
  score: Callable[[Any], Array]  # state -> [N] float32


class AverageState(NamedTuple):
  """State of a mean over epochs."""

  total: Array  # [N] float32
  epochs: Array  # [] int32


class ForgettingState(NamedTuple):
  """State of the count of forgetting events."""

  previous: Array  # [N] bool, whether the last prediction was correct
  forgotten: Array  # [N] int32, number of times a correct prediction was followed by a wrong one
  first_learned: Array  # [N] int32, epoch of the first correct prediction, counted from 0; -1 if there is none yet
  epochs: Array  # [] int32


def el2n(probabilities: Array, labels: Array) -> Array:
  """Computes EL2N, the Euclidean norm of probabilities minus the one-hot label, `[N]`. High is hard.

  Paul et al., arXiv 2107.07075, Sec. 2: on clean views, early in training, averaged over runs (`average`).

  Args:
    probabilities: `[N, C]` float32.
    labels: `[N]` int32.
  """
  return jnp.linalg.norm(probabilities - _one_hot(probabilities, labels).astype(probabilities.dtype), axis=-1)


def margin(probabilities: Array, labels: Array) -> Array:
  """Computes the margin, the label's probability minus the largest other probability, `[N]`. Low is hard.

  Its `average` over the epochs of training, on the views that were trained on, is the area under the margin (AUM;
  Pleiss et al., arXiv 2001.10528). That paper uses logits; CCS (arXiv 2210.15809) uses probabilities, as here, and
  takes the sum instead of the average.

  Args:
    probabilities: `[N, C]` float32.
    labels: `[N]` int32.
  """
  is_label = _one_hot(probabilities, labels)
  of_label = jnp.sum(jnp.where(is_label, probabilities, 0.0), axis=-1)
  return of_label - jnp.max(jnp.where(is_label, -jnp.inf, probabilities), axis=-1)


def entropy(probabilities: Array) -> Array:
  """Computes the entropy of the predictions in nats, `[N]`, for a trained model on clean views. High is hard.

  DeepCore (arXiv 2204.08499) without class balance keeps the lowest entropies instead.

  Args:
    probabilities: `[N, C]` float32; a zero contributes 0.
  """
  return -jnp.sum(jax.scipy.special.xlogy(probabilities, probabilities), axis=-1)


def average() -> Dynamics:
  """Averages any column `[N]` over epochs or over runs; NaN before the first update."""

  def init(n: int) -> AverageState:
    return AverageState(total=jnp.zeros(n, jnp.float32), epochs=jnp.int32(0))

  def update(state: AverageState, column: Array) -> AverageState:
    return AverageState(total=state.total + column.astype(jnp.float32), epochs=state.epochs + 1)

  def score(state: AverageState) -> Array:
    return state.total / state.epochs.astype(jnp.float32)

  return Dynamics(init, update, score)


def forgetting() -> Dynamics:
  """Counts the forgetting events of each sample: `update(state, correct [N] bool)`. High is hard.

  Toneva et al., arXiv 1812.05159, Sec. 3, on the views that were trained on. A sample that was never learned ranks as
  the hardest: its score is the number of epochs, which exceeds any count, where the paper uses infinity. In DeepCore
  (arXiv 2204.08499) its score is 0, the easiest.
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
  """Computes the score of a recorded run, `[N]` float32.

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
