"""Whole runs that thin: what they count, the same draws on two devices, plain training where nothing is left out."""

import numpy as np
import pytest

from tests.support import small_runs

BATCHES = 12  # of 128 samples in digits' 1,442; the last has 34


def config(**changes):
  return small_runs.config("es", selector__anneal_first=0.0, selector__anneal_last=0.0, **changes)


@pytest.fixture(scope="module")
def thinned(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("thinned")
  return workdir, *small_runs.train(config(), workdir)


def test_a_thinned_run_scores_all_and_trains_on_part(thinned):
  workdir, summary, state = thinned
  visits = np.load(workdir / "usage.npz")["visits"]
  assert summary["backward_visits"] == visits.sum() == 2 * BATCHES * 32
  assert summary["forward_visits"] == 2 * 1442 + summary["backward_visits"]
  assert summary["steps"] == 2 * BATCHES
  assert np.all(state.selector.last_epoch == 1)  # trained or not
  assert 0 < (visits == 0).sum() < 1442


def test_two_devices_draw_the_same_samples(thinned, tmp_path):
  workdir, _, state = thinned
  _, other = small_runs.train(config(), tmp_path, num_devices=2)
  np.testing.assert_array_equal(np.load(tmp_path / "usage.npz")["visits"], np.load(workdir / "usage.npz")["visits"])
  np.testing.assert_allclose(other.selector.score, state.selector.score, rtol=1e-4)


def test_whole_batches_are_plain_training_bit_for_bit(tmp_path):
  _, thinned = small_runs.train(config(selector__batch_fraction=1.0), tmp_path / "es")
  _, plain = small_runs.train(small_runs.config("full"), tmp_path / "full")
  small_runs.same_state(thinned.train, plain.train)
  np.testing.assert_array_equal(thinned.usage.visits, plain.usage.visits)
