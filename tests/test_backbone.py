"""Features from a run's own model: read from a workdir, or from a run made for them."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import data, features, models, options
from dynsel_jax.data import gather, noise
from dynsel_jax.offline import factor_stage, feature_registry
from dynsel_jax.runs import timing
from dynsel_jax.runs.interruption import Interrupted
from tests.support import small_runs


@pytest.fixture(autouse=True)
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture(scope="module")
def digits():
  return data.load("digits")


@pytest.fixture(scope="module", params=["mlp", "resnet_patch"])
def finished(request, tmp_path_factory):
  """A finished run on two devices: its config, workdir and final state."""
  made = small_runs.config("infobatch", model=request.param)
  workdir = tmp_path_factory.mktemp("finished")
  return made, workdir, small_runs.train(made, workdir, num_devices=2)[1]


def _config(**changes):
  made = small_runs.config("rrd", factors__epochs=2)
  made.features = {"name": "backbone", **feature_registry.defaults("backbone")}
  made.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
  return made


def test_a_runs_penultimate_activations_are_read_from_its_workdir(finished, digits, tmp_path):
  made, workdir, state = finished
  name, space = feature_registry.create(_config(features__path=str(workdir), features__batch_size=500))
  found = features.extract(name, space, digits, str(tmp_path))
  settings = made.model.to_dict()
  module = models.create(settings.pop("name"), 10, **{n: v for n, v in settings.items() if n != "dtype"})
  variables = {"params": state.train.params, "batch_stats": state.train.batch_stats}
  inputs = gather.normalize(jnp.asarray(digits.train["inputs"]), digits.mean, digits.std)
  run = jax.jit(lambda x: module.apply(variables, x, jnp.ones(len(x), bool), train=False))
  np.testing.assert_allclose(found, run(inputs)[1]["features"], rtol=1e-4, atol=1e-5)
  head = state.train.params["head"]
  right = np.argmax(found @ head["kernel"] + head["bias"], axis=1) == digits.train["labels"]
  assert right.mean() > 0.7  # of a trained model: chance is 0.1


def test_settings_follow_the_parameters(finished, tmp_path):
  _, workdir, _ = finished
  one, same = (
    feature_registry.create(_config(features__path=str(workdir), seed=seed))[1].settings() for seed in (0, 1)
  )
  assert one == same and len(one["parameters"]) == 64


def test_without_a_path_a_model_is_trained_with_the_runs_recipe(digits, tmp_path):
  changes = {"features__epochs": 1, "cache_dir": str(tmp_path)}
  timers = timing.Timers()
  stage = factor_stage.Stage(_config(**changes), digits, timers)
  assert stage.features.shape == (1442, 128)
  assert timers.seconds()["features"] > 0
  expected = small_runs.config("full", epochs=1, checkpoint_every_steps=0)
  state = small_runs.train(expected, tmp_path / "plain", len(jax.local_devices()))[1].train
  module = models.create("mlp", 10, hidden=tuple(expected.model.hidden))
  inputs = gather.normalize(jnp.asarray(digits.train["inputs"]), digits.mean, digits.std)
  _, stages = module.apply({"params": state.params}, inputs, jnp.ones(1442, bool), train=False)
  np.testing.assert_allclose(stage.features, stages["features"], rtol=1e-4, atol=1e-5)


def test_what_the_warm_up_run_depends_on_is_its_settings():
  def settings(**changes):
    return json.dumps(feature_registry.create(_config(**changes))[1].settings(), sort_keys=True)

  plain = settings()
  same = ({"epochs": 9}, {"selector__keep_fraction": 0.9}, {"cache_dir": "x"}, {"features__batch_size": 7})
  same += ({"match_steps": True},)  # a run gives its config with that carried out, `fit_factors` as it is
  assert all(settings(**change) == plain for change in same)
  other = (
    {"features__epochs": 3},
    {"factors__seed": 1},
    {"seed": 3},
    {"learning_rate": 0.5},
    {"model__hidden": (4, 4)},
  )
  assert len({plain, *(settings(**change) for change in other)}) == 6  # the factors' seed follows the run's
  wrapped = _config()
  wrapped.wrappers = {"names": ("annealed",), "annealed": {"last": 0.1}}
  assert json.dumps(feature_registry.create(wrapped)[1].settings(), sort_keys=True) == plain


def test_labels_are_part_of_the_identity_of_a_warm_up_run_and_not_of_a_runs_parameters(finished, digits):
  noisy = noise.apply(digits, {"rate": 0.4})
  for path, same in (("", False), (str(finished[1]), True)):
    name, space = feature_registry.create(_config(features__path=path))
    assert (features.identity(name, space, digits) == features.identity(name, space, noisy)) == same


def test_a_signal_during_the_warm_up_run_is_said(digits, tmp_path, monkeypatch):
  small_runs.interrupted_at(3, monkeypatch, signal.SIGTERM)
  with pytest.raises(Interrupted, match="stopped while the model of features.name=backbone") as stopped:
    factor_stage.Stage(_config(cache_dir=str(tmp_path)), digits, timing.Timers()).features  # noqa: B018
  assert stopped.value.__notes__ == ["the same command trains it anew"]  # its folder is gone


def test_wrong_folders_and_values_are_named(finished, digits, tmp_path):
  _, workdir, _ = finished
  with pytest.raises(
    options.UserError,
    match="features.path='nowhere' is not the workdir of a run: it has no config.json that dynsel_jax wrote",
  ):
    feature_registry.create(_config(features__path="nowhere"))
  (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
  with pytest.raises(options.UserError, match=f"features.path='{tmp_path}' has no checkpoint"):
    feature_registry.create(_config(features__path=str(tmp_path)))
  assert not (tmp_path / "checkpoints").exists()
  with pytest.raises(options.UserError, match="features.epochs=0 must be greater than 0"):
    feature_registry.create(_config(features__epochs=0))
  images = {"inputs": np.zeros((3, 8, 8, 3), np.uint8), "labels": np.zeros(3, np.int32)}
  colour = digits._replace(train=images, mean=(0.0,) * 3, std=(1.0,) * 3)
  with pytest.raises(options.UserError, match=r"holds a model that does not take images of shape \(8, 8, 3\)"):
    feature_registry.create(_config(features__path=str(workdir)))[1].extract(colour)
