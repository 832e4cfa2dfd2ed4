"""Image folders: every pixel and label as they lie there, and one line for what cannot be read."""

import re
import shutil
import subprocess

import numpy as np
import PIL.Image
import pytest

from configs import folder, tiny_imagenet
from dynsel_jax import data
from dynsel_jax.data import stream_sets
from dynsel_jax.options import UserError
from tests.support import small_runs

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("DYNSEL_CACHE", str(tmp_path / "cache"))


def _save(path, shape=(4, 5, 3), mode=None):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = RANDOM.integers(0, 256, shape, np.uint8)
  image = PIL.Image.fromarray(pixels.squeeze())
  (image.convert(mode) if mode else image).save(path)
  return pixels


@pytest.fixture
def root(tmp_path):
  """Two classes, three training images and one test image each; `pixels` of a file beside it."""
  for split, count in (("train", 3), ("test", 1)):
    for name in ("dog", "cat"):
      for position in range(count):
        _save(tmp_path / "pets" / split / name / f"{position}.png")
  return tmp_path / "pets"


def _load(root, **settings):
  return data.load("folder", data_dir=str(root), **settings)


def _stream(root, **settings):
  return stream_sets.load("folder", data_dir=str(root), **{"image_size": 0, "resize": 0} | settings)


READ_LATER = ("size", "mode", "first mode", "alpha", "no image", "cut", "empty file")  # a stream may lack some images


def _pixels(path):
  with PIL.Image.open(path) as image:
    return np.asarray(image)


def test_every_image_is_read_with_its_class(root):
  source = _load(root)
  assert source.name == "pets"
  assert source.class_names == ("cat", "dog")
  np.testing.assert_array_equal(source.train["labels"], [0, 0, 0, 1, 1, 1])
  np.testing.assert_array_equal(source.test["labels"], [0, 1])
  assert source.train["inputs"].dtype == np.uint8 and source.train["labels"].dtype == np.int32
  files = [root / "train" / name / f"{position}.png" for name in ("cat", "dog") for position in range(3)]
  np.testing.assert_array_equal(source.train["inputs"], [_pixels(file) for file in files])
  np.testing.assert_array_equal(source.test["inputs"], [_pixels(root / "test" / n / "0.png") for n in ("cat", "dog")])


def test_grey_images_have_one_channel_and_val_stands_in_for_test(tmp_path):
  pixels = [_save(tmp_path / "train" / name / "a.png", (4, 4, 1)) for name in "ab"]
  _save(tmp_path / "val" / "a" / "a.png", (4, 4, 1))  # no test image of the other class
  source = _load(tmp_path)
  np.testing.assert_array_equal(source.train["inputs"], pixels)
  np.testing.assert_array_equal(source.test["labels"], [0])


def test_images_are_read_once_and_again_when_one_changes(root, monkeypatch):
  before = _load(root)
  opened, original = [], PIL.Image.open
  monkeypatch.setattr(PIL.Image, "open", lambda file, **options: opened.append(file) or original(file, **options))
  same = _load(root)
  assert opened == []
  assert same.fingerprint == before.fingerprint
  pixels = _save(root / "train" / "dog" / "2.png")
  np.testing.assert_array_equal(_load(root).train["inputs"][-1], pixels)
  shutil.move(root / "train" / "dog" / "2.png", root / "train" / "cat" / "2.png")
  np.testing.assert_array_equal(_load(root).train["labels"], [0, 0, 0, 1, 1])


def test_size_and_mode_are_options(root):
  half = np.zeros((6, 12, 3), np.uint8)
  half[:, :6] = 255  # left half white: the centre's left half too
  PIL.Image.fromarray(half).save(root / "train" / "cat" / "0.png")
  _save(root / "train" / "cat" / "1.png", (9, 9, 1))
  _save(root / "train" / "cat" / "2.png", (9, 9, 3), "P")
  source = _load(root, image_size=6, image_mode="RGB")
  assert source.train["inputs"].shape == (6, 6, 6, 3)
  np.testing.assert_array_equal(source.train["inputs"][0], half[:, 3:9])
  grey = _load(root, image_size=6, image_mode="L")
  assert grey.train["inputs"].shape == (6, 6, 6, 1)
  assert grey.fingerprint != source.fingerprint


def _break(root, what):
  path = root / "train" / "dog" / "1.png"
  if what == "empty class":
    shutil.rmtree(root / "train" / "dog")
    (root / "train" / "dog").mkdir()
  elif what == "other files":
    for path in (root / "train" / "dog").iterdir():
      path.rename(path.with_suffix("" if path.name == "2.png" else ".TXT"))
  elif what == "one class":
    shutil.rmtree(root / "train" / "dog")
  elif what == "one class of folders":
    (root / "train").rename(root / "images")
    (root / "train").mkdir()
    (root / "images").rename(root / "train" / "images")
  elif what == "one folder too high":
    (root / "pets").mkdir()
    for split in ("train", "test"):
      (root / split).rename(root / "pets" / split)
  elif what == "same folder":
    (root / "train" / "twin").symlink_to(root / "train" / "dog")
  elif what == "empty file":
    path.write_bytes(b"")
  elif what == "file for a folder":
    shutil.rmtree(root / "train")
    (root / "train").write_text("")
  elif what == "file for all":
    shutil.rmtree(root)
    root.write_text("")
  elif what == "other case":
    (root / "test" / "dog").rename(root / "test" / "Dog")
  elif what == "alpha":
    _save(root / "train" / "cat" / "0.png", (4, 5, 4))
  elif what == "class of the test alone":
    _save(root / "test" / "bird" / "0.png")
  elif what == "size":
    _save(path, (5, 4, 3))
  elif what == "mode":
    _save(path, (4, 5, 1))
  elif what == "first mode":
    _save(root / "train" / "cat" / "0.png", mode="P")
  elif what == "no image":
    path.write_text("no image")
  elif what == "cut":
    path.write_bytes(path.read_bytes()[:60])
  elif what == "no test":
    shutil.rmtree(root / "test")
  elif what == "no class":
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
  elif what == "nothing":
    shutil.rmtree(root)


