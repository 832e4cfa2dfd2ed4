"""UCB: trains on the samples whose loss is high or varies, by an upper confidence bound of running averages.

Raju, Daruwalla and Lipasti, "Accelerating Deep Learning with Dynamic Data Pruning", arXiv 2111.12621. The paper has no
published code; the updates follow a public re-implementation. Unlike there, samples are chosen in every epoch rather
than every tenth, and the raw loss never overwrites an average.

With the loss l of a sample and its running averages u and v:

    v <- (1 - alpha) v + alpha (l - u)^2
    u <- (1 - alpha) u + alpha l
    kept    the samples with the highest  u + c v

`N` is the number of training samples.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import check_fraction, check_positive
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers.warmed_up import warmed_up
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["UCBState", "bound", "ucb", "update_averages"]

_UNSEEN = 1.0  # bound of a sample that was never seen


class UCBState(NamedTuple):
  """The state of UCB."""

  mean: Array  # [N] float32, u, running average of the loss, initially 0
  variance: Array  # [N] float32, v, running average of the squared deviation, initially 0
  last_epoch: Array  # [N] int32, epoch of the last update, -1 if never


def update_averages(state: UCBState, signals: Signals, update_rate: float) -> UCBState:
  """Updates the averages of the batch's samples: v by the deviation from the old u, then u.

  A non-finite average is reset first, so that one bad loss is not remembered for ever.
  """
  new = memory.first_this_epoch(state.last_epoch, signals)
  mean, variance = memory.gather(state.mean, signals), memory.gather(state.variance, signals)
  finite = jnp.isfinite(mean) & jnp.isfinite(variance)
  mean, variance = jnp.where(finite, mean, 0.0), jnp.where(finite, variance, 0.0)
  deviation = signals.loss - mean
  variance = (1.0 - update_rate) * variance + update_rate * jnp.square(deviation)
  return UCBState(
    mean=memory.scatter(state.mean, signals, mean + update_rate * deviation, new),
    variance=memory.scatter(state.variance, signals, variance, new),
    last_epoch=memory.scatter(state.last_epoch, signals, signals.epoch, new),
  )


def bound(state: UCBState, variance_weight: float) -> Array:
  """Returns u + c v, `[N]` float32; 1 for a sample that was never seen."""
  return jnp.where(state.last_epoch < 0, _UNSEEN, state.mean + variance_weight * state.variance)


def ucb(
  table: SampleTable,
  epochs: int,
  *,
  keep_fraction: float = 0.3,
  update_rate: float = 0.8,
  variance_weight: float = 1.0,
) -> Selector:
  """Keeps the samples with the highest upper confidence bound of the loss.

  All samples are trained on until each has been seen once.

  Args:
    table: the training set, N samples.
    epochs: of the run.
    keep_fraction: fraction kept each epoch, in (0, 1].
    update_rate: alpha, weight of the newest loss in an average, in (0, 1].
    variance_weight: c, at least 0.

  Raises:
    UserError: a value lies outside its range.
  """
  num_samples = table.num_samples
  count = ranking.keep_count(keep_fraction, num_samples)
  check_fraction("update_rate", update_rate)
  check_positive("variance_weight", variance_weight, zero=True)

  def init(key: Array) -> UCBState:
    del key
    zeros = jnp.zeros(num_samples, jnp.float32)
    return UCBState(mean=zeros, variance=zeros, last_epoch=jnp.full(num_samples, -1, jnp.int32))

  def select(key: Array, state: UCBState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del epoch
    score, non_finite = ranking.sanitize(bound(state, variance_weight))
    return Selection(keep=ranking.top(key, score, count)), {"non_finite": non_finite}

  def observe(state: UCBState, signals: Signals) -> UCBState:
    return update_averages(state, signals, update_rate)

  return warmed_up(Selector(init, select, observe), table, epochs)
