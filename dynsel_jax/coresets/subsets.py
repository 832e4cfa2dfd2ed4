"""From a score, or an order of picks, to a fixed subset. Pure and jit-able; sorts once, as a subset is chosen once.

Each choice is made within groups, commonly the classes, or in the whole set if no groups are given. Ties are broken by
the key, never by position. More than a group has is all of it.

`N` is the number of training samples, `G` the number of groups, 1 if none are given.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["central", "members", "strata", "top"]


@jax.jit
def top(key: Array, score: Array, counts: Array | int, groups: Array | None = None) -> Array:
  """Keeps the samples with the highest scores; NaN is the worst.

  Args:
    key: breaks ties.
    score: `[N]` float32.
    counts: `[G]` int32, how many to keep of each group; a single number if no groups are given.
    groups: `[N]` int32, in [0, G).

  Returns:
    `[N]` bool.
  """
  rank, counts, groups = _ranked(key, -score, counts, groups)  # NaN comes last
  return rank < counts[groups]


@jax.jit
def central(key: Array, score: Array, counts: Array | int, groups: Array | None = None) -> Array:
  """Keeps the samples in the middle of the order of scores; NaN is kept only where there is nothing else.

  Of n samples in order it keeps c from position floor((n - c) / 2) on. The moderate coreset (Xia et al., ICLR 2023)
  keeps the positions round(n (1 - r) / 2) to round(n (1 + r) / 2) of the whole set, whose number is within one of r n.

  Args:
    key: breaks ties.
    score: `[N]` float32.
    counts: `[G]` int32, how many to keep of each group; a single number if no groups are given.
    groups: `[N]` int32, in [0, G).

  Returns:
    `[N]` bool.
  """
  rank, counts, groups = _ranked(key, score, counts, groups)
  numbers = jnp.zeros_like(counts).at[groups].add((~jnp.isnan(score)).astype(jnp.int32))
  first = jnp.maximum(numbers - counts, 0) // 2
  return (rank >= first[groups]) & (rank < (first + counts)[groups])


@functools.partial(jax.jit, static_argnames="num_strata")
def strata(
  key: Array,
  score: Array,
  counts: Array | int,
  cut: Array | int = 0,
  groups: Array | None = None,
  *,
  num_strata: int = 50,
) -> Array:
  """Leaves out the hardest samples and spreads the rest of the choice evenly over the range of the score.

  Coverage-centric coreset selection (CCS): Zheng et al., arXiv 2210.15809, Algorithm 1. The range of what is left is
  split into strata of equal width. From the smallest stratum up each gets an equal share of what is still wanted, or
  all that it has; within a stratum the choice is uniform. Among strata of equal size the lower comes first. The top
  edge lies 1e-4 of its value above the highest score, as in the published code, also where that value is below 0
  (there it would lie below the score). The published code's class-balanced mode is not followed: here each group has
  a range, strata and a cut of its own.

  Args:
    key: draws within strata and breaks ties of the cut.
    score: `[N]` float32, low is hard, as the area under the margin; negate a score of which high is hard. What is not
      finite is the hardest, and never kept.
    counts: `[G]` int32, how many to keep of each group; a single number if no groups are given.
    cut: `[G]` int32 or a single number, how many of the hardest to leave out.
    groups: `[N]` int32, in [0, G).
    num_strata: strata in each group.

  Returns:
    `[N]` bool.
  """
  counts, groups = _grouped(score, counts, groups)
  num_groups = counts.shape[0]
  cut = jnp.broadcast_to(jnp.asarray(cut, jnp.int32), counts.shape)
  cut_key, draw_key = jax.random.split(key)
  finite = jnp.isfinite(score)
  left = finite & (_rank(cut_key, jnp.where(finite, score, -jnp.inf), groups, num_groups) >= cut[groups])

  lowest = jnp.full(num_groups, jnp.inf).at[groups].min(jnp.where(left, score, jnp.inf))
  highest = jnp.full(num_groups, -jnp.inf).at[groups].max(jnp.where(left, score, -jnp.inf))
  width = (highest + 1e-4 * jnp.abs(highest) - lowest) / num_strata
  width = jnp.where(width > 0, width, 1.0)  # equal scores of 0 share the lowest stratum
  stratum = jnp.where(left, jnp.floor((score - lowest[groups]) / width[groups]), 0.0)
  stratum = jnp.clip(stratum, 0, num_strata - 1).astype(jnp.int32)

  num_cells = num_groups * num_strata
  cell = jnp.where(left, groups * num_strata + stratum, num_cells)  # the last cell is of those left out
  sizes = jnp.zeros(num_cells + 1, jnp.int32).at[cell].add(1)
  shares = _shares(sizes[:-1].reshape(num_groups, num_strata), counts).reshape(num_cells)
  rank = _rank(draw_key, jnp.zeros_like(score), cell, num_cells + 1)
  return left & (rank < jnp.append(shares, 0)[cell])


def members(order: Array, n: int) -> Array:
  """Returns which of n samples were picked, `[n]` bool.

  Args:
    order: `[count]` int32, indices in any order, -1 where nothing was picked.
    n: the number of training samples, N.
  """
  return jnp.zeros(n, bool).at[jnp.where(order < 0, n, order)].set(True, mode="drop")


def _grouped(score: Array, counts: Array | int, groups: Array | None) -> tuple[Array, Array]:
  counts = jnp.asarray(counts, jnp.int32)
  if groups is None:
    counts, groups = counts.reshape(1), jnp.zeros(score.shape, jnp.int32)
  # Without it XLA counts groups that are constants while it compiles, seconds for a million samples.
  return counts, jax.lax.optimization_barrier(groups.astype(jnp.int32))


def _ranked(key: Array, score: Array, counts: Array | int, groups: Array | None) -> tuple[Array, Array, Array]:
  """Returns each sample's place in its group's ascending order of scores, the counts and the groups."""
  counts, groups = _grouped(score, counts, groups)
  return _rank(key, score, groups, counts.shape[0]), counts, groups


def _rank(key: Array, score: Array, groups: Array, num_groups: int) -> Array:
  """Returns each sample's place in its group's ascending order of scores, `[N]` int32; NaN is last."""
  n = score.shape[0]
  order = jnp.lexsort((jax.random.permutation(key, n), score, groups))
  sizes = jnp.zeros(num_groups, jnp.int32).at[groups].add(1)
  place = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
  return place - (jnp.cumsum(sizes) - sizes)[groups]


def _shares(sizes: Array, counts: Array) -> Array:
  """Fills strata from the smallest up, each with an equal share of the rest: `[G, S]` sizes to `[G, S]` int32."""
  num_strata = sizes.shape[1]
  order = jnp.argsort(sizes, axis=1, stable=True)
  ascending = jnp.take_along_axis(sizes, order, axis=1)

  def fill(rest: Array, stratum: tuple[Array, Array]) -> tuple[Array, Array]:
    size, strata_left = stratum
    share = jnp.minimum(size, rest // strata_left)
    return rest - share, share

  _, shares = jax.lax.scan(fill, counts, (ascending.T, jnp.arange(num_strata, 0, -1, dtype=jnp.int32)))
  return jnp.take_along_axis(shares.T, jnp.argsort(order, axis=1), axis=1)
