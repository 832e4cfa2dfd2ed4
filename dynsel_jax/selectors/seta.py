"""SeTa: groups the samples by loss and trains on a window of groups that slides from easy to hard.

Zhou, Gao and Wang, "Scale Efficient Training for Large Datasets", arXiv 2503.13385. Each epoch draws a uniform part of
the samples, splits it by one-dimensional k-means of the last losses, and keeps a window of neighbouring groups; the
last epochs keep the whole draw.

The authors' code runs k-means from random starts. Here the groups are optimal over 512 blocks of the sorted losses, by
dynamic programming, and then refined by Lloyd's rule: with up to 512 samples they are optimal. The blocks are short
both where losses are dense and where they are far apart, since a few losses in a long tail may deserve a group.

    pool      a uniform draw of (1 - r) N samples
    groups    G of them by the last loss, from easy to hard
    kept      the round(s G) neighbouring groups of the epoch's window, which moves by one group each epoch

`N` is the number of training samples, `G` the number of groups, `K` the number of blocks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import check_fraction, check_positive
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers.warmed_up import warmed_up
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["SeTaState", "group_edges", "seta", "window"]

_BLOCKS = 512
_LLOYD_STEPS = 10


class SeTaState(NamedTuple):
  """The state of SeTa."""

  last_loss: Array  # [N] float32, 0 until a sample has been seen


def group_edges(values: Array, num_groups: int) -> Array:
  """Splits values into the groups with the least squared distance to the groups' means (k-means in one dimension).

  Args:
    values: `[N]` float32, ascending, with +inf behind the values.
    num_groups: G.

  Returns:
    `[G + 1]` float32: group g, counted from 0, holds the values above edge g and up to edge g + 1. The first is -inf
    and the last +inf.
  """
  count = jnp.sum(jnp.isfinite(values), dtype=jnp.int32)
  unit = _to_unit_spread(values, count)
  sums, squares = (_running_sum(jnp.where(jnp.isfinite(unit), x, 0.0), count // 2) for x in (unit, unit * unit))
  ends = _lloyd(unit, sums, _best_ends(sums, squares, _block_ends(unit, count), num_groups))
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
  check_fraction("pool_fraction", pool_fraction)
  check_positive("num_groups", num_groups)
  check_fraction("window_fraction", window_fraction)
  check_fraction("whole_pool_from", whole_pool_from, zero=True)
  num_samples = table.num_samples
  width = max(1, round(window_fraction * num_groups))
  pool_size = ranking.budget(pool_fraction, num_samples)
  end = ranking.budget(whole_pool_from, epochs, least=0)

  def init(key: Array) -> SeTaState:
    del key
    return SeTaState(last_loss=jnp.zeros(num_samples, jnp.float32))

  def select(key: Array, state: SeTaState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    pool = ranking.uniform_subset(key, num_samples, pool_size)
    finite = jnp.isfinite(state.last_loss)
    loss = jnp.where(finite, state.last_loss, jnp.inf)
    edges = group_edges(jnp.sort(jnp.where(pool, loss, jnp.inf)), num_groups)
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


def _to_unit_spread(values: Array, count: Array) -> Array:
  """Maps the median of the first `count` of ascending values to 0 and their range to 1; +inf behind them."""
  spread = values[jnp.maximum(count - 1, 0)] - values[0]
  unit = (values - values[count // 2]) / jnp.where(spread > 0, spread, 1.0)
  return jnp.where(jnp.arange(values.shape[0]) < count, unit, jnp.inf)


def _running_sum(values: Array, start: Array) -> Array:
  """Returns sums whose difference between two places is the sum of the values between them, `[N + 1]` float32.

  They run from the place `start` to both sides, so that the few large values of a tail are added last.
  """
  after = jnp.arange(values.shape[0]) >= start
  right = jnp.append(0.0, jnp.cumsum(jnp.where(after, values, 0.0)))
  left = jnp.append(jnp.cumsum(jnp.where(after, 0.0, values)[::-1])[::-1], 0.0)
  return right - left


def _block_ends(unit: Array, count: Array) -> Array:
  """Returns the ends of the blocks, `[K + 1]` int32 from 0 to `count`; every value is a block if there are up to 512.

  Half of the blocks hold equally many values, and half equal sums of gap^(2/3). Groups of the least squared distance
  lie at a density of f^(1/3) where values lie at f (Panter and Dite, 1951), and a gap is about 1 / (N f).
  """
  size = unit.shape[0]
  if size <= _BLOCKS:
    return jnp.arange(size + 1, dtype=jnp.int32) * count // size
  gap = jnp.where(jnp.arange(size) < count, unit - jnp.roll(unit, 1).at[0].set(unit[0]), 0.0)
  spread = jnp.cumsum(gap ** jnp.float32(2 / 3))
  number = jnp.minimum(jnp.arange(1, size + 1), count).astype(jnp.float32)
  passed = number / jnp.maximum(count, 1).astype(jnp.float32) + spread / jnp.where(spread[-1] > 0, spread[-1], 1.0)
  inner = jnp.searchsorted(passed, jnp.linspace(0.0, 2.0, _BLOCKS + 1)[1:-1]).astype(jnp.int32)
  return jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.minimum(inner, count), count[None]])


def _best_ends(sums: Array, squares: Array, ends: Array, num_groups: int) -> Array:
  """Returns the ends of all groups but the last, `[G - 1]` int32, the best splits at the ends of blocks."""
  size, total, square = (x[None, :] - x[:, None] for x in (ends, sums[ends], squares[ends]))  # from row to column
  cost = square - total * total / jnp.maximum(size, 1).astype(jnp.float32)
  cost = jnp.where(size < 0, jnp.inf, jnp.maximum(cost, 0.0))

  def add_group(best: Array, _: None) -> tuple[Array, Array]:
    through = best[:, None] + cost
    return jnp.min(through, axis=0), jnp.argmin(through, axis=0)

  _, came_from = jax.lax.scan(add_group, cost[0], None, length=num_groups - 1)

  def step_back(block: Array, came_from: Array) -> tuple[Array, Array]:
    return came_from[block], came_from[block]

  _, blocks = jax.lax.scan(step_back, jnp.int32(ends.shape[0] - 1), came_from, reverse=True)
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
