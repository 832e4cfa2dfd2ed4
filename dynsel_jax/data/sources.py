"""Image classification sets as uint8 arrays in memory: `digits`, folders of images, sets of TensorFlow Datasets.

Host-side. `N` is the number of samples, `H`, `W`, `C` are height, width and channels of an image.
"""

import hashlib
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_digits

from dynsel_jax import options
from dynsel_jax.data import folders, tfds_images
from dynsel_jax.options import UserError

__all__ = [
  "Dataset",
  "Source",
  "Text",
  "channel_statistics",
  "check_classes",
  "defaults",
  "fingerprint",
  "load",
  "statistics_of_chunks",
]

_CHUNK = 4096  # images whose statistics are taken at a time


class Dataset(NamedTuple):
  """Inputs and labels; NumPy arrays here, and arrays of the device once they are placed."""

  inputs: Any  # images [N, H, W, C] uint8, or token ids [N, L] int32
  labels: Any  # [N] int32, in [0, num_classes)


class Text(NamedTuple):
  """What is known of a set of texts beside their token ids."""

  train: tuple[str, ...]  # the training samples' texts
  pad_id: int  # the id that fills a row up to the set's L tokens
  vocabulary: int  # ids lie in [0, vocabulary)
  lengths: tuple[int, ...]  # that a batch may be cut to, ascending; the last is L


class Source(NamedTuple):
  """A data set with what is known of it."""

  name: str
  train: Dataset
  test: Dataset
  num_classes: int
  mean: tuple[float, ...]  # by channel, of the training images divided by 255; empty for texts
  std: tuple[float, ...]  # likewise; 1 for a channel that never changes, so that one can divide by it
  fingerprint: str  # 64 hexadecimal digits, a hash of all inputs and labels
  inputs_fingerprint: str  # likewise, of the training inputs alone: the same whatever noise the labels have
  class_names: tuple[str, ...] = ()  # in the order of the labels; empty where they have no names
  true_labels: np.ndarray | None = None  # [N] int32 of the training samples, where `train.labels` has noise
  validation: Dataset | None = None  # where there is one beside the test set
  text: Text | None = None  # None for images

  @property
  def noisy(self) -> np.ndarray | None:
    """Which training labels are wrong, `[N]` bool; None without label noise."""
    return None if self.true_labels is None else self.train.labels != self.true_labels


def defaults(name: str) -> dict[str, Any]:
  """Returns the options that the data set `name` alone has, with their defaults."""
  return options.keyword_defaults(folders.read) if name == "folder" else {}


def load(name: str, *, data_dir: str | None = None, cache_dir: str = "", **settings: Any) -> Source:
  """Returns the data set called `name`.

  Args:
    name: "digits" (scikit-learn's 1,797 images of 8x8), "folder" (your images, see `folders.read`), or an image
      classification set of TensorFlow Datasets, for example "cifar10", "fashion_mnist", "emnist/balanced". Its test
      set is the split "test", or else "validation".
    data_dir: the folder, or where TensorFlow Datasets looks, by default where it always does. Nothing is downloaded.
    cache_dir: where decoded images are kept, by default `cache.default_directory()`.
    **settings: options of that set, see `defaults(name)`.

  Raises:
    UserError: the set is not known, not prepared, or no image classification set with images of one size, or an
      option is wrong.
  """
  options.check_settings("dataset", name, settings, defaults(name))
  if name == "digits":
    splits, class_names = _digits()
  elif name == "folder":
    splits, class_names = folders.read(data_dir, cache_dir, **settings)
    name = pathlib.Path(data_dir or "").absolute().name
  else:
    splits, class_names = tfds_images.read(name, data_dir, cache_dir)
  num_classes = len(class_names)
  train, test = (_checked(name, split, Dataset(*arrays), num_classes) for split, arrays in splits.items())
  check_classes(name, train.labels, num_classes)
  if train.inputs.shape[1:] != test.inputs.shape[1:]:
    raise UserError(
      f"dataset={name!r} has training images of {train.inputs.shape[1:]} and test images of {test.inputs.shape[1:]}"
    )
  mean, std = channel_statistics(train.inputs)
  prints = fingerprint(*train, *test), fingerprint(train.inputs)
  return Source(name, train, test, num_classes, mean, std, *prints, class_names)


def check_classes(name: str, labels: np.ndarray, num_classes: int) -> None:
  """Raises `UserError` if one of the classes has no training sample."""
  empty = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
  if empty.size:
    raise UserError(f"dataset={name!r} has no training sample of class {empty[0]}, of {num_classes} classes")


def channel_statistics(inputs: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns mean and standard deviation of each channel of `[N, H, W, C]` uint8 images divided by 255, in float64.

  The pixels are counted by value, so that the result is exact and the images are never held as floats.
  """
  return statistics_of_chunks(inputs[start : start + _CHUNK] for start in range(0, len(inputs), _CHUNK))


def statistics_of_chunks(chunks: Iterable[np.ndarray]) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns `channel_statistics` of images that come a few at a time."""
  counts: Any = 0
  for chunk in chunks:
    by_channel = np.moveaxis(chunk, -1, 0)
    counts = counts + np.stack([np.bincount(of_channel.ravel(), minlength=256) for of_channel in by_channel])
  values = np.arange(256) / 255
  share = counts / counts.sum(axis=1, keepdims=True)
  mean = share @ values
  deviation = np.sqrt(np.sum(share * np.square(values - mean[:, None]), axis=1))
  return tuple(mean.tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist())


def _digits() -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
  """Returns scikit-learn's digits; every fifth sample of each class is a test sample."""
  raw = load_digits()
  inputs = np.rint(raw.images[..., None] * (255 / 16)).astype(np.uint8)
  labels = raw.target.astype(np.int32)
  in_test = np.zeros(len(labels), bool)
  for label in range(10):
    in_test[np.flatnonzero(labels == label)[4::5]] = True
  splits = {"train": (inputs[~in_test], labels[~in_test]), "test": (inputs[in_test], labels[in_test])}
  return splits, tuple(map(str, raw.target_names))


def _checked(name: str, split: str, dataset: Dataset, num_classes: int) -> Dataset:
  labels = dataset.labels
  if not labels.size:
    raise UserError(f"dataset={name!r} has no sample in its split {split!r}")
  wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if wrong.size:
    raise UserError(
      f"dataset={name!r} has label {labels[wrong[0]]} at sample {wrong[0]} of its split {split!r},"
      f" outside [0, {num_classes})"
    )
  return dataset


def fingerprint(*arrays: np.ndarray) -> str:
  """Returns 64 hexadecimal digits that change with any value of the arrays, such as inputs and labels."""
  digest = hashlib.sha256()
  for array in arrays:
    digest.update(repr((array.shape, array.dtype.str)).encode())
    digest.update(np.ascontiguousarray(array).data)
  return digest.hexdigest()
