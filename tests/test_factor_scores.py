"""What is counted from codes, and the scores, against reference outputs and a dense twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsel_jax.factors import scores, statistics
from dynsel_jax.factors.sae import Codes
from dynsel_jax.options import UserError
from tests.support import oracles


def codes_of(active, k, rng):
  """Writes a bool array `[N, L]` as codes: inactive latents fill the row with values of 0 and below."""
  indices, values = [], []
  for row in active:
    on, off = np.flatnonzero(row), np.flatnonzero(~row)
    index = np.concatenate([on, rng.permutation(off)])[:k]
    value = np.where(row[index], rng.uniform(0.1, 2, k), -rng.integers(0, 2, k))
    shuffled = rng.permutation(k)
    indices.append(index[shuffled])
    values.append(value[shuffled])
  return Codes(jnp.asarray(indices, jnp.int32), jnp.asarray(values, jnp.float32))


@pytest.fixture
def paper():
  ref = oracles.load("rrd")
  codes = codes_of(ref["active"], int(ref["active"].sum(axis=1).max()) + 2, np.random.default_rng(0))
  labels = jnp.asarray(ref["labels"], jnp.int32)
  return ref, codes, labels, statistics.factor_statistics(codes, labels, num_classes=5, num_latents=96)


def test_counts_and_common_set_match_the_reference(paper):
  ref, _, _, counted = paper
  np.testing.assert_array_equal(counted.firing_frequency, ref["firing_frequency"])
  np.testing.assert_array_equal(counted.class_spread, ref["class_spread"])
  common = statistics.common_set(counted.firing_frequency, float(ref["top_k"]) / 96)
  np.testing.assert_array_equal(np.flatnonzero(common), ref["frequent_unit_indices_sorted"])


def test_scores_match_the_reference(paper):
  ref, codes, labels, counted = paper
  fraction = float(ref["top_k"]) / 96
  raw = scores.representativeness(codes, counted, common_fraction=fraction)
  np.testing.assert_allclose(raw, ref["representativeness_raw"], rtol=1e-5)
  np.testing.assert_allclose(scores.rarity(codes, counted), ref["diversity_raw"], rtol=1e-5)
  columns = scores.columns(codes, labels, 5, num_latents=96, common_fraction=fraction)
  np.testing.assert_allclose(columns["representativeness"], ref["representativeness_minmax"], atol=1e-5)
  np.testing.assert_allclose(columns["rarity"], ref["diversity_minmax"], atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31), density=st.floats(0, 0.5))
def test_counts_are_those_of_a_dense_array(seed, density):
  rng = np.random.default_rng(seed)
  active, labels = rng.random((37, 16)) < density, rng.integers(0, 4, 37)
  codes = codes_of(active, 16, rng)
  counted = statistics.factor_statistics(codes, jnp.asarray(labels, jnp.int32), num_classes=4, num_latents=16)
  np.testing.assert_array_equal(counted.firing_frequency, active.sum(axis=0))
  spread = [len(set(labels[active[:, latent]])) for latent in range(16)]
  np.testing.assert_array_equal(counted.class_spread, spread)


def test_samples_are_counted_once_though_chunks_overlap(monkeypatch):
  monkeypatch.setattr(statistics, "_CHUNK", 10)
  rng = np.random.default_rng(1)
  active, labels = rng.random((23, 9)) < 0.3, jnp.asarray(rng.integers(0, 2, 23), jnp.int32)
  counted = statistics.factor_statistics(codes_of(active, 9, rng), labels, num_classes=2, num_latents=9)
  np.testing.assert_array_equal(counted.firing_frequency, active.sum(axis=0))


def test_common_set_takes_the_lower_index_of_equals():
  common = statistics.common_set(jnp.array([3, 5, 3, 3, 0]), 0.6)
  np.testing.assert_array_equal(common, [True, True, True, False, False])
  assert statistics.common_set(jnp.array([1, 2]), 0.1).sum() == 1  # at least one
  assert statistics.common_set(jnp.arange(10), 0.3).sum() == 3  # 0.3 * 10 is below 3 in floats
  with pytest.raises(UserError, match="common_fraction=0"):
    statistics.common_set(jnp.arange(3), 0.0)


def test_scores_of_another_data_set_use_the_statistics_given():
  codes = Codes(jnp.array([[0, 1], [2, 1]], jnp.int32), jnp.array([[1.0, 1.0], [1.0, -1.0]]))
  given_statistics = statistics.FactorStatistics(jnp.array([4, 2, 0], jnp.int32), jnp.array([2, 1, 0], jnp.int32))
  np.testing.assert_allclose(scores.rarity(codes, given_statistics), [1 / 4 + 1 / 2, 1])
  labels = jnp.zeros(2, jnp.int32)
  columns = scores.columns(codes, labels, 1, num_latents=3, common_fraction=0.4, statistics=given_statistics)
  np.testing.assert_allclose(columns["representativeness"], [1, 0])  # only latent 0 is common
  np.testing.assert_allclose(columns["rarity"], [0, 1])


def test_constant_score_maps_to_zero_and_others_to_the_unit_interval():
  np.testing.assert_array_equal(scores.min_max(jnp.full(4, 2.5)), np.zeros(4))
  np.testing.assert_allclose(scores.min_max(jnp.array([-1.0, 3.0, 0.0])), [0, 1, 0.25])


def test_sample_score_reads_one_sample():
  sample = Codes(jnp.array([2, 0, 1], jnp.int32), jnp.array([0.5, -1.0, 0.0]))
  assert jax.jit(scores.sample_score)(sample, jnp.array([10.0, 20.0, 30.0])) == 30
