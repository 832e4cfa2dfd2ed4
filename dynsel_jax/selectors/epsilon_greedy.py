"""Epsilon-greedy: trains on the samples with the highest running loss, and on a few others drawn uniformly.

Raju, Daruwalla and Lipasti, "Accelerating Deep Learning with Dynamic Data Pruning", arXiv 2111.12621. The paper has no
published code; the update follows a public re-implementation. Unlike there, samples are chosen in every epoch rather
than every tenth, and the raw loss never overwrites an average.

    m <- (1 - alpha) m + alpha l              the running loss of a sample
    kept    (1 - epsilon) k with the highest m, and epsilon k drawn uniformly from the rest

`N` is the number of training samples, `k` the number kept each epoch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import check_fraction
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers.warmed_up import warmed_up
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["EpsilonGreedyState", "epsilon_greedy", "explore", "update_average"]

_UNSEEN = 1.0  # initial average


class EpsilonGreedyState(NamedTuple):
  """The state of epsilon-greedy."""

  mean: Array  # [N] float32, u, running average of the loss, initially 1
  last_epoch: Array  # [N] int32, epoch of the last update, -1 if never


def update_average(state: EpsilonGreedyState, signals: Signals, update_rate: float) -> EpsilonGreedyState:
  """Updates the averages of the batch's samples.

  A non-finite average is reset first, so that one bad loss is not remembered for ever.
  """
  new = memory.first_this_epoch(state.last_epoch, signals)
  mean = memory.gather(state.mean, signals)
  mean = jnp.where(jnp.isfinite(mean), mean, _UNSEEN)
  return EpsilonGreedyState(
    mean=memory.scatter(state.mean, signals, (1.0 - update_rate) * mean + update_rate * signals.loss, new),
    last_epoch=memory.scatter(state.last_epoch, signals, signals.epoch, new),
  )


def explore(key: Array, score: Array, count: int, epsilon: float) -> tuple[Array, Array]:
  """Chooses `count` samples: floor(epsilon * count) of them uniformly, the others by the highest scores.

  Args:
    key: consumed.
    score: `[N]` float32.
    count: k.
    epsilon: fraction of the count that is drawn, in [0, 1].

  Returns:
    The best `[N]` bool, and the drawn `[N]` bool; they are disjoint.
  """
  tie_key, draw_key = jax.random.split(key)
  num_drawn = ranking.budget(epsilon, count, least=0)
  best = ranking.top(tie_key, score, count - num_drawn)
  return best, ranking.uniform_subset(draw_key, score.shape[0], num_drawn, ~best)


def epsilon_greedy(
  table: SampleTable, epochs: int, *, keep_fraction: float = 0.3, update_rate: float = 0.8, epsilon: float = 0.1
) -> Selector:
  """Keeps the samples with the highest running average of the loss, and a random part of the others.

  All samples are trained on until each has been seen once.

  Args:
    table: the training set, N samples.
    epochs: of the run.
    keep_fraction: fraction kept each epoch, in (0, 1]; k is the floor.
    update_rate: alpha, weight of the newest loss in the average, in (0, 1].
    epsilon: fraction of the kept samples that is drawn uniformly from the others, in [0, 1].

  Raises:
    UserError: a value lies outside its range.
  """
  num_samples = table.num_samples
  count = ranking.keep_count(keep_fraction, num_samples)
  check_fraction("update_rate", update_rate)
  check_fraction("epsilon", epsilon, zero=True)

  def init(key: Array) -> EpsilonGreedyState:
    del key
    return EpsilonGreedyState(
      mean=jnp.full(num_samples, _UNSEEN, jnp.float32), last_epoch=jnp.full(num_samples, -1, jnp.int32)
    )

  def select(key: Array, state: EpsilonGreedyState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del epoch
    score, non_finite = ranking.sanitize(state.mean)
    best, drawn = explore(key, score, count, epsilon)
    return Selection(keep=best | drawn), {"non_finite": non_finite}

  def observe(state: EpsilonGreedyState, signals: Signals) -> EpsilonGreedyState:
    return update_average(state, signals, update_rate)

  return warmed_up(Selector(init, select, observe), table, epochs)
