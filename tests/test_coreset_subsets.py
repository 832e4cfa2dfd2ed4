"""From scores to subsets: counts, bands and strata, against numpy and stored reference outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsel_jax.coresets import subsets

KEY = jax.random.key(0)
CHOICES = {"top": subsets.top, "central": subsets.central, "strata": subsets.strata}
RNG = np.random.default_rng(0)
SCORE = RNG.permutation(40).astype(np.float32)  # no ties
GROUPS = np.repeat([0, 1, 2], [25, 1, 14]).astype(np.int32)  # a class of one sample


def _reference():
  path = ROOT.parent / "shared" / "oracles" / "aum_ccs.npz"
  if not path.exists():
    pytest.skip(f"no reference outputs at {path}")
  return np.load(path)


def _shares_twin(sizes, count):
  shares = np.zeros_like(sizes)
  for done, stratum in enumerate(np.argsort(sizes, kind="stable")):
    shares[stratum] = min(sizes[stratum], (count - shares.sum()) // (len(sizes) - done))
  return shares


def _strata_twin(score, count, cut, num_strata):
  """Which stratum each sample is in, -1 for those cut, and how many each stratum keeps."""
  left = np.argsort(np.argsort(score)) >= cut
  lowest, highest = score[left].min(), score[left].max()
  width = (highest + 1e-4 * abs(highest) - lowest) / num_strata
  stratum = np.where(left, np.clip((score - lowest) // width, 0, num_strata - 1), -1).astype(int)
  return stratum, _shares_twin(np.bincount(stratum[left], minlength=num_strata), count)


@pytest.mark.parametrize(("case", "cut"), [("budget180_cut00", 0), ("budget300_cut10", 60)])
def test_strata_equal_the_reference(case, cut):
  want = _reference()
  total, stratum = int(want[f"{case}_requested_total"]), want[f"{case}_stratum_of_sample"]
  assert cut == want[f"{case}_n_hardest_removed"] and not want[f"{case}_stratum_budget_depends_on_tie_order"].any()
  keep = np.asarray(subsets.strata(KEY, jnp.asarray(want["aum_sum_over_epochs"]), total, cut))
  assert keep.sum() == want[f"{case}_total_selected"] and not keep[stratum < 0].any()
  np.testing.assert_array_equal(np.bincount(stratum[keep], minlength=50), want[f"{case}_stratum_budget"])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 45), cut=st.integers(0, 30))
def test_strata_fill_as_plain_numpy_does(seed, count, cut):
  score = np.random.default_rng(seed).normal(size=40).astype(np.float32)
  stratum, shares = _strata_twin(score.astype(np.float64), count, cut, 7)
  keep = np.asarray(subsets.strata(jax.random.key(seed), jnp.asarray(score), jnp.int32(count), cut, num_strata=7))
  assert keep.sum() == min(count, 40 - cut)
  np.testing.assert_array_equal(np.bincount(stratum[keep], minlength=7), shares)


def test_strata_draw_uniformly_within_a_stratum():
  score = jnp.concatenate([jnp.zeros(8), jnp.linspace(0.9, 1.0, 30)])
  draws = jax.vmap(lambda key: subsets.strata(key, score, 8, num_strata=2))(jax.random.split(KEY, 2000))
  np.testing.assert_array_equal(np.asarray(draws)[:, :8].sum(1), 4)
  deviations = (np.asarray(draws)[:, :8].mean(0) - 0.5) / np.sqrt(0.25 / 2000)
  assert np.abs(deviations).max() < 5


@pytest.mark.parametrize("offset", [0.0, -100.0])
def test_the_highest_score_has_a_stratum_whatever_its_sign(offset):
  score = jnp.asarray(SCORE - 39 + offset)  # 0 and -100 at the top, where an edge at 1.0001 times it is no edge above
  np.testing.assert_array_equal(subsets.strata(KEY, score, 40, num_strata=5), np.ones(40, bool))


def test_top_and_central_by_group_are_those_of_each_group_alone():
  counts = np.array([6, 1, 5])
  top, central = (
    CHOICES[c](KEY, jnp.asarray(SCORE), jnp.asarray(counts), jnp.asarray(GROUPS)) for c in ("top", "central")
  )
  for group, count in enumerate(counts):
    members = np.flatnonzero(np.equal(GROUPS, group))
    ascending = members[np.argsort(SCORE[members])]
    first = (len(members) - count) // 2
    assert set(np.flatnonzero(top)) & set(members) == set(ascending[len(members) - count :])
    assert set(np.flatnonzero(central)) & set(members) == set(ascending[first : first + count])


def test_strata_by_group_have_their_own_range_and_cut():
  score = np.where(GROUPS == 0, SCORE, 1e4 + SCORE).astype(np.float32)
  counts, cut = np.array([8, 1, 5]), np.array([4, 0, 2])
  keep = np.asarray(
    subsets.strata(KEY, jnp.asarray(score), jnp.asarray(counts), jnp.asarray(cut), jnp.asarray(GROUPS), num_strata=4)
  )
  for group in (0, 2):
    members = np.equal(GROUPS, group)
    stratum, shares = _strata_twin(score[members].astype(np.float64), counts[group], cut[group], 4)
    np.testing.assert_array_equal(np.bincount(stratum[keep[members]], minlength=4), shares)
  assert keep[25]


@pytest.mark.parametrize("name", CHOICES)
def test_exactly_the_count_is_kept_of_equal_scores_and_ties_are_no_matter_of_position(name):
  choose = jax.vmap(lambda key: CHOICES[name](key, jnp.zeros(20), 5))
  kept = np.asarray(choose(jax.random.split(KEY, 400)))
  np.testing.assert_array_equal(kept.sum(1), 5)
  assert np.abs(kept.mean(0) - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 400)


def test_zero_and_negative_zero_tie():
  score = jnp.where(jnp.arange(10) < 5, 0.0, -0.0)
  kept = jax.vmap(lambda key: subsets.top(key, score, 5))(jax.random.split(KEY, 20))
  assert np.asarray(kept)[:, 5:].any()


@pytest.mark.parametrize("name", CHOICES)
def test_a_budget_larger_than_the_set_keeps_it_all_and_none_keeps_nothing(name):
  choose = CHOICES[name]
  counts, groups = jnp.asarray([99, 3, 0]), jnp.asarray(GROUPS)
  np.testing.assert_array_equal(choose(KEY, jnp.asarray(SCORE), 99), np.ones(40, bool))
  np.testing.assert_array_equal(choose(KEY, jnp.asarray(SCORE), counts, groups=groups), GROUPS < 2)


@pytest.mark.parametrize("name", ["top", "central"])
def test_a_nan_is_kept_last(name):
  score = jnp.asarray(SCORE).at[11].set(jnp.nan)
  want = CHOICES[name](KEY, jnp.delete(score, 11), 39)
  assert want.all()
  got = np.asarray(CHOICES[name](KEY, score, 39))
  np.testing.assert_array_equal(got, np.arange(40) != 11)
  few = np.asarray(CHOICES[name](KEY, score, 7))
  np.testing.assert_array_equal(np.delete(few, 11), CHOICES[name](KEY, jnp.delete(score, 11), 7))
  assert not few[11] and np.asarray(CHOICES[name](KEY, score, 40))[11]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_strata_never_keep_what_is_not_finite_and_cut_it_first(value):
  score = jnp.asarray(SCORE).at[11].set(value)
  np.testing.assert_array_equal(subsets.strata(KEY, score, 40), np.arange(40) != 11)
  hardest = np.argsort(np.where(np.arange(40) == 11, -1, SCORE))[:3]
  np.testing.assert_array_equal(np.flatnonzero(~subsets.strata(KEY, score, 40, 3)), np.sort(hardest))


def test_nothing_is_left_of_a_cut_larger_than_the_set():
  assert not subsets.strata(KEY, jnp.asarray(SCORE), 10, 40).any()


def test_members_ignores_picks_that_were_not_made():
  np.testing.assert_array_equal(subsets.members(jnp.asarray([4, -1, 0]), 5), [True, False, False, False, True])