@pytest.mark.parametrize(
  ("what", "line"),
  [
    ("empty class", r"train/dog contains no image file \(.png, .jpg or another suffix that Pillow reads\)$"),
    ("other files", r"train/dog contains no image file .*; it contains .txt 2, without a suffix 1"),
    ("class of the test alone", "test/bird is a class without training images: there is no folder train/bird"),
    ("size", r"train/dog/1.png has 4x5 pixels and \S*train/cat/0.png 5x4; set dataset.image_size"),
    ("mode", r"train/dog/1.png has mode L and \S*train/cat/0.png RGB; set dataset.image_mode=RGB"),
    ("first mode", "train/cat/0.png has mode P; set dataset.image_mode=RGB"),
    ("no image", "train/dog/1.png cannot be read as an image"),
    ("cut", "train/dog/1.png cannot be read as an image"),
    ("no test", r"dataset.data_dir='\S*pets' must be a folder that contains test/CLASS/\*.png or val/CLASS"),
    ("one class", r"train holds one class, cat; a classifier needs two$"),
    ("one class of folders", r"train holds one class, images; .*; images/ holds the folders cat, dog: if these are"),
    ("one folder too high", r"must be a folder that contains train/CLASS/\*.png; \S*pets/pets contains train/: name"),
    ("same folder", r"train/dog and \S*train/twin are the same folder; a class must have images of its own"),
    ("empty file", "train/dog/1.png cannot be read as an image: the file is empty"),
    ("file for a folder", r"must be a folder that contains train/CLASS/\*.png"),
    ("file for all", r"must be a folder that contains train/CLASS/\*.png; it is a file"),
    ("other case", "test/Dog is a class without training images: there is no folder train/Dog, only train/dog"),
    ("alpha", "train/cat/0.png has mode RGBA; set dataset.image_mode=RGB"),
    ("no class", "train contains no class: it must contain a folder of images for each class"),
    ("nothing", r"dataset.data_dir='\S*pets' must be a folder that contains train/CLASS/\*.png"),
  ],
)
def test_what_cannot_be_read_is_named_in_one_line(root, what, line):
  _break(root, what)
  for load in (_load, _stream):
    if load is _stream and what in READ_LATER:
      continue
    with pytest.raises(UserError, match=line) as caught:
      load(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("settings", "line"),
  [
    ({"image_size": -1}, "dataset.image_size=-1 must be at least 0"),
    ({"image_mode": "HSV"}, "dataset.image_mode='HSV' is not known; known: L, RGB"),
    ({"image_height": 3}, "dataset 'folder' has no option 'image_height'"),
    ({"test_folder": "holdout"}, "that contains holdout/CLASS"),
  ],
)
def test_a_wrong_option_is_named(root, settings, line):
  with pytest.raises(UserError, match=line):
    _load(root, **settings)
  with pytest.raises(UserError, match="dataset 'digits' has no option 'image_size'"):
    data.load("digits", image_size=8)


def test_a_run_trains_on_a_folder_and_says_once_what_was_read(root, tmp_path, capsys):
  made = folder.get_config("size=smoke,selector=random")
  made.dataset.data_dir = str(root)
  made.update(batch_size=2, eval_batch_size=2)
  made.model.update(width=4, stages=1)
  made.selector.keep_fraction = 0.5
  summary, _ = small_runs.train(made, tmp_path / "run")
  assert summary["backward_visits"] == 3
  line = "pets: train: 6 images of 2 classes (cat 3, dog 3); test: 2 images of 2 classes (cat 1, dog 1)\n"
  assert capsys.readouterr().err.count(line) == 1


def test_tiny_imagenet_is_read_as_it_is_unpacked_and_sorted(tmp_path):
  root = tmp_path / "tiny-imagenet-200"
  for name in ("n01", "n02"):
    for position in range(2):
      _save(root / "train" / name / "images" / f"{name}_{position}.JPEG", (8, 8, 3 if position else 1))
    (root / "train" / name / f"{name}_boxes.txt").write_text("n01_0.JPEG\t0\t10\t63\t58\n")
  classes = ["n02", "n01", "n02"]
  for position in range(3):
    _save(root / "val" / "images" / f"val_{position}.JPEG", (8, 8, 3))
  lines = [f"val_{position}.JPEG\t{name}\t0\t32\t44\t62\n" for position, name in enumerate(classes)]
  (root / "val" / "val_annotations.txt").write_text("".join(lines))
  _save(root / "test" / "images" / "test_0.JPEG", (8, 8, 3))

  commands = re.search(r"    cd tiny-imagenet-200/val\n    (while .*)\n", tiny_imagenet.__doc__).group(0)
  subprocess.run(["bash", "-ec", commands], cwd=tmp_path, check=True)
  made = tiny_imagenet.get_config()
  made.dataset.data_dir = str(root)
  source = data.prepare(made.dataset.to_dict())
  assert source.train["inputs"].shape == (4, 8, 8, 3)
  np.testing.assert_array_equal(source.train["labels"], [0, 0, 1, 1])
  np.testing.assert_array_equal(source.test["labels"], [0, 1, 1])
