"""InfoBatch against the outputs of its authors' code, and against a numpy twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import infobatch
from tests.support import oracles, simulation
from tests.support.simulation import NUM_SAMPLES

prune = jax.jit(infobatch.prune, static_argnums=2, compiler_options=simulation.QUICK)


@pytest.mark.parametrize("case", ["r50", "r30", "tiny"])
def test_agrees_with_the_authors_code(case):
  reference = oracles.load("infobatch", case)
  losses, r = jnp.asarray(reference["losses"]), float(reference["prune_ratio"])
  keep, weights, info = prune(jax.random.key(0), losses, r)
  keep, low = np.asarray(keep), ~reference["is_at_or_above_mean"]
  assert int(info["below_mean"]) == reference["n_below_mean"]
  assert np.all(keep[~low])
  assert keep[low].sum() == reference["n_kept_below_mean"]
  assert keep.sum() == reference["n_kept_total"]
  np.testing.assert_allclose(info["mean_loss"], reference["mean_threshold"], rtol=1e-6)
  np.testing.assert_allclose(weights, reference["weight_when_kept"], rtol=1e-6)
  np.testing.assert_allclose(np.asarray(weights)[keep].sum(), reference["weight_sum_over_kept"], atol=1e-2)

  draws = jax.jit(jax.vmap(lambda key: infobatch.prune(key, losses, r)[0]))(jax.random.split(jax.random.key(1), 1000))
  frequency, chance = np.asarray(draws).mean(axis=0), reference["n_kept_below_mean"] / reference["n_below_mean"]
  deviation = np.sqrt(chance * (1 - chance) * (1 / 1000 + 1 / float(reference["n_draws"])))
  assert np.all(np.abs(frequency - reference["inclusion_frequency"])[low] < 5 * deviation)


def test_the_weighted_sum_of_losses_is_unbiased():
  losses = jnp.asarray(np.random.default_rng(0).lognormal(size=101), jnp.float32)
  keys = jax.random.split(jax.random.key(2), 2000)
  keep, weights, _ = jax.jit(jax.vmap(lambda key: infobatch.prune(key, losses, 0.4)))(keys)
  sums = np.asarray(jnp.sum(jnp.where(keep, weights * losses[None, :], 0.0), axis=1))
  num_low = int((losses < losses.mean()).sum())
  scale = np.floor(0.6 * num_low + 1e-9) / num_low / 0.6  # the count of low samples that stay is rounded down
  expected = float(jnp.where(losses < losses.mean(), losses * scale, losses).sum())
  assert abs(sums.mean() - expected) < 5 * sums.std() / np.sqrt(2000)


@pytest.mark.parametrize("value", [0.1, 1.0, np.log(10.0), 3.0])
def test_equal_losses_are_all_kept(value):
  keep, weights, _ = prune(jax.random.key(0), jnp.full(50_000, value, jnp.float32), 0.5)
  assert keep.all() and np.all(np.asarray(weights) == 1)


def test_a_non_finite_loss_counts_as_low_and_is_reported():
  losses = jnp.asarray([np.nan, 1.0, 2.0, 3.0, np.inf], jnp.float32)
  _, weights, info = prune(jax.random.key(0), losses, 0.5)
  assert (float(info["mean_loss"]), int(info["below_mean"]), int(info["non_finite"])) == (2.0, 3, 2)
  assert weights.tolist() == [2.0, 2.0, 1.0, 1.0, 2.0]


def test_a_run_prunes_between_the_first_pass_and_the_last_epochs():
  selector = selectors.create("infobatch", simulation.table(), 8, prune_probability=0.25, full_data_from=0.7)
  program = simulation.compiled(selector)
  history = simulation.run(program)
  last_loss = np.zeros(NUM_SAMPLES, np.float32)
  for epoch, outcome in enumerate(history):  # with T = 8 and delta = 0.7, t = 6, 7, 8 > 5.6 are full
    full = epoch == 0 or epoch + 1 > 0.7 * 8
    assert bool(outcome.info["full_data"]) == full
    assert simulation.is_full(outcome.selection, epoch) == full
    chosen = outcome.chosen
    if not full:
      low = last_loss < last_loss.mean()
      assert np.isin(np.flatnonzero(~low), chosen).all()
      assert low[chosen].sum() == int(0.75 * low.sum())
      expected = np.where(low[chosen], np.float32(1 / 0.75), 1)
      np.testing.assert_allclose(outcome.selection.weights[chosen], expected, rtol=1e-6)
    last_loss[chosen] = simulation.signals(chosen, epoch).loss  # the left out keep the loss that they had


@pytest.mark.parametrize("options", [{"prune_probability": 1.0}, {"prune_probability": -0.1}, {"full_data_from": 1.1}])
def test_values_out_of_range_are_named(options):
  with pytest.raises(UserError, match=f"{next(iter(options))}="):
    selectors.create("infobatch", simulation.table(), 8, **options)
