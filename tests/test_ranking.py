"""Choices by score, weight and chance against brute force; the statistics of the keyed permutation."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dynsel_jax.options import UserError
from dynsel_jax.selectors import ranking, words

KEY = jax.random.key(0)
ODD = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 1.0, -1.0, 1e-45, 3.4e38, -3.4e38]
SIZE = 24

top = jax.jit(ranking.top)
weighted = jax.jit(jax.vmap(ranking.weighted_subset, in_axes=(0, None, None)))


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
  keep = np.asarray(top(KEY, jnp.asarray(score), jnp.int32(count), jnp.asarray(where)))
  assert keep.sum() == min(count, where.sum())
  assert not np.any(keep & ~where)
  value, left = sortable(score.astype(np.float64)), where & ~keep
  if keep.any() and left.any():
    assert value[keep].min() >= value[left].max()


def test_words_are_ordered_as_the_numbers():
  rising = np.array([np.nan, -np.inf, -3.4e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 3.4e38, np.inf], np.float32)
  ordered = np.asarray(words.ordered(jnp.asarray(rising))).astype(np.int64)
  assert (np.diff(ordered) > 0).tolist() == [True] * 5 + [False] + [True] * 4
  assert ordered[5] == ordered[6]


def test_a_nan_loses_to_minus_infinity():
  keep = top(KEY, jnp.array([math.nan, -math.inf, math.nan], jnp.float32), jnp.int32(1), jnp.ones(3, bool))
  assert keep.tolist() == [False, True, False]


@pytest.mark.parametrize("n", [3000, 5000, 70_000])
def test_top_equals_a_sort_where_no_score_occurs_twice(n):
  score = np.random.default_rng(n).permutation(n).astype(np.float32) - n / 2
  count = ranking.budget(0.3, n)
  keep = jax.jit(ranking.top_fraction, static_argnums=2)(KEY, jnp.asarray(score), 0.3)
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
  layout = ranking.class_layout(labels, num_classes + 1)  # the last class is empty
  counts = ranking.class_budgets(0.3, layout)
  keep = np.asarray(jax.jit(lambda key, score: ranking.top_by_class(key, score, layout, counts))(KEY, score))
  for label in range(num_classes):
    members = np.flatnonzero(labels == label)
    count = math.floor(0.3 * members.size + 1e-9)
    assert counts[label] == count
    best = members[np.argsort(-score[members])[:count]]
    np.testing.assert_array_equal(np.flatnonzero(keep & (labels == label)), np.sort(best))
  assert counts[num_classes] == 0


def test_top_by_class_breaks_ties_and_clips_counts():
  labels = np.repeat([0, 1, 2], [5, 4, 1])
  layout = ranking.class_layout(labels, 3)
  where = jnp.asarray([True] * 3 + [False] * 2 + [True] * 5)
  keep = ranking.top_by_class(KEY, jnp.zeros(10), layout, jnp.array([9, 2, 0]), where)
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
  keep = jax.jit(lambda key, count: ranking.uniform_subset(key, 10, count, where))(KEY, jnp.int32(count))
  assert int(keep.sum()) == min(count, 5)
  assert not jnp.any(keep & ~where)


def test_weighted_draws_have_the_probabilities_of_drawing_one_after_another():
  weight, draws = np.array([1.0, 2.0, 3.0, 6.0, 0.0]), 4000
  log_weight = jnp.asarray(np.log(np.maximum(weight, 1e-30)), jnp.float32).at[4].set(-jnp.inf)
  keep = np.asarray(weighted(keys(draws), log_weight, 2))
  assert not keep[:, 4].any()
  share = weight / weight.sum()
  expected = np.zeros(5)
  for first, second in itertools.permutations(range(4), 2):
    expected[[first, second]] += share[first] * share[second] / (1 - share[first])
  assert np.all(np.abs(keep.mean(axis=0) - expected)[:4] < 5 * np.sqrt(expected * (1 - expected) / draws)[:4])


def test_weight_zero_is_drawn_only_when_nothing_else_is_left():
  log_weight = jnp.array([-jnp.inf, -1e30, jnp.nan, 0.0])
  for count, certain in ((2, [1, 3]), (3, [1, 3])):
    keep = np.asarray(weighted(keys(50), log_weight, count))
    assert np.all(keep.sum(axis=1) == count) and keep[:, certain].all()


def test_guard_counts_what_is_not_finite():
  score, count = ranking.guard(jnp.array([1.0, math.nan, math.inf, -math.inf]))
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


def test_check_fraction_names_the_field():
  with pytest.raises(UserError, match=r"keep_fraction=1.5 must lie in \(0, 1\]"):
    ranking.check_fraction("keep_fraction", 1.5)


@pytest.mark.parametrize("bits", [2, 5, 12, 13])
def test_mixed_is_a_bijection(bits):
  mixed = words.mixed(KEY, jnp.arange(1 << bits, dtype=jnp.uint32), bits)
  np.testing.assert_array_equal(np.sort(mixed), np.arange(1 << bits))


def test_tie_breakers_are_distinct_and_uniform():
  tie = np.asarray(ranking.tie_breakers(KEY, 50_000))
  assert np.unique(tie).size == tie.size
  assert stats.chisquare(np.bincount(tie >> 24, minlength=256)).pvalue > 1e-4
  assert stats.chisquare(np.bincount(tie & 255, minlength=256)).pvalue > 1e-4


@pytest.mark.parametrize("n", [1, 2, 100, 4096, 4097, 8192, 10_001])
def test_shuffled_positions_hold_each_position_once(n):
  np.testing.assert_array_equal(np.sort(ranking.shuffled_positions(KEY, n)), np.arange(n))


@pytest.fixture(scope="module")
def shuffles():
  """600 permutations of 5000 positions, the least favourable size: barely too large for a sort."""
  return np.asarray(jax.jit(jax.vmap(lambda key: ranking.shuffled_positions(key, 5000)))(keys(600)))


def test_each_place_holds_each_position_equally_often(shuffles):
  for place in (0, 1, 2499, 4999):
    assert stats.chisquare(np.bincount(shuffles[:, place] // 250, minlength=20)).pvalue > 1e-4
  first = shuffles[:, :1500] // 100  # a subset of 30 %: positions of each hundred
  assert stats.chisquare(np.bincount(first.ravel(), minlength=50)).pvalue > 1e-4


def test_neighbours_are_unrelated(shuffles):
  now, after = shuffles[:, :-1], shuffles[:, 1:]
  pairs = (now // 313) * 16 + after // 313
  expected = np.outer(np.bincount(np.arange(5000) // 313), np.bincount(np.arange(5000) // 313)).ravel()
  assert (
    stats.chisquare(np.bincount(pairs.ravel(), minlength=256), expected * pairs.size / expected.sum()).pvalue > 1e-4
  )
  distance = (after - now) % 5000  # uniform over 1 ... 4999
  assert stats.chisquare(np.bincount((distance.ravel() - 1) * 20 // 4999, minlength=20)).pvalue > 1e-4
  rising = (after > now).sum(axis=1)  # of variance (n + 1) / 12 over random permutations
  assert abs(rising.mean() - 4999 / 2) < 5 * math.sqrt(5001 / 12 / 600)
  assert 0.75 < rising.var() / (5001 / 12) < 1.3


def test_permutations_of_different_keys_are_unrelated(shuffles):
  fixed_points = (shuffles[:-1] == shuffles[1:]).sum(axis=1)  # Poisson of mean 1
  assert abs(fixed_points.mean() - 1) < 5 / math.sqrt(599)
  assert fixed_points.max() < 10


@pytest.mark.parametrize("n", [200, 6000])
def test_visiting_order_filters_one_permutation(n):
  order = jax.jit(ranking.visiting_order)
  everything = np.asarray(order(KEY, jnp.ones(n, bool), None).indices)
  np.testing.assert_array_equal(everything, ranking.shuffled_positions(KEY, n))
  keep = np.random.default_rng(n).random(n) < 0.3
  weights = np.arange(n, dtype=np.float32) + 1
  plan = order(KEY, jnp.asarray(keep), jnp.asarray(weights))
  size = keep.sum()
  assert plan.size == size
  np.testing.assert_array_equal(plan.indices[:size], everything[keep[everything]])
  np.testing.assert_array_equal(plan.weights[:size], weights[np.asarray(plan.indices[:size])])
  assert np.all(plan.indices[size:] == -1) and not np.any(plan.weights[size:])


def test_plans_of_everything_and_of_nothing():
  plan = ranking.everything(KEY, 50)
  np.testing.assert_array_equal(plan.indices, ranking.shuffled_positions(jax.random.split(KEY)[1], 50))
  assert plan.weights.tolist() == [1.0] * 50 and int(plan.size) == 50 and not plan.thin
  empty = ranking.nothing(50)
  assert np.all(empty.indices == -1) and int(empty.size) == 0 and not empty.weights.any()
