"""Data sets of the library Hugging Face `datasets`, from local files; without the library, the line that says so."""

import sys

import numpy as np
import PIL.Image
import pytest

from configs import text as text_config
from dynsel_jax import data, recipes
from dynsel_jax.data import text
from dynsel_jax.options import UserError
from tests.support import small_runs


def test_a_name_of_the_hub_is_no_path_of_a_loader():
  assert not data.is_path("hf:imdb") and data.is_path("my_lab.data:load")


def test_without_the_library_one_line_says_how_to_install_it(monkeypatch):
  monkeypatch.setitem(sys.modules, "datasets", None)
  with pytest.raises(UserError, match=r"the library 'datasets' is not installed: pip install"):
    data.load("hf:imdb")


@pytest.fixture(scope="module")
def datasets():
  library = pytest.importorskip("datasets", reason="needs the extra huggingface")
  library.disable_progress_bars()
  return library


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), np.uint8)


@pytest.fixture(scope="module")
def saved(datasets, images, tmp_path_factory):
  """A set as `save_to_disk` writes it, of which two images are of another size in the split odd."""
  path = tmp_path_factory.mktemp("saved")
  features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "owl"])})

  def split(rows, labels):
    held = [PIL.Image.fromarray(image) for image in rows]
    return datasets.Dataset.from_dict({"img": held, "label": labels}, features=features)

  whole = {"train": split(images[:9], [0, 1, 2] * 3), "validation": split(images[9:], [2, 1, 0])}
  whole["odd"] = split([images[0], images[1][:4]], [0, 1])
  whole["unlabelled"] = split(images[:2], [-1, -1])
  datasets.DatasetDict(whole).save_to_disk(str(path))
  return f"hf:{path}"


def test_images_and_labels_are_those_that_were_saved(saved, images):
  source = data.load(saved, image_column="img")
  np.testing.assert_array_equal(source.train["inputs"], images[:9])
  np.testing.assert_array_equal(source.test["inputs"], images[9:])  # of the split validation, since there is no test
  assert source.labels.tolist() == [0, 1, 2] * 3 and source.test["labels"].tolist() == [2, 1, 0]
  assert source.class_names == ("cat", "dog", "owl")


def test_the_options_are_fields_of_the_config(saved):
  made = recipes.get_config("digits", model="mlp", dataset=saved)
  made.dataset.update(image_column="img", image_size=4, image_mode="L")
  assert data.prepare(made.dataset.to_dict()).train["inputs"].shape == (9, 4, 4, 1)


@pytest.mark.parametrize(
  ("settings", "words"),
  [
    ({}, "has no column 'image'; its columns: img, label; name them in dataset.image_column"),
    ({"image_column": "img", "test": "tset"}, "has the splits train, validation, .*; name one of them in dataset.test"),
    ({"image_column": "img", "test": "odd"}, r"odd\[1\]|has 6x4 pixels .* set dataset.image_size"),
    ({"image_column": "img", "test": "unlabelled"}, r"test\[0\] has the label -1, which is no class"),
  ],
)
def test_what_cannot_be_read_is_named(saved, settings, words):
  with pytest.raises(UserError, match=words):
    data.load(saved, **settings)


def test_texts_of_a_folder_are_those_of_its_files(datasets, tmp_path, monkeypatch):
  monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
  made = text_config.get_config("size=smoke")
  small_runs.planted_texts(made, tmp_path)
  from_files = data.prepare(made.dataset.to_dict())
  section = made.dataset.to_dict() | {"name": f"hf:{tmp_path}", "train": "", "test": ""}
  source = data.prepare(section)
  np.testing.assert_array_equal(source.train["inputs"], from_files.train["inputs"])
  np.testing.assert_array_equal(source.labels, from_files.labels)
  np.testing.assert_array_equal(source.test["inputs"], from_files.test["inputs"])
  with pytest.raises(UserError, match="cannot be loaded|has the splits"):
    data.prepare(section | {"train": "unknown"})
  with pytest.raises(UserError, match="has no column 'topic'"):
    data.prepare(section | {"label_column": "topic"})


def test_a_label_that_no_training_text_has_is_named_with_its_split(datasets, tmp_path, monkeypatch):
  monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
  (tmp_path / "set").mkdir()
  (tmp_path / "set" / "train.csv").write_text("text,label\na b,x\nc d,y\n")
  (tmp_path / "set" / "test.csv").write_text("text,label\ne f,z\n")
  with pytest.raises(UserError, match=r"dataset\.test=test: .* has the label 'z', which does not occur"):
    data.prepare(text.defaults() | {"name": f"hf:{tmp_path / 'set'}"})
