"""UCB: trains on the samples whose loss is high or varies, an upper confidence bound over running averages.

Raju, Daruwalla and Lipasti, "Accelerating Deep Learning with Dynamic Data Pruning", arXiv 2111.12621. The paper has no
code of its own; the updates are those by which others restate it. Unlike there, samples are chosen anew in every epoch
and not every tenth, and the raw loss never overwrites an average.

`N` is the number of training samples.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import check_positive
from dynsel_jax.selectors import memory, ranking, wrappers
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["UCBState", "averaged", "bound", "ucb"]

_UNSEEN = 1.0  # bound of a sample without a loss


class UCBState(NamedTuple):
  """What UCB remembers."""

  mean: Array  # [N] float32, u, running average of the loss, from 0
  variance: Array  # [N] float32, v, running average of the squared deviation, from 0
  last_epoch: Array  # [N] int32, when the averages were last moved, -1 if never


def averaged(state: UCBState, signals: Signals, update_rate: float) -> UCBState:
  """Moves the averages of the batch's samples: v by the deviation from the old u, then u. Others keep theirs.

  A sample whose average is not finite starts afresh, so that one bad loss is not remembered for ever.
  """
  new = memory.is_new(state.last_epoch, signals)
  mean, variance = memory.read(state.mean, signals), memory.read(state.variance, signals)
  finite = jnp.isfinite(mean) & jnp.isfinite(variance)
  mean, variance = jnp.where(finite, mean, 0.0), jnp.where(finite, variance, 0.0)
  deviation = signals.loss - mean
  variance = (1.0 - update_rate) * variance + update_rate * jnp.square(deviation)
  return UCBState(
    mean=memory.written(state.mean, signals, mean + update_rate * deviation, new),
    variance=memory.written(state.variance, signals, variance, new),
    last_epoch=memory.written(state.last_epoch, signals, signals.epoch, new),
  )


def bound(state: UCBState, variance_weight: float) -> Array:
  """Returns u + c v, `[N]` float32, and 1 for a sample never seen."""
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
    epochs: how many the run has.
    keep_fraction: share kept each epoch, in (0, 1].
    update_rate: alpha, weight of the newest loss in an average, in (0, 1].
    variance_weight: c, at least 0.

  Raises:
    UserError: a value lies outside its range.
  """
  ranking.check_fraction("keep_fraction", keep_fraction)
  ranking.check_fraction("update_rate", update_rate)
  check_positive("variance_weight", variance_weight, zero=True)
  num_samples = table.labels.shape[0]

  def init(key: Array) -> UCBState:
    del key
    zeros = jnp.zeros(num_samples, jnp.float32)
    return UCBState(mean=zeros, variance=zeros, last_epoch=jnp.full(num_samples, -1, jnp.int32))

  def select(key: Array, state: UCBState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del epoch
    tie_key, order_key = jax.random.split(key)
    score, non_finite = ranking.guard(bound(state, variance_weight))
    keep = ranking.top_fraction(tie_key, score, keep_fraction)
    return ranking.visiting_order(order_key, keep), {"non_finite": non_finite}

  def observe(state: UCBState, signals: Signals) -> UCBState:
    return averaged(state, signals, update_rate)

  return wrappers.warmed_up(Selector(init, select, observe), table, epochs)
