"""Epsilon-greedy: trains on the samples with the highest running loss, and on a few drawn from the rest.

Raju, Daruwalla and Lipasti, "Accelerating Deep Learning with Dynamic Data Pruning", arXiv 2111.12621. The paper has no
code of its own; the update is that by which others restate it. Unlike there, samples are chosen anew in every epoch
and not every tenth, and the raw loss never overwrites an average.

`N` is the number of training samples, `k` the number kept each epoch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import memory, ranking, wrappers
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["EpsilonGreedyState", "averaged", "epsilon_greedy", "explored"]

_UNSEEN = 1.0  # where an average starts


class EpsilonGreedyState(NamedTuple):
  """What epsilon-greedy remembers."""

  mean: Array  # [N] float32, u, running average of the loss, from 1
  last_epoch: Array  # [N] int32, when the average was last moved, -1 if never


def averaged(state: EpsilonGreedyState, signals: Signals, update_rate: float) -> EpsilonGreedyState:
  """Moves the averages of the batch's samples; others keep theirs.

  A sample whose average is not finite starts afresh, so that one bad loss is not remembered for ever.
  """
  new = memory.is_new(state.last_epoch, signals)
  mean = memory.read(state.mean, signals)
  mean = jnp.where(jnp.isfinite(mean), mean, _UNSEEN)
  return EpsilonGreedyState(
    mean=memory.written(state.mean, signals, (1.0 - update_rate) * mean + update_rate * signals.loss, new),
    last_epoch=memory.written(state.last_epoch, signals, signals.epoch, new),
  )


def explored(key: Array, score: Array, count: int, epsilon: float) -> tuple[Array, Array]:
  """Chooses `count` samples: the floor of epsilon `count` uniformly from those that are not among the best others.

  Args:
    key: consumed.
    score: `[N]` float32.
    count: k.
    epsilon: share of the count that is drawn, in [0, 1].

  Returns:
    The best `[N]` bool, and the drawn `[N]` bool; no sample is in both.
  """
  tie_key, draw_key = jax.random.split(key)
  num_drawn = ranking.budget(epsilon, count, least=0)
  best = ranking.top(tie_key, score, count - num_drawn)
  return best, ranking.uniform_subset(draw_key, score.shape[0], num_drawn, ~best)


def epsilon_greedy(
  table: SampleTable, epochs: int, *, keep_fraction: float = 0.3, update_rate: float = 0.8, epsilon: float = 0.1
) -> Selector:
  """Keeps the samples with the highest running average of the loss, and some of the others by chance.

  All samples are trained on until each has been seen once.

  Args:
    table: the training set, N samples.
    epochs: how many the run has.
    keep_fraction: share kept each epoch, in (0, 1]; k is its floor.
    update_rate: alpha, weight of the newest loss in the average, in (0, 1].
    epsilon: share of those kept that is drawn uniformly from the rest, in [0, 1].

  Raises:
    UserError: a value lies outside its range.
  """
  ranking.check_fraction("keep_fraction", keep_fraction)
  ranking.check_fraction("update_rate", update_rate)
  ranking.check_fraction("epsilon", epsilon, zero=True)
  num_samples = table.labels.shape[0]
  count = ranking.budget(keep_fraction, num_samples)

  def init(key: Array) -> EpsilonGreedyState:
    del key
    return EpsilonGreedyState(
      mean=jnp.full(num_samples, _UNSEEN, jnp.float32), last_epoch=jnp.full(num_samples, -1, jnp.int32)
    )

  def select(key: Array, state: EpsilonGreedyState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del epoch
    draw_key, order_key = jax.random.split(key)
    score, non_finite = ranking.guard(state.mean)
    best, drawn = explored(draw_key, score, count, epsilon)
    return ranking.visiting_order(order_key, best | drawn), {"non_finite": non_finite}

  def observe(state: EpsilonGreedyState, signals: Signals) -> EpsilonGreedyState:
    return averaged(state, signals, update_rate)

  return wrappers.warmed_up(Selector(init, select, observe), table, epochs)
