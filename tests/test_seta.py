"""SeTa: its groups and windows against the authors' code and exhaustive search, and whole runs."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsel_jax import batching, selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import seta
from dynsel_jax.types import SampleTable
from tests.support import oracles, simulation
from tests.support.simulation import NUM_SAMPLES

group_edges = jax.jit(seta.group_edges, static_argnums=1, compiler_options=simulation.QUICK)


def groups_of(losses, num_groups):
  """Which group each loss is in, by the rule that `group_edges` states."""
  edges = np.asarray(group_edges(jnp.sort(jnp.asarray(losses, jnp.float32)), num_groups))
  assert edges.shape == (num_groups + 1,) and edges[0] == -np.inf and edges[-1] == np.inf
  assert np.all(edges[1:] >= edges[:-1])
  return np.searchsorted(edges, np.asarray(losses, np.float32), side="left") - 1


def sum_of_squares(losses, groups):
  parts = (np.asarray(losses, float)[groups == group] for group in np.unique(groups))
  return sum(((part - part.mean()) ** 2).sum() for part in parts)


@pytest.mark.parametrize("case", ["separated", "lognormal", "script_defaults"])
def test_agrees_with_the_authors_code(case):
  reference = oracles.load("seta", case)
  num_groups = int(reference["num_groups"])
  groups = groups_of(reference["losses"], num_groups)
  squares = sum_of_squares(reference["losses"], groups)
  if case == "lognormal":  # theirs is a local optimum
    assert squares <= 1.001 * reference["kmeans_within_group_sum_of_squares"]
  else:
    np.testing.assert_array_equal(groups, reference["group_of_sample"])
    np.testing.assert_allclose(squares, reference["kmeans_within_group_sum_of_squares"], rtol=1e-4)
  width = max(1, round(float(reference["window_scale"]) * num_groups))
  starts = reference["window_first_group_by_iteration"]
  for iteration in range(1, len(starts)):  # their iteration 0 takes all groups, as a full-data epoch does here
    first = int(seta.window(iteration, num_groups, width))
    assert (first, first + width) == (starts[iteration], reference["window_end_group_by_iteration"][iteration])
    if case != "lognormal":
      inside = (groups >= first) & (groups < first + width)
      np.testing.assert_array_equal(inside, reference["selected_by_iteration"][iteration])


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_the_best_of_all_splits(seed):
  losses = np.sort(np.random.default_rng(seed).lognormal(size=14)).astype(np.float32)
  splits = (np.repeat(range(4), np.diff([0, *ends, 14])) for ends in itertools.combinations(range(1, 14), 3))
  best = min(sum_of_squares(losses, groups) for groups in splits)
  np.testing.assert_allclose(sum_of_squares(losses, groups_of(losses, 4)), best, rtol=1e-5)


def test_many_losses_are_grouped_nearly_as_well():
  losses = np.random.default_rng(0).lognormal(size=5000).astype(np.float32)
  groups, previous = groups_of(losses, 6), None
  means = np.quantile(losses, [0.2, 0.5, 0.8, 0.95, 0.99, 0.999])
  while previous is None or not np.array_equal(previous, means):  # Lloyd's rule, to the end
    nearest, previous = np.abs(losses[:, None] - means).argmin(axis=1), means
    means = np.array([losses[nearest == group].mean() for group in range(6)])
  assert sum_of_squares(losses, groups) <= 1.01 * sum_of_squares(losses, nearest)


def k_means(losses, num_groups, seed):
  """Lloyd's rule to the end, from means that are drawn as in k-means++."""
  rng, losses = np.random.default_rng(seed), losses.astype(float)
  means = losses[rng.integers(losses.size, size=1)]
  while means.size < num_groups:
    far = np.min((losses[:, None] - means) ** 2, axis=1)
    means = np.append(means, rng.choice(losses, p=far / far.sum()))
  previous = np.zeros(0)
  while not np.array_equal(previous, means):
    previous, groups = means, np.searchsorted((np.sort(means)[1:] + np.sort(means)[:-1]) / 2, losses)
    means = np.array([losses[groups == group].mean() for group in range(num_groups) if np.any(groups == group)])
  return groups


