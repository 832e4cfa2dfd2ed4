"""From scores to subsets: counts, bands and strata, against numpy and stored reference outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsel_jax.selectors import subsets
from tests.support import oracles


def _key():
  return jax.random.key(0)  # the same one, anew for every use


CHOICES = {"top": subsets.top, "central": subsets.central, "strata": subsets.strata}
RNG = np.random.default_rng(0)
SCORE = RNG.permutation(40).astype(np.float32)  # no ties
GROUPS = np.repeat([0, 1, 2], [25, 1, 14]).astype(np.int32)  # a class of one sample


def _shares_twin(sizes, count):
  shares = np.zeros_like(sizes)
  for done, stratum in enumerate(np.argsort(sizes, kind="stable")):
    shares[stratum] = min(sizes[stratum], (count - shares.sum()) // (len(sizes) - done))
  return shares


def _strata_twin(score, count, cut):
  """Which of seven strata each sample is in, -1 for those cut, and how many each stratum keeps."""
  score = score.astype(np.float64)
  left = np.argsort(np.argsort(score)) >= cut
  lowest, highest = score[left].min(), score[left].max()
  width = (highest + 1e-4 * abs(highest) - lowest) / 7
  stratum = np.where(left, np.clip((score - lowest) // width, 0, 6), -1).astype(int)
  return stratum, _shares_twin(np.bincount(stratum[left], minlength=7), count)


def _strata(score, count, cut=0, groups=None):
  """Seven strata; always the same argument types, so that few programs are compiled."""
  counts, cut = jnp.asarray(count, jnp.int32), jnp.asarray(cut, jnp.int32)
  return np.asarray(subsets.strata(_key(), jnp.asarray(score, jnp.float32), counts, cut, groups, num_strata=7))


@pytest.mark.parametrize(("case", "cut"), [("budget180_cut00", 0), ("budget300_cut10", 60)])
def test_strata_equal_the_reference(case, cut):
  want = oracles.load("aum_ccs")
  total, stratum = int(want[f"{case}_requested_total"]), want[f"{case}_stratum_of_sample"]
  assert cut == want[f"{case}_n_hardest_removed"] and not want[f"{case}_stratum_budget_depends_on_tie_order"].any()
  keep = np.asarray(subsets.strata(_key(), jnp.asarray(want["aum_sum_over_epochs"]), total, cut))
  assert keep.sum() == want[f"{case}_total_selected"] and not keep[stratum < 0].any()
  np.testing.assert_array_equal(np.bincount(stratum[keep], minlength=50), want[f"{case}_stratum_budget"])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 45), cut=st.integers(0, 30))
def test_strata_fill_as_plain_numpy_does(seed, count, cut):
  score = np.random.default_rng(seed).normal(size=40).astype(np.float32)
  stratum, shares = _strata_twin(score, count, cut)
  keep = _strata(score, count, cut)
  assert keep.sum() == min(count, 40 - cut)
  np.testing.assert_array_equal(np.bincount(stratum[keep], minlength=7), shares)


@pytest.mark.parametrize("offset", [0.0, -100.0])
def test_the_highest_score_has_a_stratum_whatever_its_sign(offset):
  # The top is 0 or -100, and 1.0001 times that is no edge above it.
  np.testing.assert_array_equal(_strata(SCORE - 39 + offset, 40), np.ones(40, bool))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_strata_never_keep_what_is_not_finite_and_cut_it_first(value):
  score = np.where(np.arange(40) == 11, value, SCORE)
  np.testing.assert_array_equal(_strata(score, 40), np.arange(40) != 11)
  hardest = np.argsort(np.where(np.arange(40) == 11, -1, SCORE))[:3]
  np.testing.assert_array_equal(np.flatnonzero(~_strata(score, 40, 3)), np.sort(hardest))


def test_nothing_is_left_of_a_cut_larger_than_the_set():
  assert not _strata(SCORE, 10, 41).any()


def test_strata_by_group_have_their_own_range_and_cut():
  score = np.where(GROUPS == 0, SCORE, 1e4 + SCORE)
  counts, cut = np.array([8, 1, 5]), np.array([4, 0, 2])
  keep = _strata(score, counts, cut, GROUPS)
  for group in (0, 2):
    members = np.flatnonzero(np.equal(GROUPS, group))
    stratum, shares = _strata_twin(score[members], counts[group], cut[group])
    np.testing.assert_array_equal(np.bincount(stratum[keep[members]], minlength=7), shares)
  assert keep[25]


def test_top_and_central_by_group_are_those_of_each_group_alone():
  counts = np.array([6, 1, 5])
  top, central = (CHOICES[name](_key(), jnp.asarray(SCORE), jnp.asarray(counts), GROUPS) for name in ("top", "central"))
  for group, count in enumerate(counts):
    members = np.flatnonzero(np.equal(GROUPS, group))
    ascending = members[np.argsort(SCORE[members])]
    first = (len(members) - count) // 2
    assert set(np.flatnonzero(top)) & set(members) == set(ascending[len(members) - count :])
    assert set(np.flatnonzero(central)) & set(members) == set(ascending[first : first + count])


@pytest.mark.parametrize("name", CHOICES)
def test_ties_are_broken_by_the_key_and_counts_are_exact(name):
  choose = jax.vmap(lambda key: CHOICES[name](key, jnp.where(jnp.arange(20) < 9, 0.0, -0.0), 5))
  kept = np.asarray(choose(jax.random.split(_key(), 400)))
  np.testing.assert_array_equal(kept.sum(1), 5)
  assert np.abs(kept.mean(0) - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 400)  # within strata the draw is uniform


@pytest.mark.parametrize("name", CHOICES)
def test_a_budget_larger_than_the_set_keeps_it_all_and_none_keeps_nothing(name):
  choose = _strata if name == "strata" else lambda score, *rest: CHOICES[name](_key(), jnp.asarray(score), *rest)
  np.testing.assert_array_equal(choose(SCORE, 99), np.ones(40, bool))
  counts = np.array([99, 3, 0])
  by_group = _strata(SCORE, counts, counts * 0, GROUPS) if name == "strata" else choose(SCORE, counts, GROUPS)
  np.testing.assert_array_equal(by_group, GROUPS < 2)


@pytest.mark.parametrize("name", ["top", "central"])
def test_a_nan_is_kept_last(name):
  score = np.where(np.arange(40) == 11, np.nan, SCORE).astype(np.float32)
  ascending = np.argsort(score)[:39]  # numpy has the NaN last
  few = CHOICES[name](_key(), score, 8)
  np.testing.assert_array_equal(np.flatnonzero(few), np.sort(ascending[-8:] if name == "top" else ascending[15:23]))
  np.testing.assert_array_equal(CHOICES[name](_key(), score, 39), np.arange(40) != 11)
  assert CHOICES[name](_key(), score, 40)[11]
