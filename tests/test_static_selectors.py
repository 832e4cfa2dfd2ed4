"""Selectors of a fixed subset: which samples they keep, against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dynsel_jax import selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import dual
from tests.support import simulation

N = simulation.NUM_SAMPLES
SCORE = np.random.default_rng(1).random(N).astype(np.float32)  # no ties
TABLE = simulation.table()._replace(columns={"score": jnp.asarray(SCORE)})
LABELS = np.asarray(TABLE.labels)


def kept(name, table=TABLE, seed=3, **options):
  """The samples of the first epoch, in ascending order; a later epoch has the same."""
  selector = selectors.create(name, table, 8, **options)
  state = selector.init(jax.random.key(seed))
  selections = [selector.select(simulation.select_key(epoch), state, jnp.int32(epoch))[0] for epoch in (0, 5)]
  first, later = (np.flatnonzero(selection.keep) for selection in selections)
  np.testing.assert_array_equal(first, later)
  return first


def table_with(score):
  return TABLE._replace(columns={"score": jnp.asarray(score, jnp.float32)})


@pytest.mark.parametrize("largest", [True, False])
def test_top_keeps_one_end(largest):
  ascending = np.argsort(SCORE)
  want = ascending[-15:] if largest else ascending[:15]  # floor(0.3 * 53)
  np.testing.assert_array_equal(kept("top", column="score", largest=largest), np.sort(want))


def test_top_by_class_keeps_the_fraction_of_each():
  found = kept("top", column="score", keep_fraction=0.5, class_balanced=True)
  for label in range(simulation.NUM_CLASSES):
    members = np.flatnonzero(label == LABELS)
    count = max(1, len(members) // 2)
    assert set(found) & set(members) == set(members[np.argsort(SCORE[members])][-count:])


@pytest.mark.parametrize("largest", [True, False])
def test_top_keeps_a_nan_last(largest):
  score = np.where(np.arange(N) == 11, np.nan, SCORE)
  assert 11 not in kept("top", table_with(score), column="score", largest=largest, keep_fraction=52.5 / 53)


def test_central_keeps_the_middle():
  ascending = np.argsort(SCORE)
  np.testing.assert_array_equal(kept("central", column="score"), np.sort(ascending[19:34]))  # 53 = 19 + 15 + 19


@pytest.mark.parametrize("largest_is_hardest", [True, False])
def test_strata_leave_out_the_hardest_and_fill_the_smallest_stratum_first(largest_is_hardest):
  easiness = -SCORE if largest_is_hardest else SCORE
  found = kept("strata", column="score", hard_fraction=0.2, num_strata=4, largest_is_hardest=largest_is_hardest)
  left = np.sort(np.argsort(easiness)[10:])  # floor(0.2 * 53) are cut
  assert len(found) == 15
  assert set(found) <= set(left)
  lowest, highest = easiness[left].min(), easiness[left].max()
  stratum = ((easiness[left] - lowest) / (highest + 1e-4 * abs(highest) - lowest) * 4).astype(int)
  sizes, rest = np.bincount(stratum, minlength=4), 15
  for done, which in enumerate(np.argsort(sizes, kind="stable")):
    count = min(sizes[which], rest // (4 - done))
    assert np.isin(left[stratum == which], found).sum() == count
    rest -= count


def test_strata_cut_no_more_than_the_fraction_kept_allows():
  assert len(kept("strata", column="score", keep_fraction=0.9, hard_fraction=0.5)) == 47


def test_duals_weights_equal_scipys():
  rng = np.random.default_rng(0)
  score, probability = rng.random(40).astype(np.float32), rng.uniform(0.05, 0.95, 40).astype(np.float32)
  b = 15 * (1 - probability[np.argsort(score)[-10:]].mean()) * (1 - 0.7**4)
  want = scipy.stats.beta.logpdf(probability, 16 - b, b) + np.log(score)
  got = dual.log_weights(jnp.asarray(score), jnp.asarray(probability), 0.3, 4.0)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_dual_moves_to_the_easy_as_less_is_kept():
  probability = jnp.linspace(0.02, 0.98, 40)
  score = 1.0 - 0.5 * probability
  means = []
  for fraction in (0.1, 0.5, 0.9):
    weights = jnp.exp(dual.log_weights(score, probability, fraction, 4.0))
    means.append(float(jnp.sum(weights * probability) / jnp.sum(weights)))
  assert means[0] > means[1] > means[2]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_dual_draws_no_sample_without_a_weight(value):
  score = np.where(np.arange(N) < 20, value, 0.5)
  columns = {"dual": jnp.asarray(score, jnp.float32), "label_probability": jnp.full(N, 0.5)}
  found = kept("dual", TABLE._replace(columns=columns), keep_fraction=0.5)
  assert len(found) == 26
  assert found.min() >= 20


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("top", {"largest": True}),
    ("top", {"largest": False}),
    ("top", {"class_balanced": True}),
    ("central", {}),
    ("strata", {"hard_fraction": 0.0}),
    ("strata", {"hard_fraction": 0.0, "largest_is_hardest": True}),
    ("dual", {"column": "dual"}),
    ("dual", {"column": "label_probability"}),
  ],
)
def test_what_is_not_finite_is_kept_last_and_counted(name, options):
  planted = np.flatnonzero(LABELS == 0)[:6]
  score = SCORE.copy()
  score[planted] = [np.inf, -np.inf, np.nan] * 2
  columns = {column: SCORE for column in ("dual", "label_probability")} if name == "dual" else {}
  table = TABLE._replace(columns={**columns, options.get("column", "score"): score})
  options = {"keep_fraction": 0.5} if name == "dual" else {"keep_fraction": 0.5, "column": "score", **options}
  selector = selectors.create(name, table, 8, **options)
  selection, info = selector.select(jax.random.key(1), selector.init(jax.random.key(0)), jnp.int32(0))
  found = np.flatnonzero(selection.keep)
  assert len(found) >= 24
  assert not set(found) & set(planted)
  assert int(info["non_finite"]) == 6


def test_dual_begins_at_the_highest_scores_whose_probability_is_known():
  rng = np.random.default_rng(0)
  score, probability = rng.random(40).astype(np.float32), rng.uniform(0.05, 0.95, 40).astype(np.float32)
  wanted = np.asarray(dual.log_weights(jnp.asarray(score[1:]), jnp.asarray(probability[1:]), 0.3, 4.0))
  score[0], probability[0] = 2.0, np.nan
  found = np.asarray(dual.log_weights(jnp.asarray(score), jnp.asarray(probability), 0.3, 4.0))
  assert found[0] == -np.inf
  np.testing.assert_allclose(found[1:], wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["top", "central", "strata"])
def test_a_column_that_is_not_there_is_named_with_those_that_are(name):
  with pytest.raises(UserError, match=rf"selector={name}: selector.column='eln' is not a column .* it has: score \("):
    selectors.create(name, table_with(SCORE), 8, column="eln")


@pytest.mark.parametrize(
  ("name", "options", "line"),
  [
    ("top", {"keep_fraction": 0.0}, "keep_fraction=0.0"),
    ("strata", {"hard_fraction": 1.5}, "hard_fraction=1.5"),
    ("strata", {"num_strata": 0}, "num_strata=0"),
    ("dual", {"difficulty": 0.0}, "difficulty=0.0"),
  ],
)
def test_wrong_values_are_named(name, options, line):
  with pytest.raises(UserError, match=line):
    selectors.create(name, TABLE, 8, **options)


def test_what_a_method_reads():
  assert selectors.columns("top") == ("el2n",)
  assert selectors.columns("dual") == ("dual", "label_probability")
  assert selectors.columns("random") == ()
