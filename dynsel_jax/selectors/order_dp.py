"""OrderDP: draws a pool uniformly and trains on those of it with the highest last loss.

Jin et al., "OrderDP: A Theoretically Guaranteed Lossless Dynamic Data Pruning Framework", arXiv 2606.08574. The shares
that the paper uses are not in its public text; the defaults here keep 64 %. The authors' code starts at once; here
everything is trained on until each sample has a loss.

`N` is the number of training samples.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import memory, ranking, wrappers
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["OrderDPState", "best_of_pool", "order_dp"]


class OrderDPState(NamedTuple):
  """What OrderDP remembers."""

  last_loss: Array  # [N] float32, 0 until a sample has been seen


def best_of_pool(key: Array, score: Array, pool_fraction: float, top_fraction: float) -> Array:
  """Chooses the floor(top s) best of a uniform pool of s = floor(pool N) samples, `[N]` bool.

  Args:
    key: consumed.
    score: `[N]` float32.
    pool_fraction: share of all samples that is drawn.
    top_fraction: share of the pool that is chosen.
  """
  draw_key, tie_key = jax.random.split(key)
  num_samples = score.shape[0]
  size = ranking.budget(pool_fraction, num_samples)
  pool = ranking.uniform_subset(draw_key, num_samples, size)
  return ranking.top(tie_key, score, ranking.budget(top_fraction, size), pool)


def order_dp(table: SampleTable, epochs: int, *, pool_fraction: float = 0.75, top_fraction: float = 0.85) -> Selector:
  """Keeps the samples with the highest last loss out of a random pool.

  A last loss that is not finite is the lowest. All samples are trained on until each has been seen once.

  Args:
    table: the training set, N samples.
    epochs: how many the run has.
    pool_fraction: share of the training set in an epoch's pool, in (0, 1].
    top_fraction: share of the pool that is kept, in (0, 1].

  Raises:
    UserError: a fraction lies outside its range.
  """
  ranking.check_fraction("pool_fraction", pool_fraction)
  ranking.check_fraction("top_fraction", top_fraction)
  num_samples = table.labels.shape[0]

  def init(key: Array) -> OrderDPState:
    del key
    return OrderDPState(last_loss=jnp.zeros(num_samples, jnp.float32))

  def select(key: Array, state: OrderDPState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del epoch
    draw_key, order_key = jax.random.split(key)
    score, non_finite = ranking.guard(state.last_loss)
    keep = best_of_pool(draw_key, score, pool_fraction, top_fraction)
    return ranking.visiting_order(order_key, keep), {"non_finite": non_finite}

  def observe(state: OrderDPState, signals: Signals) -> OrderDPState:
    return OrderDPState(last_loss=memory.written(state.last_loss, signals, signals.loss))

  return wrappers.warmed_up(Selector(init, select, observe), table, epochs)
