"""SeTa: groups the samples by loss and trains on a window of groups that slides from easy to hard.

Zhou, Gao and Wang, "Scale Efficient Training for Large Datasets", arXiv 2503.13385. Each epoch draws a uniform part of
the samples, splits it by one-dimensional k-means of the last losses, and keeps a window of neighbouring groups; the
last epochs keep the whole draw.

The authors' code runs k-means from random starts. Here the groups are optimal over blocks of equal size of the
sorted losses, by dynamic programming, and then refined by Lloyd's rule: with up to 512 samples they are optimal. Above
16384 samples they are found on a random 16384 of them.

`N` is the number of training samples, `G` the number of groups, `S` the size of a sorted sample, `K` the number of
blocks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import check_positive
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers.warmed_up import warmed_up
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["SeTaState", "group_edges", "seta", "window"]

_SAMPLE = 16384
_BLOCKS = 512
_LLOYD_STEPS = 10


class SeTaState(NamedTuple):
  """The state of SeTa."""

  last_loss: Array  # [N] float32, 0 until a sample has been seen


def group_edges(values: Array, num_groups: int) -> Array:
  """Splits values into the groups with the least squared distance to the groups' means (k-means in one dimension).

  Args:
    values: `[S]` float32, ascending, with +inf behind the values.
    num_groups: G.

  Returns:
    `[G + 1]` float32: group g, counted from 0, holds the values above edge g and up to edge g + 1. The first is -inf
    and the last +inf.
  """
  count = jnp.sum(jnp.isfinite(values), dtype=jnp.int32)
  unit = _to_unit_range(values, count)
  sums, squares = (jnp.append(0.0, jnp.cumsum(jnp.where(jnp.isfinite(unit), x, 0.0))) for x in (unit, unit * unit))
  ends = _lloyd(unit, sums, _best_ends(sums, squares, count, num_groups))
  inner = jnp.where(ends > 0, values[jnp.maximum(ends - 1, 0)], -jnp.inf)
  return jnp.concatenate([jnp.full(1, -jnp.inf), inner, jnp.full(1, jnp.inf)])


def window(epoch: Array, num_groups: int, width: int) -> Array:
  """Returns the first group of an epoch's window, `[]` int32: it advances by one each epoch and then wraps around."""
  return epoch % (num_groups - width + 1)


