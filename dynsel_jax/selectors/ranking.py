"""Exact choices by score, by weight or by chance, without a sort. What a method's `select` is written with.

Everything but `check_fraction`, `budget` of an int, `class_layout` and `class_budgets` is pure and jit-able. Ties are
broken by the key, never by position; a NaN is the worst score. A score of -inf or inf is ordered as a number; use
`guard` where it is a fault.

`N` is the number of training samples, `C` the number of classes.
"""

from fractions import Fraction
from typing import NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dynsel_jax.options import check_fraction
from dynsel_jax.selectors import words
from dynsel_jax.selectors.order import everything, nothing, shuffled_positions, visiting_order

__all__ = [
  "ClassLayout",
  "budget",
  "check_fraction",
  "class_budgets",
  "class_layout",
  "everything",
  "guard",
  "nothing",
  "perturbed",
  "shuffled_positions",
  "tie_breakers",
  "top",
  "top_by_class",
  "top_fraction",
  "uniform_subset",
  "visiting_order",
  "weighted_subset",
]

_LARGEST_DENOMINATOR = 1 << 15  # its square fits int32


class ClassLayout(NamedTuple):
  """Which class each sample belongs to, counted once. Built by `class_layout`."""

  labels: Array  # [N] int32
  sizes: np.ndarray  # [C] int32, samples of each class


