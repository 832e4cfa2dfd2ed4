"""OrderDP: draws a pool uniformly and trains on its samples with the highest last loss.

Jin et al., "OrderDP: A Theoretically Guaranteed Lossless Dynamic Data Pruning Framework", arXiv 2606.08574. The
fractions of the paper are not in its public text; the defaults here keep 64 %. The authors' code starts to prune at
once; here everything is trained on until each sample has a loss.

    pool    a uniform draw of floor(pool_fraction N) samples
    kept    the floor(top_fraction |pool|) samples of the pool with the highest last loss

`N` is the number of training samples.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import check_fraction
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers.warmed_up import warmed_up
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["OrderDPState", "best_of_pool", "order_dp"]


class OrderDPState(NamedTuple):
  """The state of OrderDP."""

  last_loss: Array  # [N] float32, 0 until a sample has been seen


def best_of_pool(key: Array, score: Array, pool_fraction: float, top_fraction: float) -> Array:
  """Chooses the floor(top_fraction * s) best of a uniform pool of s = floor(pool_fraction * N) samples, `[N]` bool.

  Args:
    key: consumed.
    score: `[N]` float32.
    pool_fraction: fraction of all samples that is drawn.
    top_fraction: fraction of the pool that is chosen.
  """
  draw_key, tie_key = jax.random.split(key)
  num_samples = score.shape[0]
  size = ranking.budget(pool_fraction, num_samples)
  pool = ranking.uniform_subset(draw_key, num_samples, size)
  return ranking.top(tie_key, score, ranking.budget(top_fraction, size), pool)


def order_dp(table: SampleTable, epochs: int, *, pool_fraction: float = 0.75, top_fraction: float = 0.85) -> Selector:
  """Keeps the samples of a random pool with the highest last loss.

  A non-finite last loss counts as the lowest. All samples are trained on until each has been seen once.

  Args:
    table: the training set, N samples.
    epochs: of the run.
    pool_fraction: fraction of the training set in an epoch's pool, in (0, 1].
    top_fraction: fraction of the pool that is kept, in (0, 1].

  Raises:
    UserError: a fraction lies outside its range.
  """
  check_fraction("pool_fraction", pool_fraction)
  check_fraction("top_fraction", top_fraction)

  def init(key: Array) -> OrderDPState:
    del key
    return OrderDPState(last_loss=jnp.zeros(table.num_samples, jnp.float32))

  def select(key: Array, state: OrderDPState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del epoch
    score, non_finite = ranking.sanitize(state.last_loss)
    keep = best_of_pool(key, score, pool_fraction, top_fraction)
    return Selection(keep=keep), {"non_finite": non_finite}

  def observe(state: OrderDPState, signals: Signals) -> OrderDPState:
    return OrderDPState(last_loss=memory.scatter(state.last_loss, signals, signals.loss))

  return warmed_up(Selector(init, select, observe), table, epochs)