TAILS = {  # of losses: the largest of 3000 is up to thousands of times the median
  "lognormal": lambda rng, weight: rng.lognormal(0, 3 * weight, 3000),
  "pareto": lambda rng, weight: rng.pareto(3 - 2 * weight, 3000),
  "mislabelled": lambda rng, weight: np.where(rng.random(3000) < 0.02, 50 * weight, 1) * rng.exponential(size=3000),
  "below": lambda rng, weight: 5 - rng.pareto(3 - 2 * weight, 3000),
}


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(sorted(TAILS)), st.floats(0.2, 1), st.sampled_from((2, 5, 10)), st.integers(0, 2**31))
def test_groups_of_heavy_tails_are_nearly_as_good_as_the_best_of_five_k_means(tail, weight, num_groups, seed):
  losses = TAILS[tail](np.random.default_rng(seed), weight).astype(np.float32)
  best = min(sum_of_squares(losses, k_means(losses, num_groups, start)) for start in range(5))
  assert sum_of_squares(losses, groups_of(losses, num_groups)) <= 1.05 * best


def test_odd_values_have_groups():
  assert np.unique(groups_of(np.full(40, 2.5), 5)).size == 1
  far = np.append(np.linspace(0, 1, 30), 1e30).astype(np.float32)
  assert np.all(groups_of(far, 2) == (far > 1))
  behind = jnp.asarray([0.1, 0.2, 3.0, np.inf, np.inf], jnp.float32)
  np.testing.assert_allclose(group_edges(behind, 2), [-np.inf, 0.2, np.inf])
  assert np.all(np.isinf(group_edges(jnp.full(5, jnp.inf), 2)))


def test_a_run_slides_the_window_over_the_pool():
  selector = selectors.create(
    "seta", simulation.table(), 10, pool_fraction=1.0, num_groups=4, window_fraction=0.5, whole_pool_from=0.7
  )
  program = simulation.compiled(selector)
  last_loss = np.zeros(NUM_SAMPLES, np.float32)
  for epoch, outcome in enumerate(simulation.run(program, 10)):
    chosen = outcome.chosen
    assert bool(outcome.info["full_data"]) == (epoch == 0)
    if 0 < epoch < 7:
      groups = groups_of(last_loss, 4)
      first = epoch % 3
      assert int(outcome.info["first_group"]) == first
      assert set(chosen) == set(np.flatnonzero((groups >= first) & (groups < first + 2)))
    else:
      assert len(chosen) == NUM_SAMPLES
    last_loss[chosen] = simulation.signals(chosen, epoch).loss


def test_a_large_set_keeps_the_groups_of_its_window():
  n = 20_000
  losses = np.random.default_rng(0).lognormal(size=n).astype(np.float32)
  options = {"pool_fraction": 1.0, "num_groups": 4, "window_fraction": 0.5}
  selector = selectors.create("seta", SampleTable(n), 10, **options)
  seen = batching.signals(jnp.arange(n, dtype=jnp.int32), jnp.asarray(losses), jnp.int32(0))
  state = selector.observe(selector.init(jax.random.key(0)), seen)
  selection, _ = jax.jit(selector.select, compiler_options=simulation.QUICK)(jax.random.key(1), state, jnp.int32(1))
  groups = groups_of(losses, 4)
  inside = (groups >= 1) & (groups < 3)
  np.testing.assert_array_equal(selection.keep, inside)
  assert 0.1 < inside.mean() < 0.9


def test_the_pool_is_drawn_anew_and_equal_losses_take_all_of_it():
  selector = selectors.create("seta", simulation.table(), 10, pool_fraction=0.6)
  state = selector.observe(selector.init(jax.random.key(0)), simulation.signals(np.arange(NUM_SAMPLES), 0, loss=1.0))
  select = jax.jit(functools.partial(selector.select, state=state), compiler_options=simulation.QUICK)
  pools = []
  for epoch in (1, 2, 9):  # two windows and an epoch of the whole pool
    selection, info = select(simulation.select_key(epoch), epoch=jnp.int32(epoch))
    assert int(selection.keep.sum()) == 31
    assert bool(info["whole_pool"]) == (epoch == 9)
    pools.append(set(np.flatnonzero(selection.keep)))
  assert pools[0] != pools[1] != pools[2]


@pytest.mark.parametrize(
  "options", [{"pool_fraction": 0.0}, {"num_groups": 0}, {"window_fraction": 1.1}, {"whole_pool_from": -0.1}]
)
def test_values_out_of_range_are_named(options):
  with pytest.raises(UserError, match=f"{next(iter(options))}="):
    selectors.create("seta", simulation.table(), 8, **options)
