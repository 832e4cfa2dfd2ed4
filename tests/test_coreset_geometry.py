"""Subsets from features, against stored reference outputs, plain numpy twins and planted clusters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax.coresets import d2, geometry, greedy
from dynsel_jax.options import UserError
from dynsel_jax.selectors import subsets
from tests.support import oracles

RNG = np.random.default_rng(0)
FEATURES = (RNG.normal(size=(60, 4)) + 5).astype(np.float32)


def _with_nan(features, row):
  features = features.copy()
  features[row, 1] = np.nan
  return features


# Moderate and prototypes.


def test_moderate_equals_the_reference():
  want = oracles.load("moderate")
  distance = geometry.distance_to_class_median(want["features"], want["labels"])
  np.testing.assert_allclose(distance, want["distance_to_class_median"], rtol=1e-6)
  for share in (20, 50, 70):
    kept = want[f"keep{share}_kept"]
    got = subsets.central(jax.random.key(share), jnp.asarray(distance), int(kept.sum()))
    np.testing.assert_array_equal(got, kept)


def test_a_class_of_one_sample_is_its_own_median_and_a_nan_moves_none():
  labels = np.zeros(60, np.int32)
  labels[7], labels[20:] = 2, 1
  want = geometry.distance_to_class_median(FEATURES, labels)
  assert want[7] == 0 and want[labels != 2].min() > 0
  got = geometry.distance_to_class_median(_with_nan(FEATURES, 30), labels)
  of_class_0 = labels == 0
  np.testing.assert_array_equal(got[of_class_0], want[of_class_0])
  assert np.isnan(got[30])
  rest = np.flatnonzero((labels == 1) & (np.arange(60) != 30))
  median = np.median(FEATURES[rest], axis=0)
  np.testing.assert_allclose(got[rest], np.linalg.norm(FEATURES[rest] - median, axis=1), rtol=1e-6)


def test_prototypes_are_found_and_the_distance_is_one_minus_the_cosine():
  centres = np.eye(4, dtype=np.float32)[:3]
  labels = np.repeat(np.arange(3), 20)
  features = centres[labels] + RNG.normal(size=(60, 4)).astype(np.float32) * 0.05
  features *= RNG.uniform(1, 9, size=(60, 1)).astype(np.float32)  # a cosine knows no length
  unit = features / np.linalg.norm(features, axis=1, keepdims=True)
  means = np.stack([unit[labels == c].mean(0) for c in range(3)])
  means /= np.linalg.norm(means, axis=1, keepdims=True)
  want = 1 - (unit * means[labels]).sum(1)
  got = geometry.distance_to_prototype(jax.random.key(1), features, 3)
  np.testing.assert_allclose(got, want, atol=1e-6)
  np.testing.assert_array_equal(got, geometry.distance_to_prototype(jax.random.key(1), features, 3))


def test_prototypes_of_equal_or_zero_rows_and_nan():
  equal = np.ones((6, 3), np.float32)
  equal[2] = 0
  got = geometry.distance_to_prototype(jax.random.key(0), _with_nan(equal, 4), 3)
  assert np.isnan(got[4]) and got[2] == 1
  np.testing.assert_allclose(np.delete(got, [2, 4]), 0, atol=1e-6)


@pytest.mark.parametrize("count", [0, 60])
def test_prototypes_outside_their_range_are_named(count):
  with pytest.raises(UserError, match=f"num_prototypes={count} "):
    geometry.distance_to_prototype(jax.random.key(0), _with_nan(FEATURES, 3), count)


# Herding and k-center.


def _herding_twin(features, count):
  mean, total, free, order = features.mean(0), np.zeros_like(features[0]), np.ones(len(features), bool), []
  for i in range(count):
    norms = np.linalg.norm((i + 1) * mean - total - features, axis=1)
    order.append(int(np.argmin(np.where(free, norms, np.inf))))
    free[order[-1]] = False
    total = total + features[order[-1]]
  return order


def _k_center_twin(features, count, first):
  order = [first]
  while len(order) < count:
    nearest = np.linalg.norm(features[:, None] - features[order][None], axis=2).min(1)
    nearest[order] = -1
    order.append(int(nearest.argmax()))
  return order


def test_herding_equals_the_reference_and_follows_the_mean():
  want = oracles.load("herding")
  features = want["features"]
  got = np.asarray(greedy.herding(jnp.asarray(features, jnp.float32), int(want["budget"])))
  np.testing.assert_array_equal(got, want["order"])
  running = np.cumsum(features[got], axis=0) / np.arange(1, len(got) + 1)[:, None]
  off = np.linalg.norm(features.mean(0) - running, axis=1)
  np.testing.assert_allclose(off, want["norm_of_mean_difference_after_each_pick"], atol=1e-6)
  assert off[-1] < want["random_subset_norm_of_mean_difference"] / 5


def test_k_center_equals_the_reference():
  want = oracles.load("kcenter")
  features, first = want["features"], int(want["first_index"])
  got = np.asarray(greedy.k_center(jnp.asarray(features), int(want["budget"]), first))
  np.testing.assert_array_equal(got, want["greedy_order"])
  distance = np.linalg.norm(features[:, None].astype(np.float64) - features[got][None], axis=2)
  radius = np.minimum.accumulate(distance, axis=1).max(0)
  np.testing.assert_allclose(radius, want["covering_radius_after_each_pick"], atol=1e-4)


def test_greedy_choices_equal_their_twins_far_from_the_origin():
  features = FEATURES.astype(np.float64) + 100  # where squares of uncentred float32 features would cancel
  np.testing.assert_array_equal(greedy.herding(jnp.asarray(features, jnp.float32), 60), _herding_twin(features, 60))
  np.testing.assert_array_equal(
    greedy.k_center(jnp.asarray(features, jnp.float32), 60, 9), _k_center_twin(features, 60, 9)
  )


PICKERS = {
  "herding": lambda features, count, where=None: greedy.herding(jnp.asarray(features), count, where),
  "k_center": lambda features, count, where=None: greedy.k_center(jnp.asarray(features), count, 3, where),
  "d2": lambda features, count, where=None: d2.d2(features, np.ones(len(features)), count, where),
}


@pytest.mark.parametrize("name", PICKERS)
def test_a_budget_larger_than_the_set_picks_each_once(name):
  order = np.asarray(PICKERS[name](FEATURES[:12], 15))
  assert sorted(order[:12]) == list(range(12)) and (order[12:] == -1).all()


@pytest.mark.parametrize("name", PICKERS)
def test_a_nan_and_what_is_masked_are_as_if_absent(name):
  where = np.ones(60, bool)
  where[[3, 8]] = False
  left = np.delete(np.arange(60), [3, 8, 14])
  pick = PICKERS[name]
  got = np.asarray(pick(_with_nan(FEATURES, 14), 60, jnp.asarray(where)))
  assert sorted(got[:57]) == left.tolist() and (got[57:] == -1).all()
  want = pick(FEATURES[left], 57)
  if name == "k_center":  # its first pick is masked
    want = greedy.k_center(jnp.asarray(FEATURES[left]), 57, 0)
  np.testing.assert_array_equal(got[:57], left[np.asarray(want)])


@pytest.mark.parametrize("name", PICKERS)
def test_equal_rows_and_a_single_one_are_picked(name):
  order = np.asarray(PICKERS[name](np.full((12, 4), 0.1, np.float32), 15))
  assert sorted(order[:12]) == list(range(12))
  assert PICKERS[name](FEATURES[:1], 2).tolist() == [0, -1]


def test_k_center_takes_one_of_each_cluster_before_a_second():
  labels = np.arange(60) % 6
  features = np.eye(6, dtype=np.float32)[labels] * 10 + RNG.normal(size=(60, 6)).astype(np.float32) * 0.1
  order = np.asarray(greedy.k_center(jnp.asarray(features), 6, 0))
  assert set(labels[order]) == set(range(6))


# D2.


@pytest.mark.parametrize("combine", ["sum", "product"])
def test_d2_equals_the_reference(combine):
  want = oracles.load("d2")
  features, importance, budget = want["features"], want["importance"], int(want["budget"])
  graph = d2.neighbor_graph(
    *d2.nearest_neighbors(jnp.asarray(features, jnp.float32), int(want["n_neighbors"]), block=50)
  )
  adjacency = np.zeros((120, 120), bool)
  adjacency[np.repeat(np.arange(120), np.diff(graph.start)), graph.neighbor] = True
  np.testing.assert_array_equal(adjacency, want["adjacency"])
  assert len(graph.neighbor) == adjacency.sum()
  score = d2.spread(graph, importance, combine=combine)
  np.testing.assert_allclose(score, want[f"score_after_message_passing_{combine}"], rtol=1e-5, atol=1e-5)
  for discount in ("weighted", "absolute"):
    order = d2.d2(features, importance, budget, gamma=float(want["gamma"]), combine=combine, discount=discount)
    np.testing.assert_array_equal(order, want[f"order_{combine}_{discount}"])


def _seven_nearest(features, where=np.ones(60, bool)):  # noqa: B008
  return [np.asarray(a) for a in d2.nearest_neighbors(jnp.asarray(features), 7, jnp.asarray(where), block=16)]


def test_nearest_neighbors_are_those_of_all_pairs():
  index, distance = _seven_nearest(FEATURES)
  pairs = np.linalg.norm(FEATURES[:, None].astype(np.float64) - FEATURES[None], axis=2)
  np.fill_diagonal(pairs, np.inf)
  np.testing.assert_allclose(np.sort(distance, axis=1), np.sort(pairs, axis=1)[:, :7], rtol=1e-5)
  np.testing.assert_allclose(distance, np.take_along_axis(pairs, index, axis=1), rtol=1e-5)


def test_a_duplicate_is_a_neighbour_at_distance_zero():
  features = FEATURES.copy()
  features[50] = features[10]
  index, distance = _seven_nearest(features)
  assert index[50, 0] == 10 and index[10, 0] == 50 and max(distance[10, 0], distance[50, 0]) < 1e-6


def test_samples_without_enough_neighbours_have_fewer_edges():
  where = np.isin(np.arange(60), [2, 5, 40])
  graph = d2.neighbor_graph(*_seven_nearest(FEATURES, where))
  np.testing.assert_array_equal(np.diff(graph.start), np.where(where, 2, 0))
  assert graph.neighbor.tolist() == [5, 40, 2, 40, 2, 5] and np.isfinite(graph.distance).all()


def test_d2_takes_one_of_two_twins_before_the_other():
  features = np.concatenate([FEATURES[:20], FEATURES[:20]])
  order = d2.d2(features, np.ones(40), 20, num_neighbors=1, discount="absolute")
  assert len(set(order % 20)) == 20  # a twin is the only neighbour, and loses all its score


def test_d2_leaves_out_what_has_no_importance():
  importance = np.ones(60)
  importance[[4, 9]] = np.nan, np.inf
  order = d2.d2(FEATURES, importance, 60)
  assert sorted(order[:58]) == np.delete(np.arange(60), [4, 9]).tolist() and (order[58:] == -1).all()


@pytest.mark.parametrize(
  ("options", "message"),
  [({"combine": "max"}, "combine='max'"), ({"discount": "x"}, "discount='x'"), ({"gamma": -1.0}, "gamma=-1.0 "),
   ({"num_neighbors": 0}, "num_neighbors=0 ")],
)  # fmt: skip
def test_wrong_options_are_named(options, message):
  with pytest.raises(UserError, match=message):
    d2.d2(FEATURES, np.ones(60), 5, **options)
