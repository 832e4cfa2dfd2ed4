"""Choices by score, weight and chance against brute force."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dynsel_jax.options import UserError, check_fraction
from dynsel_jax.selectors import radix_select, ranking
from dynsel_jax.types import SampleTable
from tests.support import simulation

ODD = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 1.0, -1.0, 1e-45, 3.4e38, -3.4e38]
SIZE = 24

top = jax.jit(ranking.top)


def keys(count):
  return jax.random.split(jax.random.key(1), count)


def sortable(score):
  """A number of the same order for each score, NaN lowest."""
  return np.where(
    np.isnan(score), -np.inf, np.nextafter(np.where(score == -np.inf, -np.finfo("f8").max, score), np.inf)
  )


@settings(max_examples=60, deadline=None)
@given(
  score=st.lists(st.one_of(st.sampled_from(ODD), st.floats(width=32)), min_size=SIZE, max_size=SIZE),
  count=st.integers(0, SIZE + 2),
  where=st.lists(st.booleans(), min_size=SIZE, max_size=SIZE),
)
def test_top_keeps_the_highest_of_the_members(score, count, where):
  score, where = np.array(score, np.float32), np.array(where)
  keep = np.asarray(top(jax.random.key(0), jnp.asarray(score), jnp.int32(count), jnp.asarray(where)))
  assert keep.sum() == min(count, where.sum())
  assert not np.any(keep & ~where)
  value, left = sortable(score.astype(np.float64)), where & ~keep
  if keep.any() and left.any():
    assert value[keep].min() >= value[left].max()


def test_sortable_bits_are_ordered_as_the_numbers():
  rising = np.array([np.nan, -np.inf, -3.4e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 3.4e38, np.inf], np.float32)
  ordered = np.asarray(radix_select.sortable_bits(jnp.asarray(rising))).astype(np.int64)
  assert (np.diff(ordered) > 0).tolist() == [True] * 5 + [False] + [True] * 4
  assert ordered[5] == ordered[6]


def test_a_nan_loses_to_minus_infinity():
  keep = top(
    jax.random.key(0), jnp.array([math.nan, -math.inf, math.nan], jnp.float32), jnp.int32(1), jnp.ones(3, bool)
  )
  assert keep.tolist() == [False, True, False]


@pytest.mark.parametrize("n", [3000, 5000, 70_000])
def test_top_equals_a_sort_where_no_score_occurs_twice(n):
  score = np.random.default_rng(n).permutation(n).astype(np.float32) - n / 2
  count = ranking.budget(0.3, n)
  keep = jax.jit(ranking.top_fraction, static_argnums=2)(jax.random.key(0), jnp.asarray(score), 0.3)
  np.testing.assert_array_equal(np.flatnonzero(keep), np.sort(np.argsort(-score)[:count]))


def test_ties_are_broken_by_the_key_alone():
  score = jnp.array([2.0] * 3 + [1.0] * 8 + [0.0] * 3)
  keep = np.asarray(jax.jit(jax.vmap(lambda key: ranking.top(key, score, 5)))(keys(2000)))
  assert np.all(keep[:, :3]) and not np.any(keep[:, 11:])
  assert np.all(keep.sum(axis=1) == 5)
  chance, deviation = 2 / 8, math.sqrt(2 / 8 * 6 / 8 / 2000)
  assert np.all(np.abs(keep[:, 3:11].mean(axis=0) - chance) < 5 * deviation)


@pytest.mark.parametrize("num_classes", [1, 3, 40])
def test_top_by_class_equals_a_sort_in_each_class(num_classes):
  rng = np.random.default_rng(num_classes)
  labels = rng.integers(0, num_classes, 6000)
  score = rng.permutation(6000).astype(np.float32)
  table = SampleTable(6000, jnp.asarray(labels, jnp.int32), num_classes + 1)
  layout = ranking.class_layout(table)  # the last class is empty
  counts = ranking.class_budgets(0.3, layout)
  keep = np.asarray(
    jax.jit(lambda key, score: ranking.top_by_class(key, score, layout, counts))(jax.random.key(0), score)
  )
  for label in range(num_classes):
    members = np.flatnonzero(labels == label)
    count = math.floor(0.3 * members.size + 1e-9)
    assert counts[label] == count
    best = members[np.argsort(-score[members])[:count]]
    np.testing.assert_array_equal(np.flatnonzero(keep & (labels == label)), np.sort(best))
  assert counts[num_classes] == 0


def test_top_by_class_breaks_ties_and_clips_counts():
  labels = np.repeat([0, 1, 2], [5, 4, 1])
  layout = ranking.class_layout(SampleTable(10, jnp.asarray(labels, jnp.int32), 3))
  where = jnp.asarray([True] * 3 + [False] * 2 + [True] * 5)
  keep = ranking.top_by_class(jax.random.key(0), jnp.zeros(10), layout, jnp.array([9, 2, 0]), where)
  assert np.bincount(labels[np.asarray(keep)], minlength=3).tolist() == [3, 2, 0]
  assert not np.any(np.asarray(keep)[3:5])


def test_uniform_subsets_are_all_alike():
  n, count, draws = 6, 3, 4000
  keep = np.asarray(jax.jit(jax.vmap(lambda key: ranking.uniform_subset(key, n, count)))(keys(draws)))
  assert np.all(keep.sum(axis=1) == count)
  subsets = list(itertools.combinations(range(n), count))
  seen = [subsets.index(tuple(np.flatnonzero(row))) for row in keep]
  assert stats.chisquare(np.bincount(seen, minlength=len(subsets))).pvalue > 1e-4


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_uniform_subset_keeps_to_its_members(count):
  where = jnp.arange(10) % 2 == 0
  keep = jax.jit(lambda key, count: ranking.uniform_subset(key, 10, count, where))(jax.random.key(0), jnp.int32(count))
  assert int(keep.sum()) == min(count, 5)
  assert not jnp.any(keep & ~where)


def test_weighted_draws_have_the_probabilities_of_drawing_one_after_another():
  weight, draws = np.array([1.0, 2.0, 3.0, 6.0, 0.0]), 4000
  log_weight = jnp.asarray(np.log(np.maximum(weight, 1e-30)), jnp.float32).at[4].set(-jnp.inf)
  keep = np.asarray(simulation.over_keys(lambda key: ranking.weighted_subset(key, log_weight, 2), draws))
  assert not keep[:, 4].any()
  fraction = weight / weight.sum()
  expected = np.zeros(5)
  for first, second in itertools.permutations(range(4), 2):
    expected[[first, second]] += fraction[first] * fraction[second] / (1 - fraction[first])
  assert np.all(np.abs(keep.mean(axis=0) - expected)[:4] < 5 * np.sqrt(expected * (1 - expected) / draws)[:4])


def test_weight_zero_is_drawn_only_when_nothing_else_is_left():
  log_weight = jnp.array([-jnp.inf, -1e30, jnp.nan, 0.0])
  for count in (2, 3):
    keep = simulation.over_keys(lambda key, count=count: ranking.weighted_subset(key, log_weight, count), 50)
    assert np.all(np.asarray(keep).sum(axis=1) == count) and np.all(np.asarray(keep)[:, [1, 3]])


def test_sanitize_counts_what_is_not_finite():
  score, count = ranking.sanitize(jnp.array([1.0, math.nan, math.inf, -math.inf]))
  assert score.tolist() == [1.0, -math.inf, -math.inf, -math.inf]
  assert (int(count), count.dtype) == (3, jnp.int32)


@pytest.mark.parametrize(
  "fraction, n, expected", [(0.3, 10, 3), (0.7, 10, 7), (0.29, 100, 29), (0.01, 5, 1), (1.0, 7, 7)]
)
def test_budget_is_the_floor_without_float_error(fraction, n, expected):
  assert ranking.budget(fraction, n) == expected
  assert int(jax.jit(lambda n: ranking.budget(fraction, n))(jnp.int32(n))) == expected


def test_budget_of_large_and_of_no_samples():
  n = 2_000_000_000
  assert ranking.budget(0.1234, n) == int(jax.jit(lambda n: ranking.budget(0.1234, n))(jnp.int32(n))) == 246_800_000
  assert ranking.budget(1e-5, 1_281_167) == 12
  assert ranking.budget(0.3, 0) == 0
  assert ranking.budget(0.3, 3, least=0) == 0


@pytest.mark.parametrize("fraction, n, expected", [(0.3, 10, 3), (0.7, 10, 7), (1e-9, 5, 1), (1.0, 7, 7)])
def test_keep_count_is_the_budget_of_a_fraction_in_range(fraction, n, expected):
  assert ranking.keep_count(fraction, n) == expected
  for wrong in (0.0, -fraction, 1.0 + fraction, math.nan):
    with pytest.raises(UserError, match=r"keep_fraction=\S+ must lie in \(0, 1\]"):
      ranking.keep_count(wrong, n)


def test_class_layout_counts_the_labels_and_asks_for_them():
  layout = ranking.class_layout(SampleTable(5, jnp.asarray([2, 0, 2, 2, 0], jnp.int32), 4))
  assert layout.labels.tolist() == [2, 0, 2, 2, 0] and layout.sizes.tolist() == [2, 0, 3, 0]
  with pytest.raises(UserError, match="table.labels is None"):
    ranking.class_layout(SampleTable(5))


def test_check_fraction_names_the_field():
  with pytest.raises(UserError, match=r"keep_fraction=1.5 must lie in \(0, 1\]"):
    check_fraction("keep_fraction", 1.5)


def test_tie_breakers_are_distinct_and_uniform():
  tie = np.asarray(ranking.tie_breakers(jax.random.key(0), 50_000))
  assert np.unique(tie).size == tie.size
  assert stats.chisquare(np.bincount(tie >> 24, minlength=256)).pvalue > 1e-4
  assert stats.chisquare(np.bincount(tie & 255, minlength=256)).pvalue > 1e-4
