"""The offline stage: a run of `rrd` makes its columns once and finds them again; another setting makes others."""

import shutil

import jax
import numpy as np
import pytest

from configs import digits
from dynsel_jax import data, factors, features, options
from dynsel_jax.data import noise
from dynsel_jax.offline import factor_stage
from dynsel_jax.runs import timing, workdir
from dynsel_jax.runs.interruption import Interrupted
from tests.support import small_runs


@pytest.fixture(autouse=True)
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


def _config(tmp_path, **changes):
  made = small_runs.config("rrd", cache_dir=str(tmp_path / "cache"), features__components=16, factors__epochs=5)
  made.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
  return made


def test_a_run_counts_the_stages_seconds_and_the_next_one_finds_it_in_the_cache(tmp_path):
  first, state = small_runs.train(_config(tmp_path), tmp_path / "first")
  again, same = small_runs.train(_config(tmp_path), tmp_path / "again")
  assert first["seconds"]["features"] > 0
  assert first["seconds"]["factors"] > 0
  assert again["seconds"]["features"] == again["seconds"]["factors"] == 0
  small_runs.same_state(state, same)


def test_a_run_goes_on_with_the_columns_that_it_began_with(tmp_path, monkeypatch):
  _, expected = small_runs.train(_config(tmp_path), tmp_path / "whole")
  with monkeypatch.context() as patched:
    small_runs.interrupted_at(5, patched)
    with pytest.raises(Interrupted):
      small_runs.train(_config(tmp_path), tmp_path / "run")
  shutil.rmtree(tmp_path / "cache")
  made = _config(tmp_path)

  def elsewhere(*arguments):
    raise AssertionError("the columns are made again, and on another machine come out with other bits")

  with monkeypatch.context() as patched:
    patched.setattr(factor_stage, "Stage", elsewhere)
    _, continued = small_runs.train(made, tmp_path / "run")
  small_runs.same_state(continued, expected)

  columns = tmp_path / "run" / "columns.npz"
  columns.write_bytes(columns.read_bytes()[:-100])
  assert workdir.Workdir(str(tmp_path / "run")).read_columns() is None
  small_runs.train(made, tmp_path / "run")  # made again, and the same here


def test_columns_depend_on_settings_and_lie_between_0_and_1(tmp_path):
  source = data.load("digits")
  columns = [
    factor_stage.Stage(_config(tmp_path, **changes), source, timing.Timers()).columns
    for changes in ({}, {"factors__k": 4}, {"features__components": 8})
  ]
  for found in columns:
    assert set(found) == set(factor_stage.COLUMNS)
    for column in found.values():
      assert column.shape == (1442,)
      assert float(column.min()) == 0
      assert float(column.max()) == pytest.approx(1, abs=1e-6)
  for other in columns[1:]:
    assert not np.array_equal(columns[0]["rarity"], other["rarity"])


def test_the_autoencoder_has_the_seed_of_the_run_unless_it_has_its_own(tmp_path):
  source = data.load("digits")
  seeds = ({}, {"seed": 1}, {"factors__seed": 1}, {"seed": 1, "factors__seed": 0})
  found = [
    np.asarray(factor_stage.Stage(_config(tmp_path, **changes), source, timing.Timers()).columns["rarity"])
    for changes in seeds
  ]
  assert not np.array_equal(found[0], found[1])
  np.testing.assert_array_equal(found[1], found[2])
  np.testing.assert_array_equal(found[0], found[3])


def test_both_signs_of_a_latent_fire_if_asked_for(tmp_path):
  source = data.load("digits")
  literal, positive, both = (
    factor_stage.Stage(_config(tmp_path, **changes), source, timing.Timers())
    for changes in ({"factors__orient": False}, {}, {"factors__active": "nonzero"})
  )
  fired = [np.sum(stage.firings.latents < len(stage.firings.frequency)) for stage in (literal, positive, both)]
  assert fired[0] < fired[1] < fired[2] == source.num_samples * 8  # k = 8
  assert int(np.sum(both.statistics.firing_frequency)) == fired[2]


def test_other_labels_score_anew_without_another_fit(tmp_path, monkeypatch):
  source = data.load("digits")
  clean = factor_stage.Stage(_config(tmp_path), source, timing.Timers()).columns
  monkeypatch.setattr(factors, "fit_sae", None)  # a fit would fail
  noisy = noise.apply(source, {"rate": 0.4})
  found = factor_stage.Stage(_config(tmp_path), noisy, timing.Timers()).columns
  assert not np.array_equal(clean["representativeness"], found["representativeness"])
  again = factor_stage.Stage(_config(tmp_path), source, timing.Timers()).columns
  for name, column in clean.items():
    np.testing.assert_array_equal(again[name], column)


def test_the_sections_are_there_for_the_methods_that_read_them():
  assert "factors" in digits.get_config("selector=rrd")
  assert "factors" not in digits.get_config("selector=random")
  named = digits.get_config("selector=random,features=pixels")
  assert named.features.name == "pixels"


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"factors__expansion_factor": 0}, "factors.expansion_factor=0"),
    ({"factors__common_fraction": 0.0}, "factors.common_fraction=0.0"),
    ({"factors__k": 0}, "factors.k=0 must be greater than 0"),
    ({"factors__topk": "largest"}, "factors.topk='largest' is not known; known: absolute, value"),
    ({"factors__epochs": 0}, "factors.epochs=0 must be greater than 0"),
    ({"factors__batch_size": -1}, "factors.batch_size=-1 must be greater than 0"),
    ({"factors__learning_rate": 0.0}, "factors.learning_rate=0.0 must be greater than 0"),
    ({"factors__active": "both"}, "factors.active='both' is not known; known: nonzero, positive"),
    ({"factors__seed": -2}, "factors.seed=-2 must lie in [0, "),
    ({"features__name": "file", "features__components": 3}, "features 'file' has no option 'components'"),
  ],
)
def test_wrong_values_are_named_before_the_features_are_made(tmp_path, monkeypatch, changes, line):
  monkeypatch.setattr(features, "extract", None)
  with pytest.raises(options.UserError) as error:
    small_runs.train(_config(tmp_path, **changes), tmp_path / "run")
  assert line in str(error.value)