def seta(
  table: SampleTable,
  epochs: int,
  *,
  pool_fraction: float = 0.9,
  num_groups: int = 5,
  window_fraction: float = 0.9,
  whole_pool_from: float = 0.875,
) -> Selector:
  """Keeps the samples of a random pool whose last loss lies in the epoch's window of groups.

  Their number depends on the losses. A non-finite loss belongs to the hardest group. If the window holds no sample, as
  when all losses are equal, the whole pool is kept. All samples are trained on until each has been seen once. The
  defaults are those of the authors' CIFAR script.

  Args:
    table: the training set, N samples.
    epochs: of the run, T.
    pool_fraction: 1 - r, fraction of the samples in an epoch's pool, in (0, 1].
    num_groups: G, at least 1.
    window_fraction: s, in (0, 1]; the window holds round(s G) groups, at least 1.
    whole_pool_from: delta, in [0, 1]; epochs t > delta T, counted from 1, keep the whole pool.

  Raises:
    UserError: a value lies outside its range.
  """
  ranking.check_fraction("pool_fraction", pool_fraction)
  check_positive("num_groups", num_groups)
  ranking.check_fraction("window_fraction", window_fraction)
  ranking.check_fraction("whole_pool_from", whole_pool_from, zero=True)
  num_samples = table.num_samples
  width = max(1, round(window_fraction * num_groups))
  pool_size = ranking.budget(pool_fraction, num_samples)
  end = ranking.budget(whole_pool_from, epochs, least=0)

  def init(key: Array) -> SeTaState:
    del key
    return SeTaState(last_loss=jnp.zeros(num_samples, jnp.float32))

  def select(key: Array, state: SeTaState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    pool_key, sample_key = jax.random.split(key)
    pool = ranking.uniform_subset(pool_key, num_samples, pool_size)
    finite = jnp.isfinite(state.last_loss)
    loss = jnp.where(finite, state.last_loss, jnp.inf)
    edges = group_edges(_sorted_sample(sample_key, loss, pool), num_groups)
    first = window(epoch, num_groups, width)
    whole = epoch >= end
    low, high = jnp.where(whole, -jnp.inf, edges[first]), jnp.where(whole, jnp.inf, edges[first + width])
    inside = pool & (loss > low) & (loss <= high)
    keep = jnp.where(jnp.any(inside), inside, pool)
    info = {"first_group": first, "non_finite": jnp.sum(~finite, dtype=jnp.int32), "whole_pool": whole}
    return Selection(keep=keep), info

  def observe(state: SeTaState, signals: Signals) -> SeTaState:
    return SeTaState(last_loss=memory.scatter(state.last_loss, signals, signals.loss))

  return warmed_up(Selector(init, select, observe), table, epochs)


def _sorted_sample(key: Array, loss: Array, member: Array) -> Array:
  """Returns the members' losses in ascending order, or those of a random part of the samples if there are many."""
  num_samples = loss.shape[0]
  loss = jnp.where(member, loss, jnp.inf)
  if num_samples > _SAMPLE:
    loss = loss[jax.random.randint(key, (_SAMPLE,), 0, num_samples)]
  return jnp.sort(loss)


def _to_unit_range(values: Array, count: Array) -> Array:
  """Maps the first `count` of ascending values to [0, 1], which keeps their squares in range; +inf behind them."""
  low = values[0]
  spread = values[jnp.maximum(count - 1, 0)] - low
  unit = (values - low) / jnp.where(spread > 0, spread, 1.0)
  return jnp.where(jnp.arange(values.shape[0]) < count, unit, jnp.inf)


def _best_ends(sums: Array, squares: Array, count: Array, num_groups: int) -> Array:
  """Returns the ends of all groups but the last, `[G - 1]` int32, the best splits at block boundaries."""
  num_blocks = min(sums.shape[0] - 1, _BLOCKS)
  ends = jnp.arange(num_blocks + 1, dtype=jnp.int32) * count // num_blocks
  size, total, square = (x[None, :] - x[:, None] for x in (ends, sums[ends], squares[ends]))  # from row to column
  cost = square - total * total / jnp.maximum(size, 1).astype(jnp.float32)
  cost = jnp.where(size < 0, jnp.inf, jnp.maximum(cost, 0.0))

  def add_group(best: Array, _: None) -> tuple[Array, Array]:
    through = best[:, None] + cost
    return jnp.min(through, axis=0), jnp.argmin(through, axis=0)

  _, came_from = jax.lax.scan(add_group, cost[0], None, length=num_groups - 1)

  def step_back(block: Array, came_from: Array) -> tuple[Array, Array]:
    return came_from[block], came_from[block]

  _, blocks = jax.lax.scan(step_back, jnp.int32(num_blocks), came_from, reverse=True)
  return ends[blocks]


def _lloyd(unit: Array, sums: Array, ends: Array) -> Array:
  """Moves the ends of the groups to halfway between their means, a few times."""
  count = jnp.sum(jnp.isfinite(unit), dtype=jnp.int32)

  def move(_: Array, ends: Array) -> Array:
    bounds = jnp.concatenate([jnp.zeros(1, jnp.int32), ends, count[None]])
    size = bounds[1:] - bounds[:-1]
    mean = (sums[bounds[1:]] - sums[bounds[:-1]]) / jnp.maximum(size, 1).astype(jnp.float32)
    mean = jnp.where(size > 0, mean, unit[jnp.maximum(bounds[1:] - 1, 0)])
    return jnp.searchsorted(unit, (mean[1:] + mean[:-1]) / 2, side="right").astype(jnp.int32)

  return jax.lax.fori_loop(0, _LLOYD_STEPS, move, ends)
