"""Turns a score into a fixed subset. Pure and jit-able; sorting is fine, as it happens once.

Each choice is made within groups, commonly the classes, or in the whole set if no groups are given. Ties are broken by
the key, never by position. A count larger than a group keeps the whole group.

`N` is the number of training samples, `G` the number of groups, 1 if none are given.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["central", "strata", "top"]


@jax.jit
def top(key: Array, score: Array, counts: Array | int, groups: Array | None = None) -> Array:
  """Keeps the samples with the highest scores; NaN ranks lowest.

  Args:
    key: breaks ties.
    score: `[N]` float32.
    counts: `[G]` int32, number of samples to keep in each group; a single number if no groups are given.
    groups: `[N]` int32, in [0, G).

  Returns:
    `[N]` bool.
  """
  rank, counts, groups = _ranked(key, -score, counts, groups)  # NaN sorts last
  return rank < counts[groups]


@jax.jit
def central(key: Array, score: Array, counts: Array | int, groups: Array | None = None) -> Array:
  """Keeps the samples in the middle of the ascending order of scores; NaN only if a group has nothing else.

  In an order of n samples it keeps the c samples from position floor((n - c) / 2) on. The moderate coreset (Xia et al.,
  ICLR 2023) keeps the positions round(n (1 - r) / 2) to round(n (1 + r) / 2) of the whole set, r n samples up to one.

  Args:
    key: breaks ties.
    score: `[N]` float32.
    counts: `[G]` int32, number of samples to keep in each group; a single number if no groups are given.
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
  """Removes the hardest samples and spreads the choice evenly over the score range of the others.

  Coverage-centric coreset selection (CCS): Zheng et al., arXiv 2210.15809, Algorithm 1. The range of the remaining
  scores is split into strata of equal width. From the smallest stratum to the largest, each receives an equal part of
  the remaining budget, or keeps all its samples; within a stratum the choice is uniform. Ties between strata go to the
  lower one. As in the published code, the top edge lies 1e-4 of its value above the highest score; unlike there, also
  if the score is negative (in the code the edge then lies below it). Unlike the class-balanced mode of the code, each
  group has its own range, strata and cut.

  Args:
    key: draws within strata and breaks ties of the cut.
    score: `[N]` float32, low is hard, such as the area under the margin; negate a score of which high is hard. Values
      that are not finite rank as the hardest and are never kept.
    counts: `[G]` int32, number of samples to keep in each group; a single number if no groups are given.
    cut: `[G]` int32 or a single number, number of the hardest samples to remove.
    groups: `[N]` int32, in [0, G).
    num_strata: number of strata in each group.

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
  width = jnp.where(width > 0, width, 1.0)  # if all scores are 0, they all lie in the lowest stratum
  stratum = jnp.where(left, jnp.floor((score - lowest[groups]) / width[groups]), 0.0)
  stratum = jnp.clip(stratum, 0, num_strata - 1).astype(jnp.int32)

  num_cells = num_groups * num_strata
  cell = jnp.where(left, groups * num_strata + stratum, num_cells)  # an extra cell collects the removed samples
  sizes = jnp.zeros(num_cells + 1, jnp.int32).at[cell].add(1)
  budgets = _stratum_budgets(sizes[:-1].reshape(num_groups, num_strata), counts).reshape(num_cells)
  rank = _rank(draw_key, jnp.zeros_like(score), cell, num_cells + 1)
  return left & (rank < jnp.append(budgets, 0)[cell])


def _grouped(score: Array, counts: Array | int, groups: Array | None) -> tuple[Array, Array]:
  counts = jnp.asarray(counts, jnp.int32)
  if groups is None:
    counts, groups = counts.reshape(1), jnp.zeros(score.shape, jnp.int32)
  # The barrier keeps XLA from constant-folding the counts of constant groups, seconds of compilation for 1M samples.
  return counts, jax.lax.optimization_barrier(groups.astype(jnp.int32))


def _ranked(key: Array, score: Array, counts: Array | int, groups: Array | None) -> tuple[Array, Array, Array]:
  """Returns each sample's rank in its group's ascending order of scores, and the counts and groups as arrays."""
  counts, groups = _grouped(score, counts, groups)
  return _rank(key, score, groups, counts.shape[0]), counts, groups


def _rank(key: Array, score: Array, groups: Array, num_groups: int) -> Array:
  """Returns each sample's rank in its group's ascending order of scores, `[N]` int32; NaN ranks last."""
  n = score.shape[0]
  order = jnp.lexsort((jax.random.permutation(key, n), score, groups))
  sizes = jnp.zeros(num_groups, jnp.int32).at[groups].add(1)
  place = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
  return place - (jnp.cumsum(sizes) - sizes)[groups]


def _stratum_budgets(sizes: Array, counts: Array) -> Array:
  """Splits each group's budget over its strata, smallest first: `[G, S]` sizes to `[G, S]` int32 numbers to keep."""
  num_strata = sizes.shape[1]
  order = jnp.argsort(sizes, axis=1, stable=True)
  ascending = jnp.take_along_axis(sizes, order, axis=1)

  def fill(rest: Array, stratum: tuple[Array, Array]) -> tuple[Array, Array]:
    size, strata_left = stratum
    budget = jnp.minimum(size, rest // strata_left)
    return rest - budget, budget

  _, budgets = jax.lax.scan(fill, counts, (ascending.T, jnp.arange(num_strata, 0, -1, dtype=jnp.int32)))
  return jnp.take_along_axis(budgets.T, jnp.argsort(order, axis=1), axis=1)
