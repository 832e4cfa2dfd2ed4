"""Loads data sets by name: `digits`, `diabetes`, folders of images, TensorFlow Datasets, or a user's own. Host-side."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from dynsel_jax import options
from dynsel_jax.data import folders, hugging_face, tfds_images
from dynsel_jax.data.source import Source, from_arrays
from dynsel_jax.options import UserError

__all__ = ["defaults", "is_path", "load"]

_FOLDERS = ("data_dir", "cache_dir")  # every config has these, so they are no data set's own options


def is_path(name: str) -> bool:
  """Whether a name is the path of a user's own loader, `my_lab.my_data:load`, and not a version, `cifar10:3.0.2`."""
  return not name.startswith(hugging_face.PREFIX) and name.partition(":")[2].isidentifier()


def defaults(name: str) -> dict[str, Any]:
  """Returns the options that are particular to the data set `name`, with their defaults."""
  if is_path(name):
    return {k: v for k, v in options.keyword_defaults(_own(name)).items() if k not in _FOLDERS}
  if name.startswith(hugging_face.PREFIX):
    return options.keyword_defaults(hugging_face.read_images)
  return options.keyword_defaults(folders.read) if name == "folder" else {}


def load(name: str, *, data_dir: str | None = None, cache_dir: str = "", **settings: Any) -> Source:
  """Loads the data set `name`.

  Args:
    name: "digits" (scikit-learn's 1,797 images of 8x8), "diabetes" (scikit-learn's 442 patients with a number to
      predict), "folder" (your images, see `folders.read`), "hf:NAME" (images of the library Hugging Face `datasets`,
      see `hugging_face.read_images`; texts are read by `text.load`), an image classification set of TensorFlow
      Datasets, for example "cifar10", "fashion_mnist" or "emnist/balanced", whose test set is the split "test", or else
      "validation"; or the path of your own loader, `my_lab.my_data:load`: a function of keyword-only options that
      returns a `Source`, most simply by `data.from_arrays`. `data_dir` and `cache_dir` are passed on to options of
      these names.
    data_dir: the folder, or the one in which TensorFlow Datasets looks, by default its own. Nothing is downloaded.
    cache_dir: the folder of the cache for decoded images, by default `cache.default_directory()`.
    **settings: options of the data set, see `defaults(name)`.

  Raises:
    UserError: the data set is unknown, not prepared, or not made of images of one size with one label each; or an
      option is wrong.
  """
  options.check_settings("dataset", name, settings, defaults(name))
  data_dir = options.expand_home("dataset.data_dir", os.fspath(data_dir)) if data_dir else None
  if is_path(name):
    known = options.keyword_defaults(_own(name))
    given = {k: v for k, v in (("data_dir", data_dir), ("cache_dir", cache_dir)) if v and k in known}
    source = options.called("dataset.name", name, _own(name), **settings, **given)
    if not isinstance(source, Source):
      raise UserError(
        f"dataset.name={name!r} must return a dynsel_jax.data.Source, not {type(source).__name__};"
        " dynsel_jax.data.from_arrays builds one"
      )
    return source
  if name == "diabetes":
    return from_arrays(name, **_diabetes())
  if name == "digits":
    splits, class_names = _digits()
  elif name == "folder":
    splits, class_names = folders.read(data_dir, cache_dir, **settings)
    name = folders.set_name(pathlib.Path(data_dir or "").absolute())
  elif name.startswith(hugging_face.PREFIX):
    splits, class_names = hugging_face.read_images(name, data_dir, **settings)
  else:
    splits, class_names = tfds_images.read(name, data_dir, cache_dir)
  train, test = ({"inputs": inputs, "labels": labels} for inputs, labels in splits.values())
  return from_arrays(name, train, test, class_names=class_names)


def _own(name: str) -> Callable[..., Any]:
  return options.named_or_imported("dataset.name", name, {})


def _digits() -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
  """Loads scikit-learn's digits; every fifth sample of each class is a test sample."""
  from sklearn.datasets import load_digits

  raw = load_digits()
  inputs = np.rint(raw.images[..., None] * (255 / 16)).astype(np.uint8)
  labels = raw.target.astype(np.int32)
  in_test = np.zeros(len(labels), bool)
  for label in range(10):
    in_test[np.flatnonzero(labels == label)[4::5]] = True
  splits = {"train": (inputs[~in_test], labels[~in_test]), "test": (inputs[in_test], labels[in_test])}
  return splits, tuple(map(str, raw.target_names))


def _diabetes() -> dict[str, Any]:
  """Loads scikit-learn's diabetes set, standardised by its training rows; every fifth row is a test row."""
  from sklearn.datasets import load_diabetes

  inputs, targets = load_diabetes(return_X_y=True, scaled=False)
  in_test = np.arange(len(targets)) % 5 == 4

  def standardised(values: np.ndarray) -> np.ndarray:
    train = values[~in_test]
    return ((values - train.mean(axis=0)) / train.std(axis=0)).astype(np.float32)

  inputs, targets = standardised(inputs), standardised(targets)
  return {
    split: {"inputs": inputs[rows], "targets": targets[rows]}
    for split, rows in (("train", ~in_test), ("test", in_test))
  }