@overload
def budget(fraction: float, n: int, *, least: int = 1) -> int: ...
@overload
def budget(fraction: float, n: Array, *, least: int = 1) -> Array: ...
def budget(fraction: float, n: int | Array, *, least: int = 1) -> int | Array:
  """Returns floor(fraction * n), at least `least` and at most n, without float error: 0.7 of 10 is 7.

  Args:
    fraction: in [0, 1]. For a traced n it is read as the nearest fraction whose denominator is at most 32768.
    n: a count, or int32 counts of any shape that may be traced.
    least: the fewest where n allows it.

  Returns:
    An int for an int, else int32 of the shape of n.
  """
  if isinstance(n, int):
    ratio = Fraction(fraction).limit_denominator(10**9)
    return min(n, max(least, n * ratio.numerator // ratio.denominator))
  ratio = Fraction(fraction).limit_denominator(_LARGEST_DENOMINATOR)
  whole, rest = n // ratio.denominator, n % ratio.denominator  # apart, so that no product overflows
  share = whole * ratio.numerator + rest * ratio.numerator // ratio.denominator
  return jnp.minimum(n, jnp.maximum(share, least))


def class_layout(labels: Array, num_classes: int) -> ClassLayout:
  """Counts the samples of each class, on the host and once.

  Args:
    labels: `[N]` int32, in [0, num_classes).
    num_classes: C.
  """
  sizes = np.bincount(np.asarray(labels), minlength=num_classes).astype(np.int32)
  return ClassLayout(jnp.asarray(labels, jnp.int32), sizes)


def class_budgets(fraction: float, layout: ClassLayout) -> Array:
  """Returns floor(fraction * n_c) for each class of n_c samples, at least 1 unless the class is empty, `[C]` int32."""
  return jnp.asarray([budget(fraction, int(size)) for size in layout.sizes], jnp.int32)


def tie_breakers(key: Array, n: int) -> Array:
  """Returns n distinct words in random order, `[n]` uint32."""
  return words.mixed(key, jnp.arange(n, dtype=jnp.uint32))


def top(key: Array, score: Array, count: Array | int, where: Array | None = None) -> Array:
  """Chooses the `count` samples with the highest scores.

  Args:
    key: breaks ties.
    score: `[N]` float32.
    count: how many, may be traced.
    where: `[N]` bool, the samples to choose from; all if not given.

  Returns:
    `[N]` bool, exactly min(count, sum(where)) of them True.
  """
  groups, counts = jnp.zeros(score.shape, jnp.int32), jnp.asarray(count, jnp.int32)[None]
  return _top_of_groups(key, score, groups, counts, where)


def top_fraction(key: Array, score: Array, fraction: float) -> Array:
  """Chooses the share `fraction` of samples with the highest scores: `top` with the count `budget(fraction, N)`."""
  return top(key, score, budget(fraction, score.shape[0]))


def top_by_class(key: Array, score: Array, layout: ClassLayout, counts: Array, where: Array | None = None) -> Array:
  """Chooses in each class the samples with the highest scores. Memory grows with N and C, not with their product.

  Args:
    key: breaks ties.
    score: `[N]` float32.
    layout: from `class_layout`.
    counts: `[C]` int32, how many of each class, may be traced.
    where: `[N]` bool, the samples to choose from; all if not given.

  Returns:
    `[N]` bool, in each class exactly as many True as wanted, or as there are.
  """
  return _top_of_groups(key, score, layout.labels, counts, where)


def uniform_subset(key: Array, n: int, count: Array | int, where: Array | None = None) -> Array:
  """Chooses `count` of n samples at random, all subsets alike.

  Args:
    key: consumed.
    n: the number of samples.
    count: how many, may be traced.
    where: `[n]` bool, the samples to choose from; all if not given.

  Returns:
    `[n]` bool, exactly min(count, sum(where)) of them True.
  """
  rank = tie_breakers(key, n)
  groups, counts = jnp.zeros(n, jnp.int32), jnp.asarray(count, jnp.int32)[None]
  where = jnp.ones(n, bool) if where is None else where
  level, remaining = words.thresholds(rank, groups, counts, where)
  return where & (rank >= level[0]) & (remaining[0] > 0)


def perturbed(key: Array, log_weight: Array) -> Array:
  """Adds standard Gumbel noise to log weights; the highest of the sums are a weighted draw without replacement.

  Source: Kool, van Hoof and Welling, arXiv 1903.06059, Sec. 2.3.

  Args:
    key: consumed.
    log_weight: `[N]` float32, unnormalised; -inf or NaN for a weight of zero.

  Returns:
    `[N]` float32, -inf for a weight of zero. A score for `top` and `top_by_class`.
  """
  noisy = log_weight + jax.random.gumbel(key, log_weight.shape, jnp.float32)
  return jnp.where(jnp.isnan(log_weight), -jnp.inf, noisy)


def weighted_subset(key: Array, log_weight: Array, count: Array | int, where: Array | None = None) -> Array:
  """Draws `count` samples one after another without replacement, each time in proportion to the weights left.

  A sample of weight zero is drawn only when no other is left.

  Args:
    key: consumed.
    log_weight: `[N]` float32, unnormalised; -inf or NaN for a weight of zero.
    count: how many, may be traced.
    where: `[N]` bool, the samples to choose from; all if not given.

  Returns:
    `[N]` bool, exactly min(count, sum(where)) of them True.
  """
  noise_key, tie_key = jax.random.split(key)
  return top(tie_key, perturbed(noise_key, log_weight), count, where)


def guard(score: Array) -> tuple[Array, Array]:
  """Makes every non-finite score the worst, and counts them.

  Args:
    score: `[N]` float32.

  Returns:
    The scores with -inf in place of NaN, inf and -inf, and `[]` int32: how many there were.
  """
  finite = jnp.isfinite(score)
  return jnp.where(finite, score, -jnp.inf), jnp.sum(~finite, dtype=jnp.int32)


def _top_of_groups(key: Array, score: Array, groups: Array, counts: Array, where: Array | None) -> Array:
  rank = words.ordered(score)
  where = jnp.ones(score.shape, bool) if where is None else where
  level, remaining = words.thresholds(rank, groups, counts, where)
  at_level = where & (rank == level[groups]) & (remaining > 0)[groups]
  num_at_level = jnp.zeros_like(remaining).at[groups].add(at_level.astype(jnp.int32))

  def without_ties() -> Array:
    return at_level

  def by_key() -> Array:
    ties = tie_breakers(key, score.shape[0])
    tie_level, _ = words.thresholds(ties, groups, remaining, at_level)
    return at_level & (ties >= tie_level[groups])

  # Ranking the ties costs as much as ranking the scores, and most scores have none.
  taken = jax.lax.cond(jnp.any(num_at_level > remaining), by_key, without_ties)
  return (where & (rank > level[groups])) | taken
