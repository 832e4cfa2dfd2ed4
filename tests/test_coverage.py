"""Factor coverage: hand-made codes against counting one by one; whole runs, stopped, moved and from before it."""

import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import options
from dynsel_jax.factors import coverage
from dynsel_jax.offline import factor_stage
from dynsel_jax.runs import files, workdir
from dynsel_jax.runs.interruption import Interrupted
from tests.support import small_runs

FORMER = ("config", "data_fingerprint", "columns_fingerprint", "device", "versions", "seconds")  # of `config.json`
FIELDS = ("factors_covered", "rare_factor_rate", "common_factor_rate")


@pytest.fixture(autouse=True)
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


def _brute_force(active, common, visits):
  """The three numbers by their definition, for `active` `[N, L]` bool."""
  times = np.repeat(np.arange(len(visits)), visits)  # a sample for each visit
  rates = {True: [], False: []}
  covered = []
  for latent, in_set in enumerate(active.T):
    if in_set.any():
      covered.append(any(in_set[i] for i in times))
      rates[bool(common[latent])].append(np.mean([in_set[i] for i in times]) / np.mean(in_set))
  return [np.mean(covered), *(np.mean(rates[kind]) for kind in (False, True))]


def test_a_few_codes_give_what_is_counted_by_hand():
  #   latent 0 fires in all four samples, 1 in the first two, 2 in the last, 3 nowhere: its value is negative
  indices = np.array([[0, 1], [1, 0], [0, 3], [2, 0]], np.int32)
  values = np.array([[1.0, 0.5], [0.1, 2.0], [1.0, -3.0], [0.2, 0.4]], np.float32)
  known = coverage.firings(indices, values, 4, common_fraction=0.25)
  assert known.latents.dtype == np.uint8
  np.testing.assert_array_equal(known.frequency, [4, 2, 1, 0])
  np.testing.assert_array_equal(known.common, [True, False, False, False])
  fired = coverage.count(known.latents, np.array([2, 0, 1, 0]), 4)
  np.testing.assert_array_equal(fired, [3, 2, 0, 0])
  found = coverage.coverage(known, fired, 3)
  # latent 1: 2 of 3 visits over 2 of 4 samples; latent 2: none
  assert found == pytest.approx({"factors_covered": 2 / 3, "rare_factor_rate": (4 / 3) / 2, "common_factor_rate": 1.0})


@pytest.mark.parametrize("seed", range(4))
def test_random_codes_give_what_is_counted_one_by_one(seed):
  rng = np.random.default_rng(seed)
  num_samples, num_latents, k = 60, 300, 5  # more latents than a byte can name, and than fire
  weights = 1 / np.arange(1, num_latents + 1)
  indices = np.array([rng.choice(num_latents, k, replace=False, p=weights / weights.sum()) for _ in range(num_samples)])
  values = rng.normal(size=(num_samples, k)).astype(np.float32)
  known = coverage.firings(indices.astype(np.int32), values, num_latents, common_fraction=0.05)
  active = np.zeros((num_samples, num_latents), bool)
  np.put_along_axis(active, indices, values > 0, axis=1)
  visits = rng.integers(0, 3, num_samples)
  fired = coverage.count(known.latents, visits, num_latents)
  found = coverage.coverage(known, fired, int(visits.sum()))
  assert list(found) == list(FIELDS)
  np.testing.assert_allclose(list(found.values()), _brute_force(active, known.common, visits))


def test_all_samples_cover_everything_at_a_rate_of_one_and_a_set_without_rare_factors_has_no_rate_of_them():
  indices, values = np.array([[0], [1]], np.int32), np.ones((2, 1), np.float32)
  known = coverage.firings(indices, values, 3, common_fraction=1.0)
  found = coverage.coverage(known, known.frequency, 2)
  assert found == {"factors_covered": 1.0, "rare_factor_rate": None, "common_factor_rate": 1.0}


def _config(tmp_path, selector="rrd", **changes):
  made = small_runs.config(selector, cache_dir=str(tmp_path / "cache"), features__components=16)
  made.factors.update(epochs=5, k=4)
  made.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
  return made


def _coverage(folder):
  return [{name: line[name] for name in FIELDS if name in line} for line in small_runs.lines(folder)]


