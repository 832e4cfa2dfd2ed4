"""The task of masked images: masks, losses against numpy, and whole runs on digits with a tiny autoencoder."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits, mae
from dynsel_jax import data, options, tasks
from dynsel_jax.data import gather
from dynsel_jax.models import vit, vit_mae
from dynsel_jax.runs import finished
from dynsel_jax.runs.interruption import Interrupted
from dynsel_jax.tasks import masked_image
from dynsel_jax.training import parallel, warm_start
from tests.support import small_runs

RNG = np.random.default_rng(0)
TINY = vit.Sizes(2, 16, 1, 2, 16)


def _task(shape=(8, 8, 1), **settings):
  dataset = {"inputs": RNG.integers(0, 256, (5, *shape), np.uint8)}
  source = data.from_arrays("made_up", dataset, dataset)
  return tasks.create("masked_image", source, gather.view(source), **settings), dataset


def test_masks_depend_on_key_and_sample_alone():
  key = jax.random.key(3)
  draw = jax.jit(lambda index, key=key: masked_image.visible_patches(key, index, 16, 4))
  found = np.asarray(draw(jnp.array([7, 2, 9, 2, -1])))
  np.testing.assert_array_equal(found[1], found[3])
  np.testing.assert_array_equal(np.asarray(draw(jnp.array([9, 9, 9, 7, 7])))[[0, 4]], found[[2, 0]])
  many = np.asarray(draw(jnp.arange(4000)))
  assert all(len({*row}) == 4 for row in many[:100].tolist())
  counts = np.bincount(many.ravel(), minlength=16)
  assert counts.size == 16 and abs(counts - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)


@pytest.mark.parametrize("normalized", [False, True])
def test_the_loss_is_the_mean_over_masked_pixels(normalized):
  predicted, pixels = RNG.normal(size=(2, 3, 5, 4)).astype(np.float32)
  visible = np.array([[1, 4], [0, 3], [2, 1]])
  expected = []
  for row in range(3):
    target = pixels[row].astype(np.float64)
    if normalized:
      target = (target - target.mean(1, keepdims=True)) / np.sqrt(target.var(1, ddof=1, keepdims=True) + 1e-6)
    masked = [patch for patch in range(5) if patch not in visible[row]]
    expected.append(np.mean((predicted[row][masked] - target[masked]) ** 2))
  found = masked_image.reconstruction_loss(*map(jnp.asarray, (predicted, pixels, visible)), normalized=normalized)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_inputs_are_masked_anew_in_each_epoch_and_always_alike_in_evaluation():
  task, dataset = _task(patch=2, mask_fraction=0.75)
  index, batch = jnp.arange(5), jax.tree.map(jnp.asarray, dataset)
  one, two = (task.inputs(jax.random.key(epoch), index, batch)["inputs"] for epoch in (1, 2))
  assert one["visible"].shape == (5, 4) and one["images"].dtype == jnp.float32
  assert (one["visible"] != two["visible"]).any()
  first, again = (task.inputs(None, index, batch)["inputs"]["visible"] for _ in range(2))
  np.testing.assert_array_equal(first, again)
  assert task.num_outputs == 4 and task.signals == () and not task.metric.larger_is_better


def test_metrics_are_sums_over_the_valid_rows():
  task, dataset = _task(patch=4, normalized_targets=False)
  batch = task.inputs(None, jnp.arange(5), jax.tree.map(jnp.asarray, dataset))
  outputs, valid = jnp.asarray(RNG.normal(size=(5, 4, 16)), jnp.float32), jnp.array([True, False, True, True, False])
  losses, extras = task.losses(outputs, batch)
  total, count = task.metrics(outputs.at[1].set(jnp.nan), batch, valid)["reconstruction_loss"]
  assert extras == {} and int(count) == 3
  np.testing.assert_allclose(total, np.asarray(losses)[np.asarray(valid)].sum(), rtol=1e-6)


@pytest.mark.parametrize(
  ("shape", "settings", "line"),
  [
    ((8, 8, 1), {"patch": 3}, "task.patch=3 must divide the sides of the images, 8x8"),
    ((8, 8, 1), {"patch": 8}, "task.patch=8 leaves 1 patch of an image of 8x8"),
    ((8, 8, 1), {"patch": 1}, "task.patch=1 has one number, which cannot be normalised"),
    ((8, 8, 1), {"patch": 0}, "task.patch=0 must be greater than 0"),
    ((8, 8, 1), {"mask_fraction": 1.0}, r"task.mask_fraction=1.0 must lie in (0, 1)"),
    ((10,), {}, "task.name=masked_image reads images; the inputs of dataset.name=made_up have shape (10,)"),
  ],
)
def test_wrong_options_and_data_are_named(shape, settings, line):
  with pytest.raises(options.UserError) as error:
    _task(shape, **settings)
  assert line in str(error.value) and "\n" not in str(error.value)


@pytest.fixture(scope="module", autouse=True)
def tiny():
  with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes types
    patch.setitem(vit.ENCODERS, "vit_micro", TINY)
    patch.setitem(vit_mae.DECODERS, "vit_micro", TINY)
    yield


def _config(variants="", **changes):
  made = mae.get_config(f"size=smoke{variants}")
  made.batch_size = 128
  made.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
  return made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("mae") / "run"
  return workdir, *small_runs.train(_config(",selector=random"), workdir)


def test_a_run_learns_and_says_its_task(run):
  workdir, summary, state = run
  lines = small_runs.lines(workdir)
  assert {name for name in lines[0] if name.startswith("test_")} == {"test_loss", "test_reconstruction_loss"}
  assert lines[-1]["metric"] == lines[-1]["test_reconstruction_loss"] == summary["final_metric"] < lines[0]["metric"]
  assert len(lines[-1]["kept_by_class"]) == 10
  read = finished.read(workdir)
  assert (read.task, read.metric) == ("masked_image", tasks.Metric("reconstruction_loss", larger_is_better=False))
  model = {"num_outputs": 4, "input_shape": [8, 8, 1], "input_dtype": "uint8", "input_scale": [223.0, 255.0]}
  assert json.loads((workdir / "config.json").read_text())["model"] == model
  tower = state.train.params["tower"]
  np.testing.assert_array_equal(tower["fixed_positions"], vit.sine_cosine(4, 4, 16))  # weight decay passed them over


def test_a_run_stopped_within_an_epoch_continues_with_the_same_bits(run, tmp_path):
  workdir, _, state = run
  made = _config(",selector=random")
  with pytest.MonkeyPatch.context() as patch:
    small_runs.interrupted_at(5, patch)
    with pytest.raises(Interrupted):
      small_runs.train(made, tmp_path)
  summary, same = small_runs.train(made, tmp_path)
  assert summary["resumed_from"] == [5]
  small_runs.same_state(state, same)
  assert small_runs.lines(tmp_path) == small_runs.lines(workdir)


def test_one_and_two_devices_see_the_same_masks():
  losses = []
  for count in (1, 2):
    built = small_runs.build(_config(",selector=random"), count)
    state, _ = built.programs.plan(built.initial, built.arrays, 1)
    losses.append(parallel.fetch(built.programs.train(state, built.arrays, 1, 0, 1).usage.last_loss))
  assert np.isfinite(losses[0]).sum() == 128
  np.testing.assert_allclose(*losses, rtol=1e-4)


def _fine_tuning(weights, **changes):
  made = digits.get_config("size=smoke,model=vit_micro,selector=full,optimizer=adamw")
  made.batch_size, made.epochs, made.learning_rate = 128, 1, 1e-3
  made.model.update({"patch": 2, "weights": str(weights), **changes})
  return made


def test_a_classifier_begins_with_the_encoder_of_the_run(run, tmp_path, caplog):
  workdir, _, state = run
  built = small_runs.build(_fine_tuning(workdir))
  params, pretrained = built.initial.train.params, state.train.params["tower"]
  np.testing.assert_array_equal(
    params["tower"]["layer_1"]["hidden"]["kernel"], pretrained["layer_1"]["hidden"]["kernel"]
  )
  np.testing.assert_array_equal(params["tower"]["positions"], pretrained["fixed_positions"])
  assert not params["head"]["kernel"].any() and "is not finished" not in caplog.text
  (workdir / "summary.json").rename(tmp_path / "summary.json")
  try:
    warm_start.first_params(built.recipe.module, params)
  finally:
    (tmp_path / "summary.json").rename(workdir / "summary.json")
  assert "is not finished: its newest checkpoint is taken" in caplog.text


def test_weights_that_do_not_fit_end_the_run_before_anything_is_written(run, tmp_path):
  (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
  (tmp_path / "unsaved" / "checkpoints").mkdir(parents=True)
  (tmp_path / "unsaved" / "config.json").write_text((run[0] / "config.json").read_text())
  for weights, changes, line in (
    (run[0], {"patch": 4}, "vit_mae): its model's array 'tower/patch_embedding/kernel' is of shape (4, 16), and in"),
    (tmp_path / "empty", {}, "is not the workdir of a run: it has no config.json that dynsel_jax wrote"),
    (tmp_path / "unsaved", {}, "holds no checkpoint; the command of the run makes one"),
    (tmp_path / "nothing", {}, "is not a safetensors file"),
  ):
    with pytest.raises(options.UserError) as error:
      small_runs.train(_fine_tuning(weights, **changes), tmp_path / "run")
    assert line in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("model.weights") and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("variants", "line"),
  [
    (",model=mlp", "model.name=mlp: the module fails"),
    (",task=classification", "model.name=vit_mae predicts the pixels of square patches"),
    (",selector=kakurenbo", "selector=kakurenbo reads 'correct', 'confidence': the task masked_image and the table"),
  ],
)
def test_parts_that_do_not_fit_together_are_named(variants, line, tmp_path):
  with pytest.raises(options.UserError) as error:
    small_runs.train(_config(variants), tmp_path / "run")
  assert line in str(error.value) and "\n" not in str(error.value)
  assert not (tmp_path / "run").exists()
