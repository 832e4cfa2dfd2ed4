"""UCB and epsilon-greedy: their averages and choices against a reference and a twin."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import batching, selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import epsilon_greedy, ranking, ucb
from tests.support import oracles, simulation
from tests.support.simulation import NUM_SAMPLES

quick = functools.partial(jax.jit, compiler_options=simulation.QUICK)


@pytest.fixture(scope="module")
def reference():
  return oracles.load("bandit")


def visits(reference):
  """The signals of each visit, with those not visited as padding."""
  for epoch, (losses, visited) in enumerate(zip(reference["losses_by_visit"], reference["visited"], strict=True)):
    index = jnp.where(jnp.asarray(visited), jnp.arange(losses.size, dtype=jnp.int32), -1)
    yield batching.signals(index, jnp.asarray(losses, jnp.float32), jnp.int32(epoch))


def test_ucb_agrees_with_the_reference(reference):
  alpha, weight, keep = (float(reference[name]) for name in ("alpha", "confidence", "keep_fraction"))
  num_samples = reference["visited"].shape[1]
  zeros = jnp.zeros(num_samples, jnp.float32)
  state = ucb.UCBState(zeros, zeros, jnp.full(num_samples, -1, jnp.int32))
  step = quick(functools.partial(ucb.update_averages, update_rate=alpha))
  best = quick(lambda score: ranking.top_fraction(jax.random.key(0), score, keep))
  np.testing.assert_array_equal(ucb.bound(state, weight), reference["ucb_initial_score"])
  for visit, signals in enumerate(visits(reference)):
    state = step(step(state, signals), signals)  # the second time changes nothing
    np.testing.assert_allclose(state.mean, reference["ucb_mean_by_visit"][visit], atol=1e-6)
    np.testing.assert_allclose(state.variance, reference["ucb_variance_by_visit"][visit], rtol=1e-6, atol=1e-6)
    score = ucb.bound(state, weight)
    np.testing.assert_allclose(score, reference["ucb_score_by_visit"][visit], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(best(score), reference["ucb_top_keep_by_visit"][visit])


def test_epsilon_greedy_agrees_with_the_reference(reference):
  alpha, epsilon, count = float(reference["alpha"]), float(reference["epsilon"]), int(reference["n_keep"])
  num_samples = reference["visited"].shape[1]
  start = jnp.full(num_samples, reference["epsilon_greedy_initial_score"], jnp.float32)
  state = epsilon_greedy.EpsilonGreedyState(start, jnp.full(num_samples, -1, jnp.int32))
  step = quick(functools.partial(epsilon_greedy.update_average, update_rate=alpha))
  draws = quick(
    lambda score: jax.vmap(lambda key: epsilon_greedy.explore(key, score, count, epsilon))(
      jax.random.split(jax.random.key(0), 400)
    )
  )
  for visit, signals in enumerate(visits(reference)):
    state = step(step(state, signals), signals)
    np.testing.assert_allclose(state.mean, reference["epsilon_greedy_score_by_visit"][visit], atol=1e-6)
    best, drawn = map(np.asarray, draws(state.mean))
    assert np.all(best == reference["epsilon_greedy_greedy_part_by_visit"][visit])
    assert np.all(drawn.sum(axis=1) == reference["n_random"])
    assert not np.any(best & drawn)
  chance = reference["epsilon_greedy_inclusion_probability_after_last_visit"]
  assert np.all(np.abs((best | drawn).mean(axis=0) - chance) <= 5 * np.sqrt(chance * (1 - chance) / 400))


@pytest.mark.parametrize("name", ["ucb", "epsilon_greedy"])
def test_a_run_keeps_the_highest_scores(name):
  options = {"keep_fraction": 0.4, "update_rate": 0.5} | ({"epsilon": 0.0} if name == "epsilon_greedy" else {})
  selector = selectors.create(name, simulation.table(), 5, **options)
  mean = np.full(NUM_SAMPLES, float(name == "epsilon_greedy"))
  variance = np.zeros(NUM_SAMPLES)
  for epoch, outcome in enumerate(simulation.run(simulation.compiled(selector), 5)):
    score = mean + variance if name == "ucb" else mean
    expected = np.arange(NUM_SAMPLES) if epoch == 0 else np.argsort(-score)[:21]
    chosen = outcome.chosen
    assert set(chosen) == set(expected)
    loss = np.asarray(simulation.signals(chosen, epoch).loss, float)
    variance[chosen] = 0.5 * variance[chosen] + 0.5 * (loss - mean[chosen]) ** 2
    mean[chosen] = 0.5 * mean[chosen] + 0.5 * loss


@pytest.mark.parametrize("name", ["ucb", "epsilon_greedy"])
def test_a_bad_loss_counts_as_the_worst_until_the_next_good_one(name):
  selector = selectors.create(name, simulation.table(), 5, keep_fraction=0.9)
  program = simulation.compiled(selector)
  loss = np.ones(NUM_SAMPLES)
  loss[7] = np.nan
  first = simulation.run_epoch(program, program.init(jax.random.key(0)), 0, loss)
  second = simulation.run_epoch(program, first.state, 1, np.ones(NUM_SAMPLES))
  assert int(second.info["non_finite"]) == 1
  if name == "ucb":
    assert not second.selection.keep[7]
  everyone = simulation.signals(np.arange(NUM_SAMPLES), 2, loss=np.ones(NUM_SAMPLES))
  third = simulation.run_epoch(program, selector.observe(second.state, everyone), 3)
  assert int(third.info["non_finite"]) == 0


@pytest.mark.parametrize(
  "name, options",
  [
    ("ucb", {"update_rate": 0.0}),
    ("ucb", {"variance_weight": -1.0}),
    ("ucb", {"keep_fraction": 1.5}),
    ("epsilon_greedy", {"epsilon": 1.5}),
    ("epsilon_greedy", {"update_rate": 2.0}),
  ],
)
def test_values_out_of_range_are_named(name, options):
  with pytest.raises(UserError, match=f"{next(iter(options))}="):
    selectors.create(name, simulation.table(), 8, **options)