@pytest.mark.parametrize(("alpha", "more"), [(1.0, "common_factor_rate"), (0.0, "rare_factor_rate")])
def test_a_run_records_what_its_usage_says(tmp_path, alpha, more):
  mixing = {"selector__alpha_min": alpha, "selector__alpha_max": alpha}
  made = _config(tmp_path, epochs=1, selector__refinement=0.0, **mixing)
  small_runs.train(made, tmp_path / "run")
  visits = np.load(tmp_path / "run" / "usage.npz")["visits"]
  known = coverage.Firings(**workdir.Workdir(str(tmp_path / "run")).read_firings())
  active = np.zeros((visits.size, known.common.size + 1), bool)
  np.put_along_axis(active, known.latents.astype(int), True, axis=1)
  (found,) = _coverage(tmp_path / "run")
  np.testing.assert_allclose(list(found.values()), _brute_force(active[:, :-1], known.common, visits))
  assert 0 < visits.mean() < 1 < found[more]
  assert found[more] == max(found.values())


@pytest.mark.parametrize("selector", ["rrd", "es,features=pixels"])  # ES trains on a part of each planned batch
def test_a_run_stopped_within_an_epoch_and_moved_records_the_same(tmp_path, monkeypatch, selector):
  made = _config(tmp_path, selector, epochs=3)
  small_runs.train(made, tmp_path / "whole")
  expected = _coverage(tmp_path / "whole")
  assert all(list(line) == list(FIELDS) for line in expected)
  steps = small_runs.lines(tmp_path / "whole")[0]["step"]
  with monkeypatch.context() as patched:
    small_runs.interrupted_at(steps + 2, patched)
    with pytest.raises(Interrupted):
      small_runs.train(made, tmp_path / "run")
  shutil.rmtree(tmp_path / "cache")
  monkeypatch.setattr(factor_stage, "Stage", None)  # nothing is fitted anew
  small_runs.train(made, tmp_path / "run")
  assert _coverage(tmp_path / "run") == expected


@pytest.fixture(scope="module")
def once(tmp_path_factory):
  """A config, the folder of a run left alone and of one stopped in the second epoch, and the former's final state."""
  folder = tmp_path_factory.mktemp("once")
  made = _config(folder)
  with jax.numpy_dtype_promotion("standard"), pytest.MonkeyPatch.context() as patched:
    _, state = small_runs.train(made, folder / "whole")
    small_runs.interrupted_at(small_runs.lines(folder / "whole")[0]["step"] + 2, patched)
    with pytest.raises(Interrupted):
      small_runs.train(made, folder / "run")
  return made, folder, state


@pytest.mark.parametrize("loss", ["absent", "damaged"])
def test_a_run_that_lost_its_firings_makes_them_again_and_logs_the_same(once, tmp_path, monkeypatch, loss):
  made, folder, expected = once
  shutil.copytree(folder / "run", tmp_path / "run")
  path = tmp_path / "run" / "firings.npz"
  before = files.read_arrays(path)
  if loss == "absent":
    path.unlink()
  else:
    path.write_bytes(path.read_bytes()[:-100])
  # Another machine may fit other factors: what was logged of the former ones cannot go on.
  other = {name: jnp.zeros(1442) for name in factor_stage.COLUMNS}
  firings = coverage.Firings(**before)._replace(frequency=before["frequency"] + 1)
  with monkeypatch.context() as patched:
    patched.setattr(factor_stage, "Stage", lambda *_: types.SimpleNamespace(columns=other, firings=firings))
    with pytest.raises(options.UserError, match="firings.npz is lost or damaged and was made again with another"):
      small_runs.train(made, tmp_path / "run")
  _, state = small_runs.train(made, tmp_path / "run")
  small_runs.same_state(state, expected)
  assert _coverage(tmp_path / "run") == _coverage(folder / "whole")
  np.testing.assert_equal(files.read_arrays(path), before)


def test_a_run_from_before_there_were_firings_goes_on_without_coverage(once, tmp_path):
  made, folder, expected = once
  shutil.copytree(folder / "run", tmp_path / "run")
  (tmp_path / "run" / "firings.npz").unlink()
  config = tmp_path / "run" / "config.json"
  held = json.loads(config.read_text())
  config.write_text(json.dumps({name: held[name] for name in held if name in FORMER}))
  _, state = small_runs.train(made, tmp_path / "run")
  small_runs.same_state(state, expected)
  assert [bool(line) for line in _coverage(tmp_path / "run")] == [True, False]


def test_a_run_without_factor_scores_has_none_of_it(tmp_path):
  small_runs.train(small_runs.config("random", epochs=1), tmp_path / "run")
  assert _coverage(tmp_path / "run") == [{}]
  assert not (tmp_path / "run" / "firings.npz").exists()
