"""Stale ES: its weights against ES's reference, its draw against enumeration, and what it leaves unseen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import stale_es
from dynsel_jax.selectors.wrappers.warmed_up import WarmedUpState
from tests.support import oracles, simulation
from tests.support.simulation import NUM_SAMPLES
from tests.test_evolved import assert_frequencies, chances

DRAWS = 4000
WEIGHTS = np.array([0.1, 0.4, 1.0, 1.5, 3.0, 0.7])

quick = functools.partial(jax.jit, compiler_options=simulation.QUICK)


def create(num_samples=NUM_SAMPLES, epochs=8, **options):
  options = {"anneal_first": 0.0, "anneal_last": 0.0, **options}
  return selectors.create("stale_es", simulation.table(num_samples), epochs, **options)


def remembered(weights):
  """The state after each sample was seen; the scores are in another order than the weights."""
  weights = jnp.asarray(weights, jnp.float32)
  state = stale_es.StaleState(weights[::-1], weights, jnp.zeros(weights.size, jnp.int32))
  return WarmedUpState(state, jnp.ones(weights.size, bool))


def test_scores_and_weights_agree_with_the_reference_of_es():
  data = oracles.load("evolved_sampling")
  beta1, beta2 = (float(beta) for beta in data["beta_pairs"][0])
  case = f"beta1_{round(100 * beta1):03d}_beta2_{round(100 * beta2):03d}"
  losses = data["losses_by_visit"]
  selector = create(losses.shape[1], beta1=beta1, beta2=beta2)
  state, observe = selector.init(jax.random.key(0)), quick(selector.observe)
  for epoch, loss in enumerate(losses):
    batch = simulation.signals(np.arange(losses.shape[1]), epoch, loss=loss)
    state = observe(observe(state, batch), batch)  # as after a restart
    np.testing.assert_allclose(state.inner.weight, data[f"{case}_weight"][epoch], rtol=1e-6)
    np.testing.assert_allclose(state.inner.score, data[f"{case}_score"][epoch], rtol=1e-6)


def test_epochs_are_drawn_by_the_weights():
  selector = create(6, keep_fraction=0.5)
  state = remembered(WEIGHTS)
  keep = np.asarray(simulation.over_keys(lambda key: selector.select(key, state, jnp.int32(1))[0].keep, DRAWS))
  assert np.all(keep.sum(axis=1) == 3)
  assert_frequencies(keep, chances(WEIGHTS, 3))


def test_inverse_probabilities_undo_the_preference():
  selector = create(6, keep_fraction=0.5, weights="inverse_probability")
  assert selector.loss_normalization == "batch_size"
  state = remembered(WEIGHTS)
  selections = simulation.over_keys(lambda key: selector.select(key, state, jnp.int32(1))[0], DRAWS)
  weights = np.where(selections.keep, selections.weights, 0.0)
  assert np.ptp((weights > 0).mean(axis=0)) > 0.2  # the draw prefers some
  assert np.all(np.abs(weights.mean(axis=0) - 3 / 6) < 5 * weights.std(axis=0) / np.sqrt(DRAWS))


def test_only_the_visited_change_and_everything_is_visited_first():
  program = simulation.compiled(create())
  first = simulation.run_epoch(program, program.init(jax.random.key(3)), 0)
  assert simulation.is_full(first.selection, 0)
  second = simulation.run_epoch(program, first.state, 1)
  assert second.chosen.size == 13 and not second.thinned  # floor(53 / 4), on whole batches
  changed = np.asarray(second.state.inner.weight) != np.asarray(first.state.inner.weight)
  np.testing.assert_array_equal(changed, second.selection.keep)
  third = simulation.run_epoch(program, second.state, 2)
  assert float(third.info["mean_age"]) == pytest.approx((13 * 1 + 40 * 2) / 53)


def test_a_loss_that_is_not_finite_is_drawn_last_reported_and_then_forgotten():
  selector = create(6, keep_fraction=0.7)
  observe = quick(selector.observe)
  losses = np.array([1.0, np.nan, 2.0, np.inf, 0.5, 0.1])
  state = observe(selector.init(jax.random.key(0)), simulation.signals(np.arange(6), 0, loss=losses))
  selections, info = simulation.over_keys(lambda key: selector.select(key, state, jnp.int32(1)), 20)
  assert np.all(np.asarray(selections.keep) == [True, False, True, False, True, True])
  assert np.all(np.asarray(info["non_finite"]) == 2)
  state = observe(state, simulation.signals(np.arange(6), 1, loss=1.0))
  np.testing.assert_allclose(np.asarray(state.inner.weight)[[1, 3]], 0.2 / 6 + 0.8, rtol=1e-6)


def test_annealed_epochs_take_everything():
  selector = selectors.create("stale_es", simulation.table(), 30)  # 5 % is 1.5 epochs
  state = remembered(np.ones(NUM_SAMPLES))
  select = quick(lambda: jax.lax.map(lambda e: selector.select(jax.random.key(1), state, e)[0], jnp.arange(30)))
  whole = np.isin(np.arange(30), [0, 28, 29])
  np.testing.assert_array_equal(select().keep.sum(axis=1), np.where(whole, NUM_SAMPLES, 13))


@pytest.mark.parametrize(
  "options",
  [
    {"beta1": 1.5},
    {"beta2": -0.1},
    {"keep_fraction": 0.0},
    {"weights": "inverse"},
    {"anneal_first": -0.1},
    {"anneal_last": 1.1},
  ],
)
def test_values_out_of_range_are_named(options):
  with pytest.raises(UserError, match=f"{next(iter(options))}="):
    create(**options)
