"""Streamed sets: the rows that are read, damaged files, and runs that equal those of a set on the device."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from configs import imagenet
from dynsel_jax import data, options
from dynsel_jax.data import image_ops, stream
from dynsel_jax.runs.interruption import Interrupted
from dynsel_jax.training import feed, parallel, setup, trainer
from dynsel_jax.types import Plan
from experiments import fit_factors
from tests.support import image_sets, small_runs

SIZES = {"train": 300, "test": 70}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """Digits as a folder of PNG files."""
  folder = tmp_path_factory.mktemp("digits")
  source = data.load("digits")
  for split, dataset in (("train", source.train), ("test", source.test)):
    for position in range(SIZES[split]):
      path = folder / split / str(dataset["labels"][position]) / f"{position:04}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      PIL.Image.fromarray(dataset["inputs"][position, ..., 0]).save(path)
  return folder


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("DYNSEL_CACHE", str(tmp_path / "cache"))


def _config(root, selector, *, streamed, name="folder", **changes):
  """Three epochs of at most five steps on the folder, or on a prepared set."""
  made = small_runs.config(selector, epochs=3, batch_size=64, eval_batch_size=32, **changes)
  made.dataset.update(name=name, data_dir=str(root))
  if streamed:
    made.dataset.update(stream=True, image_size=0, image_mode="L", threads=2)
  return made


def _assert_same_run(one, other, workdirs):
  np.testing.assert_array_equal(one.usage.visits, other.usage.visits)
  np.testing.assert_array_equal(one.plan.indices, other.plan.indices)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
  jax.tree.map(close, one.train.params, other.train.params)
  for line, same in zip(*(small_runs.lines(workdir) for workdir in workdirs), strict=True):
    assert same.pop("corrupt") == 0
    for name in line:
      assert same[name] == pytest.approx(line[name], rel=1e-6), name


@pytest.mark.parametrize(
  ("selector", "num_devices", "changes"),
  [
    ("random", 1, {"dataset__augmentations": ("crop", "flip")}),  # those that the device does
    ("infobatch", 2, {}),
    ("eswp", 1, {"selector__anneal_first": 0.1}),
    ("eswp", 2, {"selector__anneal_first": 0.1}),  # a device trains on rows that another one was given
    ("kakurenbo", 1, {}),
  ],
)
def test_a_streamed_folder_trains_as_one_in_memory(selector, num_devices, changes, root, tmp_path):
  states = []
  for streamed in (False, True):
    made = _config(root, selector, streamed=streamed, **changes)
    states.append(small_runs.train(made, tmp_path / str(streamed), num_devices)[1])
  _assert_same_run(*states, [tmp_path / "False", tmp_path / "True"])


def test_a_prepared_set_streams_what_it_holds_in_memory(root, tmp_path):
  digits = data.load("digits")
  splits = {
    split: (dataset["inputs"][: SIZES[split]], dataset["labels"][: SIZES[split]])
    for split, dataset in (("train", digits.train), ("test", digits.test))
  }
  image_sets.prepare(tmp_path, "tiny_digits", splits, channels=1, num_classes=10)
  states, sources = [], []
  for streamed in (False, True):
    made = _config(tmp_path, "infobatch", streamed=streamed, name="tiny_digits")
    sources.append(data.prepare(made.dataset.to_dict()))
    states.append(small_runs.train(made, tmp_path / str(streamed))[1])
  _assert_same_run(*states, [tmp_path / "False", tmp_path / "True"])
  whole, streamed = sources
  assert isinstance(streamed.train["inputs"], stream.Images)
  for dataset, other in ((whole.train, streamed.train), (whole.test, streamed.test)):
    np.testing.assert_array_equal(dataset["inputs"], other["inputs"][:])
    np.testing.assert_array_equal(dataset["labels"], other["labels"])
    assert dataset["inputs"].shape == other["inputs"].shape
  assert (whole.mean, whole.std, whole.class_names) == (streamed.mean, streamed.std, streamed.class_names)


def test_indices_of_any_shape_give_images_in_that_shape(root):
  images = data.prepare(_config(root, "random", streamed=True).dataset.to_dict()).train["inputs"]
  whole = images[:]
  for rows in ([[3, 0, 299], [-1, 7, 7]], [[[4]]], np.zeros((2, 0), int), slice(5, 5), 11):
    np.testing.assert_array_equal(images[np.array(rows) if isinstance(rows, list) else rows], whole[rows])


def test_the_examples_of_a_streamed_set_are_those_of_a_set_in_memory(root):
  streamed = data.prepare(_config(root, "random", streamed=True).dataset.to_dict())
  dataset = streamed.train
  whole = streamed._replace(train={"inputs": dataset["inputs"][:], "labels": dataset["labels"]})
  columns = {"rarity": np.random.default_rng(0).random(SIZES["train"])}
  found, wanted = (fit_factors._sample_examples(columns, source) for source in (streamed, whole))
  assert found["class_rarity_images"].shape[:2] == found["class_rarity_samples"].shape == (10, fit_factors.NUM_BEST)
  for name, array in wanted.items():
    np.testing.assert_array_equal(found[name], array)


@pytest.fixture
def damaged(root, tmp_path):
  """The folder with two training images and a test image cut off; returns their indices too."""
  folder = tmp_path / "damaged"
  shutil.copytree(root, folder)
  found = {}
  for split, positions in (("train", (5, 6)), ("test", (3,))):
    files = sorted((folder / split).rglob("*.png"))
    for position in positions:
      files[position].write_bytes(files[position].read_bytes()[:40])
    found[split] = (list(positions), [files[position] for position in positions])
  return folder, found


def test_a_run_with_crops_and_damaged_files_continues_with_the_same_bits(damaged, tmp_path, monkeypatch):
  folder, found = damaged
  made = _config(folder, "infobatch", streamed=True, checkpoint_every_steps=2)
  made.dataset.update(augmentations=("resized_crop", "flip"), image_size=6, resize=7)
  summary, state = small_runs.train(made, tmp_path / "alone")
  with pytest.MonkeyPatch.context() as patch:
    small_runs.interrupted_at(7, patch)  # in the middle of the second epoch
    with pytest.raises(Interrupted, match="step 7"):
      small_runs.train(made, tmp_path / "stopped")
  continued, same = small_runs.train(made, tmp_path / "stopped")
  assert continued["resumed_from"] == [7]
  small_runs.same_state(state, same)
  assert small_runs.lines(tmp_path / "alone") == small_runs.lines(tmp_path / "stopped")
  assert summary["corrupt"] == continued["corrupt"] == 3

  lines = small_runs.lines(tmp_path / "alone")
  assert [line["corrupt"] for line in lines] == [3, 3, 3]
  # Others stood in, so that the method has a loss of every sample and can begin to leave some out.
  assert lines[0]["backward_visits"] == SIZES["train"] == lines[0]["size"] == lines[0]["unique_seen"]
  assert lines[1]["size"] < SIZES["train"]
  assert np.isfinite(state.usage.last_loss[found["train"][0]]).all()
  assert lines[0]["test_accuracy"] * (SIZES["test"] - 1) % 1 == pytest.approx(0, abs=1e-4)


def test_nothing_is_traced_or_compiled_once_the_programs_are(root, tmp_path, monkeypatch):
  seen, marks, compile_programs, finish = [], [], trainer.Trainer.compile, trainer.Trainer.finish

  def marking(self):
    compile_programs(self)
    marks.append(len(seen))

  def ending(self, accuracy):
    marks.append(len(seen))
    return finish(self, accuracy)  # Orbax compiles what it saves with, where this process has not saved before

  def listener(event, seconds, **details):
    del seconds
    if "trace" in event or "compile" in event:
      seen.append((event, details))

  monkeypatch.setattr(trainer.Trainer, "compile", marking)
  monkeypatch.setattr(trainer.Trainer, "finish", ending)
  jax.monitoring.register_event_duration_secs_listener(listener)
  small_runs.train(_config(root, "kakurenbo", streamed=True), tmp_path, 2)
  jax.monitoring.unregister_event_duration_listener(listener)
  compiled, ended = marks
  assert compiled > 0 and seen[compiled:ended] == []


def test_one_damaged_file_too_many_stops_the_run_in_one_line(damaged, tmp_path):
  folder, found = damaged
  made = _config(folder, "full", streamed=True, dataset__corrupt_limit=1)
  with pytest.raises(options.UserError, match="is damaged image 2, more than dataset.corrupt_limit=1 allows") as caught:
    small_runs.train(made, tmp_path / "run")
  assert not (tmp_path / "run" / "summary.json").exists()
  assert "\n" not in str(caught.value)
  assert any(str(path) in str(caught.value) for path in found["train"][1])


def test_an_image_of_another_size_stops_the_run_in_one_line(root, tmp_path):
  folder = tmp_path / "sizes"
  shutil.copytree(root, folder)
  path = sorted((folder / "train").rglob("*.png"))[-1]
  PIL.Image.fromarray(np.zeros((9, 8), np.uint8)).save(path)
  with pytest.raises(options.UserError, match="has 8x9 pixels and the first image 8x8; set dataset.image_size"):
    small_runs.train(_config(folder, "full", streamed=True), tmp_path / "run")


def _numbered(size, damaged=(), limit=100):
  """Images of 2x2 pixels that are their index; labels are ten more."""

  def read(index):
    if index in damaged:
      return b"something else"
    return image_sets.encoded(np.full((2, 2, 1), index, np.uint8)).getvalue()

  images = stream.Images(size, read, str, image_ops.View(0, 0, "L"), corrupt_limit=limit, threads=3)
  return {"inputs": images, "labels": np.arange(10, 10 + size, dtype=np.int32)}


def _joined(rows):
  """The inputs and labels of all steps; a row is readable where it has a label."""
  for row in rows:
    np.testing.assert_array_equal(row.readable, row.batch["labels"] >= 0)
  return (np.concatenate([row.batch[field] for row in rows]) for field in ("inputs", "labels"))


def test_rows_come_in_the_order_of_the_plan_with_padding_at_its_end():
  plan = np.random.default_rng(0).permutation(50).astype(np.int32)[:37]
  slots = np.arange(40).reshape(5, 8)
  rows = list(stream.read_ahead(_numbered(50), plan, slots))
  inputs, labels = _joined(rows)
  np.testing.assert_array_equal(labels, [*(plan + 10), -1, -1, -1])
  np.testing.assert_array_equal(inputs[:, 1, 1, 0], [*plan, 0, 0, 0])
  assert inputs.shape == (40, 2, 2, 1) and inputs.dtype == np.uint8
  later = list(stream.read_ahead(_numbered(50), plan, slots[3:]))
  for one, other in zip(rows[3:], later, strict=True):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_next_sample_of_the_plan_stands_in_for_a_damaged_one():
  plan, slots = np.array([4, 2, 7, 9], np.int32), np.arange(4).reshape(2, 2)
  for replace, expected in ((True, [14, 17, 17, 14]), (False, [14, -1, 17, -1])):
    dataset = _numbered(12, damaged=(0, 2, 9))
    inputs, labels = _joined(list(stream.read_ahead(dataset, plan, slots, replace=replace)))
    assert labels.tolist() == expected
    assert inputs[:, 0, 0, 0].tolist() == [max(label - 10, 0) for label in expected]
    assert np.flatnonzero(dataset["inputs"].corrupt).tolist() == [0, 2, 9]  # the first was read for its shape
  with pytest.raises(options.UserError, match="none of the 2 images of the epoch can be decoded"):
    list(stream.read_ahead(_numbered(12, damaged=(2, 9)), np.array([2, 9], np.int32), slots, replace=True))


def test_processes_share_the_slots_of_a_step(root, monkeypatch):
  source = data.prepare(_config(root, "full", streamed=True).dataset.to_dict())
  devices = parallel.local_devices(small_runs.devices(2))
  streamed = feed.Streamed(source, jax.random.key(0), devices, batch_size=8, eval_batch_size=8, cropped=False)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  parts = []
  for process in range(2):
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    parts.append(streamed._slots("train", 21, 1))
  np.testing.assert_array_equal(np.concatenate(parts, axis=1), np.arange(8, 24).reshape(2, 8))


def test_a_crop_depends_on_epoch_and_sample_and_not_on_where_it_stands(root):
  made = _config(root, "full", streamed=True)
  made.dataset.update(image_size=6, resize=7)
  streamed = feed.Streamed(
    data.prepare(made.dataset.to_dict()),
    jax.random.key(0),
    parallel.local_devices(small_runs.devices(2)),
    batch_size=8,
    eval_batch_size=8,
    cropped=True,
  )

  def crops(indices, epoch, first=0):
    plan = Plan(jnp.asarray([*indices, -1, -1], jnp.int32), jnp.ones(12), jnp.int32(10))
    inputs = [np.asarray(arrays.train.batch["inputs"]) for arrays in streamed.training(plan, epoch, first)]
    return np.concatenate([of_step.reshape(8, 6, 6, 1) for of_step in inputs])[: 10 - 8 * first]

  samples = np.arange(100, 110)
  in_order = crops(samples, epoch=0)
  np.testing.assert_array_equal(in_order, crops(samples[::-1], epoch=0)[::-1])
  np.testing.assert_array_equal(in_order[8:], crops(samples, epoch=0, first=1))
  assert not np.array_equal(in_order, crops(samples, epoch=1))


def test_a_crop_depends_on_its_generator_alone_and_covers_what_the_recipe_says():
  across = np.broadcast_to(np.arange(240, dtype=np.uint8), (200, 240))
  image = PIL.Image.fromarray(across)
  fractions = []
  for number in range(200):
    crop, again = (image_ops.random_resized_crop(np.random.default_rng(number), image, 16) for _ in range(2))
    np.testing.assert_array_equal(crop, again)
    assert crop.size == (16, 16)
    columns = image_ops.pixels(crop)[0, :, 0].astype(float)
    fractions.append((columns[-1] - columns[0]) * 16 / 15 / 240)  # of the width
  # Areas from 8 % on, and widths to heights from 3/4 to 4/3.
  assert 0.2 < min(fractions) < 0.35 and 0.95 < max(fractions) <= 1.01
  assert image_ops.random_resized_crop(np.random.default_rng(0), image.resize((240, 3)), 16).size == (16, 16)


def test_evaluation_sees_the_centre():
  image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8))
  found = image_ops.pixels(image_ops.centre(image, image_ops.View(12, 20, "RGB")))
  np.testing.assert_array_equal(found, np.asarray(image)[4:16, 10:22])  # (31 - 12) / 2 is rounded to even
  assert image_ops.centre(image, image_ops.View(12, 16, "RGB")).size == (12, 12)
  assert image_ops.centre(image, image_ops.View(0, 0, "RGB")) is image


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"resize": 5, "image_size": 6}, "dataset.resize=5 must be 0 or at least dataset.image_size=6"),
    ({"image_mode": "HSV"}, "dataset.image_mode='HSV' is not known"),
    ({"threads": -1}, "dataset.threads=-1 must be at least 0"),
    ({"thread": 1}, "dataset 'folder' has no option 'thread'"),
    ({"augmentations": ("resized_crop",)}, "resized_crop needs a dataset.image_size greater than 0"),
    ({"augmentations": ("zoom",)}, "augmentations='zoom' is not known"),
  ],
)
def test_a_wrong_option_is_named(root, tmp_path, changes, line):
  made = _config(root, "full", streamed=True)
  made.dataset.update(changes)
  with pytest.raises(options.UserError, match=line):
    small_runs.train(made, tmp_path / "run")


def test_principal_components_of_pixels_are_not_taken_from_a_stream(root, tmp_path):
  with pytest.raises(options.UserError, match="features.name=pixels needs all images in memory, but dataset.name="):
    small_runs.train(_config(root, "rrd", streamed=True), tmp_path / "run")


@pytest.mark.parametrize(
  ("selector", "changes", "epochs"),
  [
    ("full", {}, 90),
    ("random", {"selector__keep_fraction": 0.3}, 300),
    ("rrd", {"selector__keep_fraction": 0.3, "selector__refinement": 0.1}, 243),  # 90 / (0.1 + 0.9 * 0.3)
  ],
)
def test_matched_steps_raise_the_epochs_by_what_is_left_out(selector, changes, epochs):
  made = imagenet.get_config(f"selector={selector}")
  made.match_steps = True
  made.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
  raised = setup.matched(made.lock())
  assert raised.epochs == epochs == setup.matched(raised).epochs
  assert made.epochs == 90


@pytest.mark.parametrize(
  ("selector", "own", "wrapper", "fraction"),
  [
    ("rrd", {"refinement": 0.15}, {"first": 0.0, "last": 0.15}, 0.15),
    ("rrd", {"refinement": 0.15}, {"first": 0.1, "last": 0.25}, 0.35),
    ("rrd", {"refinement": 0.8}, {"first": 0.6, "last": 0.0}, 1.0),
    ("eswp", {"anneal_first": 0.2, "anneal_last": 0.05}, {"first": 0.1, "last": 0.1}, 0.3),
  ],
)
def test_full_epochs_of_a_selector_and_of_its_wrapper_are_joined(selector, own, wrapper, fraction):
  made = imagenet.get_config(f"selector={selector},wrap=annealed")
  made.selector.update(own)
  made.wrappers.annealed.update(wrapper)
  assert setup.full_fraction(made) == pytest.approx(fraction)


def test_a_run_with_matched_steps_takes_those_of_full_training(tmp_path):
  made = small_runs.config("random", epochs=3, match_steps=True, selector__keep_fraction=0.5)
  summary, _ = small_runs.train(made, tmp_path)
  assert summary["epochs"] == 6 and summary["backward_visits"] == 3 * 1442
  with pytest.raises(options.UserError, match="match_steps=True needs a selector.keep_fraction; selector=infobatch"):
    small_runs.train(small_runs.config("infobatch", match_steps=True), tmp_path / "other")
