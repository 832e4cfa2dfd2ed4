"""The baselines that draw by chance: random, random_static, RS2; and full data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import selectors
from tests.support import simulation
from tests.support.simulation import NUM_SAMPLES


def plans(name, epochs, seed=3, start=0, **options):
  """The sets of samples of each epoch, as [epochs, N] bool."""
  selector = selectors.create(name, simulation.table(), 100, **options)
  state = selector.init(jax.random.key(seed))
  select = jax.jit(lambda key, epoch: selector.select(key, state, epoch)[0], compiler_options=simulation.QUICK)
  rows = []
  for epoch in range(start, epochs):
    selection = select(simulation.select_key(epoch), jnp.int32(epoch))
    simulation.assert_selection(selection)
    rows.append(np.asarray(selection.keep))
  return np.array(rows)


@pytest.mark.parametrize("keep_fraction, count, length", [(0.3, 15, 4), (0.7, 37, 2), (0.5, 26, 3), (1.0, 53, 1)])
def test_rs2_without_replacement_sees_all_in_each_pass(keep_fraction, count, length):
  kept = plans("rs2", 2 * length, keep_fraction=keep_fraction)
  assert np.all(kept.sum(axis=1) == count)
  for visits in kept.reshape(2, length, NUM_SAMPLES).sum(axis=1):
    assert visits.min() == 1 and visits.max() <= 2  # the end of a pass fills up from its start
  if length > 1:
    assert not np.any(kept[0] & kept[1]) or count * 2 > NUM_SAMPLES
    assert not np.array_equal(kept[:length], kept[length:])  # a new permutation


def test_rs2_resumes_from_state_and_epoch_alone():
  np.testing.assert_array_equal(plans("rs2", 9)[6:], plans("rs2", 9, start=6))
  assert not np.array_equal(plans("rs2", 2), plans("rs2", 2, seed=4))


def test_rs2_with_replacement_draws_from_all_each_time():
  kept = plans("rs2", 300, keep_fraction=0.3, replacement=True)
  assert np.all(kept.sum(axis=1) == 15)
  chance = 15 / NUM_SAMPLES
  assert np.all(np.abs(kept.mean(axis=0) - chance) < 5 * np.sqrt(chance * (1 - chance) / 300))
  overlap = (kept[1:] & kept[:-1]).sum(axis=1)  # hypergeometric
  assert abs(overlap.mean() - 15 * chance) < 5 * overlap.std() / np.sqrt(299)


def test_random_draws_anew_each_epoch_and_evenly():
  kept = plans("random", 300, keep_fraction=0.5)
  assert np.all(kept.sum(axis=1) == 26)
  chance = 26 / NUM_SAMPLES
  assert np.all(np.abs(kept.mean(axis=0) - chance) < 5 * np.sqrt(chance * (1 - chance) / 300))


def test_random_static_keeps_one_subset_for_each_key():
  kept = plans("random_static", 4)
  assert kept[0].sum() == 15
  assert np.all(kept == kept[0])
  assert not np.array_equal(kept[0], plans("random_static", 1, seed=4)[0])


def test_full_is_plain_training():
  selector = selectors.create("full", simulation.table(), 8)
  selection, _ = selector.select(simulation.select_key(0), selector.init(jax.random.key(3)), jnp.int32(0))
  assert simulation.is_full(selection)
