"""Exact choices by score, by weight or by chance, without a sort: the building blocks of `select`.

Pure and jit-able, except `keep_count`, `budget` of an int, `class_layout` and `class_budgets`. Ties
are broken by the key, never by position; a NaN is the worst score. Scores of -inf and inf are ordered as numbers; use
`sanitize` where they are faults.

`N` is the number of training samples, `C` the number of classes.
"""

from fractions import Fraction
from typing import NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dynsel_jax.options import UserError, check_fraction
from dynsel_jax.selectors import radix_select
from dynsel_jax.types import SampleTable

__all__ = [
  "ClassLayout",
  "add_gumbel_noise",
  "budget",
  "class_budgets",
  "class_layout",
  "keep_count",
  "sanitize",
  "tie_breakers",
  "top",
  "top_by_class",
  "top_fraction",
  "uniform_subset",
  "weighted_subset",
]

_LARGEST_DENOMINATOR = 1 << 15  # its square fits int32


class ClassLayout(NamedTuple):
  """The class of each sample, and the size of each class. Built by `class_layout`."""

  labels: Array  # [N] int32
  sizes: np.ndarray  # [C] int32, number of samples of each class


@overload
def budget(fraction: float, n: int, *, least: int = 1) -> int: ...
@overload
def budget(fraction: float, n: Array, *, least: int = 1) -> Array: ...
def budget(fraction: float, n: int | Array, *, least: int = 1) -> int | Array:
  """Returns floor(fraction * n), at least `least` and at most n, without float error: 0.7 of 10 is 7.

  Args:
    fraction: in [0, 1]. For a traced n it is rounded to the nearest fraction whose denominator is at most 32768.
    n: a count, or int32 counts of any shape, possibly traced.
    least: lower bound of the result, as far as n allows.

  Returns:
    An int for an int, else int32 of the shape of n.
  """
  if isinstance(n, int):
    ratio = Fraction(fraction).limit_denominator(10**9)
    return min(n, max(least, n * ratio.numerator // ratio.denominator))
  ratio = Fraction(fraction).limit_denominator(_LARGEST_DENOMINATOR)
  whole, rest = n // ratio.denominator, n % ratio.denominator  # separately, so that no product overflows
  part = whole * ratio.numerator + rest * ratio.numerator // ratio.denominator
  return jnp.minimum(n, jnp.maximum(part, least))


def keep_count(keep_fraction: float, num_samples: int) -> int:
  """Returns the number of samples that a method keeps: floor(keep_fraction * N), at least 1.

  Raises:
    UserError: `keep_fraction` lies outside (0, 1].
  """
  check_fraction("keep_fraction", keep_fraction)
  return budget(keep_fraction, num_samples)


def class_layout(table: SampleTable) -> ClassLayout:
  """Counts the samples of each class, on the host and once.

  Raises:
    UserError: the table has no labels.
  """
  if table.labels is None:
    raise UserError("table.labels is None: give a class or a domain of each sample")
  sizes = np.bincount(np.asarray(table.labels), minlength=table.num_classes).astype(np.int32)
  return ClassLayout(jnp.asarray(table.labels, jnp.int32), sizes)


def class_budgets(fraction: float, layout: ClassLayout) -> Array:
  """Returns floor(fraction * n_c) for each class of n_c samples, at least 1 unless the class is empty, `[C]` int32."""
  return jnp.asarray([budget(fraction, int(size)) for size in layout.sizes], jnp.int32)


def tie_breakers(key: Array, n: int) -> Array:
  """Returns n distinct words in random order, `[n]` uint32."""
  return radix_select.keyed_bijection(key, jnp.arange(n, dtype=jnp.uint32))


def top(key: Array, score: Array, count: Array | int, where: Array | None = None) -> Array:
  """Chooses the `count` samples with the highest scores.

  Args:
    key: breaks ties.
    score: `[N]` float32.
    count: how many; may be traced.
    where: `[N]` bool, the candidates; by default all samples.

  Returns:
    `[N]` bool, exactly min(count, sum(where)) of them True.
  """
  groups, counts = jnp.zeros(score.shape, jnp.int32), jnp.asarray(count, jnp.int32)[None]
  return _top_of_groups(key, score, groups, counts, where)


def top_fraction(key: Array, score: Array, fraction: float) -> Array:
  """Chooses the given fraction of the samples, those with the highest scores: `top` with `budget(fraction, N)`."""
  return top(key, score, budget(fraction, score.shape[0]))


def top_by_class(key: Array, score: Array, layout: ClassLayout, counts: Array, where: Array | None = None) -> Array:
  """Chooses the samples with the highest scores within each class. Memory grows with N + C, not with N x C.

  Args:
    key: breaks ties.
    score: `[N]` float32.
    layout: from `class_layout`.
    counts: `[C]` int32, how many of each class; may be traced.
    where: `[N]` bool, the candidates; by default all samples.

  Returns:
    `[N]` bool, in each class exactly min(count, number of candidates) of them True.
  """
  return _top_of_groups(key, score, layout.labels, counts, where)


def uniform_subset(key: Array, n: int, count: Array | int, where: Array | None = None) -> Array:
  """Chooses `count` of n samples uniformly at random.

  Args:
    key: consumed.
    n: the number of samples.
    count: how many; may be traced.
    where: `[n]` bool, the candidates; by default all samples.

  Returns:
    `[n]` bool, exactly min(count, sum(where)) of them True.
  """
  rank = tie_breakers(key, n)
  groups, counts = jnp.zeros(n, jnp.int32), jnp.asarray(count, jnp.int32)[None]
  where = jnp.ones(n, bool) if where is None else where
  level, remaining = radix_select.thresholds(rank, groups, counts, where)
  return where & (rank >= level[0]) & (remaining[0] > 0)


def add_gumbel_noise(key: Array, log_weight: Array) -> Array:
  """Adds standard Gumbel noise to log weights: the top of the sums is a weighted draw without replacement.

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
  """Draws `count` samples without replacement, each time in proportion to the remaining weights.

  A sample of weight zero is drawn only when no other is left.

  Args:
    key: consumed.
    log_weight: `[N]` float32, unnormalised; -inf or NaN for a weight of zero.
    count: how many; may be traced.
    where: `[N]` bool, the candidates; by default all samples.

  Returns:
    `[N]` bool, exactly min(count, sum(where)) of them True.
  """
  noise_key, tie_key = jax.random.split(key)
  return top(tie_key, add_gumbel_noise(noise_key, log_weight), count, where)


def sanitize(score: Array) -> tuple[Array, Array]:
  """Replaces every non-finite score by the worst one, and counts them.

  Args:
    score: `[N]` float32.

  Returns:
    The scores with -inf in place of NaN, inf and -inf, and `[]` int32: the number of replaced scores.
  """
  finite = jnp.isfinite(score)
  return jnp.where(finite, score, -jnp.inf), jnp.sum(~finite, dtype=jnp.int32)


def _top_of_groups(key: Array, score: Array, groups: Array, counts: Array, where: Array | None) -> Array:
  rank = radix_select.sortable_bits(score)
  where = jnp.ones(score.shape, bool) if where is None else where
  level, remaining = radix_select.thresholds(rank, groups, counts, where)
  at_level = where & (rank == level[groups]) & (remaining > 0)[groups]
  num_at_level = jnp.zeros_like(remaining).at[groups].add(at_level.astype(jnp.int32))

  def without_ties() -> Array:
    return at_level

  def by_key() -> Array:
    ties = tie_breakers(key, score.shape[0])
    tie_level, _ = radix_select.thresholds(ties, groups, remaining, at_level)
    return at_level & (ties >= tie_level[groups])

  # Ranking the ties costs as much as ranking the scores, and most scores have none.
  taken = jax.lax.cond(jnp.any(num_at_level > remaining), by_key, without_ties)
  return (where & (rank > level[groups])) | taken
