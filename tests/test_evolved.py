"""ES and ESWP: their averages against the reference, their draws against enumeration, and who is remembered."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import evolved, thinning
from dynsel_jax.selectors.wrappers.warmed_up import WarmedUpState
from tests.support import oracles, simulation
from tests.support.simulation import NUM_SAMPLES

DRAWS = 4000
LOSSES = np.array([0.1, 0.4, 1.0, 1.5, 3.0, 0.7])
SCORES = np.array([4.0, 0.2, 2.0, 0.1, 0.5, 0.7])  # in another order than the losses


def create(name="es", num_samples=NUM_SAMPLES, epochs=8, **options):
  options = {"anneal_first": 0.0, "anneal_last": 0.0, **options}
  return selectors.create(name, simulation.table(num_samples), epochs, **options)


def remembered(scores):
  return evolved.EvolvedState(jnp.asarray(scores, jnp.float32), jnp.zeros(len(scores), jnp.int32))


def all_seen(scores):
  """The state of ESWP once every sample has been seen."""
  return WarmedUpState(remembered(scores), jnp.ones(len(scores), bool))


quick = functools.partial(jax.jit, compiler_options=simulation.QUICK)


def chances(weights, count):
  """The probability of each sample to be among `count` drawn in turn without replacement, by enumeration."""
  total = np.zeros(len(weights))
  for order in itertools.permutations(range(len(weights)), count):
    left = weights.sum() - np.concatenate([[0], np.cumsum(weights[list(order)])[:-1]])
    total[list(order)] += np.prod(weights[list(order)] / left)
  return total


def assert_frequencies(chosen, expected):
  deviation = np.sqrt(expected * (1 - expected) / len(chosen))
  assert np.all(np.abs(np.asarray(chosen).mean(axis=0) - expected) < 5 * deviation)


@pytest.mark.parametrize("pair", range(4))
def test_scores_and_weights_agree_with_the_reference(pair):
  data = oracles.load("evolved_sampling")
  beta1, beta2 = (float(beta) for beta in data["beta_pairs"][pair])
  case = f"beta1_{round(100 * beta1):03d}_beta2_{round(100 * beta2):03d}"
  losses = data["losses_by_visit"]
  selector = create(num_samples=losses.shape[1], beta1=beta1, beta2=beta2)
  state = selector.init(jax.random.key(0))
  observe = quick(selector.observe)
  for epoch, loss in enumerate(losses):
    weight, _ = evolved.evolve(state.score, jnp.asarray(loss, jnp.float32), float(data["initial_score"]), beta1, beta2)
    np.testing.assert_allclose(weight, data[f"{case}_weight"][epoch], rtol=1e-6)
    probability = jax.nn.softmax(thinning.log_weight(weight))
    np.testing.assert_allclose(probability, data[f"{case}_sampling_probability_within_visited"][epoch], rtol=1e-5)
    batch = simulation.signals(np.arange(losses.shape[1]), epoch, trained=False, loss=loss)
    state = observe(observe(state, batch), batch)  # as after a restart
    np.testing.assert_allclose(state.score, data[f"{case}_score"][epoch], rtol=1e-6)


def test_a_rising_loss_weighs_more():
  rng = np.random.default_rng(0)
  score, loss = jnp.asarray(rng.exponential(size=(2, 100)), jnp.float32)
  weight, new = evolved.evolve(score, loss, 0.01, 0.2, 0.9)
  np.testing.assert_allclose(weight, new + 0.7 * (loss - score), rtol=1e-5)
  weight, new = evolved.evolve(score, loss, 0.01, 0.0, 0.0)
  np.testing.assert_array_equal(weight, loss)
  np.testing.assert_array_equal(new, loss)


def test_rows_are_drawn_by_the_loss_and_the_score_before_it():
  selector = create(num_samples=6, beta1=0.6, beta2=0.1, batch_fraction=0.5)
  batch = simulation.signals(np.arange(6), loss=LOSSES)
  positions, weights = simulation.over_keys(lambda key: selector.thin(key, remembered(SCORES), batch), DRAWS)
  positions = np.asarray(positions)
  assert np.all(np.diff(positions) > 0) and np.all(np.asarray(weights) == 1)
  chosen = (positions[:, :, None] == np.arange(6)).any(axis=1)
  assert_frequencies(chosen, chances(0.6 * SCORES + 0.4 * LOSSES, 3))


def test_without_a_past_the_draw_is_that_of_the_losses():
  es = create(num_samples=6, beta1=0.0, beta2=0.0, batch_fraction=0.5)
  loss = selectors.create("loss", simulation.table(6), 8, batch_fraction=0.5)
  batch = simulation.signals(np.arange(6), loss=LOSSES)
  ours = simulation.over_keys(lambda key: es.thin(key, remembered(SCORES), batch), 100)
  theirs = simulation.over_keys(lambda key: loss.thin(key, (), batch), 100)
  simulation.assert_same(ours, theirs)


def test_epochs_are_drawn_by_the_scores():
  selector = create("eswp", num_samples=6, keep_fraction=0.5)
  keep = simulation.over_keys(lambda key: selector.select(key, all_seen(SCORES), jnp.int32(0))[0].keep, DRAWS)
  chosen = np.asarray(keep)
  assert np.all(chosen.sum(axis=1) == 3)
  assert_frequencies(chosen, chances(SCORES, 3))


def test_inverse_probabilities_make_both_draws_unbiased():
  selector = create("eswp", num_samples=6, keep_fraction=0.5, batch_fraction=0.5, weights="inverse_probability")
  state = all_seen(SCORES)
  padded = simulation.signals([0, 1, 2, 3, 4, 5, -1, -1], loss=[*LOSSES, 9.0, 9.0])

  def of_epoch(key):
    selection, _ = selector.select(key, state, jnp.int32(0))
    return jnp.where(selection.keep, selection.weights, 0.0)

  def of_batch(key):
    positions, weights = selector.thin(key, state, padded)
    return jnp.zeros(6).at[positions].set(weights, mode="drop")

  for draw, expected in ((of_epoch, 3 / 6), (of_batch, 4 / 6)):
    weights = np.asarray(simulation.over_keys(draw, DRAWS))
    assert np.all((weights > 0).sum(axis=1) == round(expected * 6))
    assert np.ptp((weights > 0).mean(axis=0)) > 0.2  # the draw prefers some, the weights undo it
    assert np.all(np.abs(weights.mean(axis=0) - expected) < 5 * weights.std(axis=0) / np.sqrt(DRAWS))


def test_every_member_of_a_meta_batch_is_remembered():
  program = simulation.compiled(create(batch_fraction=0.25))
  first = simulation.run_epoch(program, program.init(jax.random.key(3)), 0)
  trained = sum(int((weights > 0).sum()) for _, _, weights in first.thinned)
  assert trained == 7 * 2 and first.chosen.size == NUM_SAMPLES
  loss = np.asarray(simulation.signals(np.arange(NUM_SAMPLES), 0).loss)
  np.testing.assert_allclose(first.state.score, 0.9 / NUM_SAMPLES + 0.1 * loss, rtol=1e-5)
  assert np.all(np.asarray(first.state.last_epoch) == 0)


def test_the_left_out_keep_their_scores():
  program = simulation.compiled(create("eswp"))
  state = simulation.run_epoch(program, program.init(jax.random.key(3)), 0).state
  second = simulation.run_epoch(program, state, 1)
  chosen = np.asarray(second.selection.keep)
  assert chosen.sum() == second.chosen.size == 42  # floor(0.8 * 53)
  changed = np.asarray(second.state.inner.score) != np.asarray(state.inner.score)
  np.testing.assert_array_equal(changed, chosen)


@pytest.mark.parametrize("name", ["es", "eswp"])
def test_annealing_at_a_fraction_of_an_epoch(name):
  selector = selectors.create(name, simulation.table(), 30)  # 5 % is 1.5 epochs
  state = (remembered if name == "es" else all_seen)(np.ones(NUM_SAMPLES))
  epochs = jnp.arange(30, dtype=jnp.int32)
  selections = quick(lambda: jax.lax.map(lambda epoch: selector.select(jax.random.key(1), state, epoch)[0], epochs))()
  whole = np.isin(np.arange(30), [0, 28, 29])
  np.testing.assert_array_equal(selections.thin, ~whole)
  np.testing.assert_array_equal(selections.keep.sum(axis=1), np.where(whole | (name == "es"), NUM_SAMPLES, 42))


def test_a_loss_that_is_not_finite_is_drawn_last_reported_and_then_forgotten():
  selector = create("eswp", num_samples=6, keep_fraction=0.7)
  observe = quick(selector.observe)
  losses = np.array([1.0, np.nan, 2.0, np.inf, 0.5, 0.1])
  state = observe(selector.init(jax.random.key(0)), simulation.signals(np.arange(6), 0, loss=losses))
  selections, info = simulation.over_keys(lambda key: selector.select(key, state, jnp.int32(1)), 20)
  assert np.all(np.asarray(selections.keep) == [True, False, True, False, True, True])
  assert np.all(np.asarray(info["non_finite"]) == 2)
  state = observe(state, simulation.signals(np.arange(6), 1, loss=1.0))
  np.testing.assert_allclose(np.asarray(state.inner.score)[[1, 3]], 0.8 / 6 + 0.2, rtol=1e-6)


@pytest.mark.parametrize(
  "options",
  [
    {"beta1": 1.5},
    {"beta2": -0.1},
    {"batch_fraction": 0.0},
    {"keep_fraction": 0.0},
    {"weights": "inverse"},
    {"anneal_first": -0.1},
    {"anneal_last": 1.1},
  ],
)
def test_values_out_of_range_are_named(options):
  with pytest.raises(UserError, match=f"{next(iter(options))}="):
    create("eswp", **options)
