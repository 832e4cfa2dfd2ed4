"""Reads an image classification set that TensorFlow Datasets has prepared as ArrayRecord, without TensorFlow.

Host-side. Decoded images are cached on disk; see `dynsel_jax/cache.py`.
`N` is the number of samples, `H`, `W`, `C` are height, width and channels of an image.
"""

import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.proto import tf_example_pb2

from dynsel_jax import cache
from dynsel_jax.data import image_decoding, image_files, image_ops
from dynsel_jax.options import UserError

__all__ = ["Prepared", "example", "prepared", "read"]

_CHUNK = 1000  # records fetched at a time
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow mode by number of channels


class Prepared(NamedTuple):
  """A data set that is prepared on disk."""

  full_name: str  # with config and version
  records: dict[str, Any]  # a sequence of serialised examples for each of "train" and "test"
  files: dict[str, list[str]]  # paths of the files of each split
  image_key: str
  label_key: str
  mode: str  # Pillow's name of the colours, one letter per channel, for example "RGB"
  class_names: tuple[str, ...]


def prepared(name: str, data_dir: str | None) -> Prepared:
  """Opens a data set without reading a record; arguments and errors as in `read`."""
  builder = _builder(name, data_dir)
  info = builder.info
  image_key, label_key = _keys(name, info)
  test = next((split for split in ("test", "validation") if split in info.splits), None)
  if "train" not in info.splits or test is None:
    raise UserError(
      f"dataset.name={name!r} must have a split train and a split test or validation; it has {list(info.splits)}"
    )
  splits, raw = {"train": "train", "test": test}, tfds.decode.DeserializeMethod.RAW_BYTES
  return Prepared(
    full_name=info.full_name,
    records={key: builder.as_data_source(split=split, deserialize_method=raw) for key, split in splits.items()},
    files={key: [os.fspath(path) for path in info.splits[split].filepaths] for key, split in splits.items()},
    image_key=image_key,
    label_key=label_key,
    mode=_MODES[info.features[image_key].shape[-1] or 3],
    class_names=tuple(info.features[label_key].names),
  )


def example(record: bytes, found: Prepared) -> tuple[bytes, int]:
  """Returns the encoded image and the label of a record."""
  # Parsed here: the parser that TensorFlow Datasets uses without TensorFlow takes twice as long.
  feature = tf_example_pb2.Example.FromString(record).features.feature
  return feature[found.image_key].bytes_list.value[0], feature[found.label_key].int64_list.value[0]


def read(
  name: str, data_dir: str | None, cache_dir: str = ""
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
  """Reads and decodes a data set.

  Args:
    name: in the spelling of TensorFlow Datasets: "name", "name/config" or "name:version".
    data_dir: the folder in which the set is prepared; None stands for the default of TensorFlow Datasets.
    cache_dir: the folder of the cache for decoded images; see `cache.cached`.

  Returns:
    For each of "train" and "test" the images `[N, H, W, C]` uint8 and labels `[N]` int32; and the class names.

  Raises:
    UserError: the set is unknown or not prepared, its samples are not images with one label each, or its images differ
      in size.
  """
  found = prepared(name, data_dir)

  def build() -> cache.Arrays:
    arrays: cache.Arrays = {}
    for split, records in found.records.items():
      inputs, labels = _decode(name, split, records, found)
      arrays |= {f"{split}_inputs": inputs, f"{split}_labels": labels}
    return arrays

  key = {
    "set": found.full_name,
    "files": [cache.content_digest(pathlib.Path(path)) for paths in found.files.values() for path in paths],
    "features": [found.image_key, found.label_key, len(found.mode)],
    "decoder": [PIL.__version__, image_decoding.RULES],  # Pillow decides the pixels of a JPEG
  }
  arrays = cache.cached("images", key, build, cache_dir)
  return {split: (arrays[f"{split}_inputs"], arrays[f"{split}_labels"]) for split in found.files}, found.class_names


def _builder(name: str, data_dir: str | None) -> Any:
  """Returns the builder of a data set that is prepared in `data_dir`."""
  try:
    builder = tfds.builder(name, data_dir=data_dir)
  except tfds.core.DatasetNotFoundError:
    raise UserError(
      f"dataset.name={name!r} is not known; known: diabetes, digits, folder, any image classification set of TensorFlow"
      " Datasets, and a loader of your own by its path, my_lab.my_data:load"
    ) from None
  except (AssertionError, ImportError, ValueError) as error:
    raise UserError(f"dataset.name={name!r} cannot be opened: {str(error).splitlines()[0]}") from None
  if not _is_prepared(builder) or builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
    where = builder.data_dir_root if data_dir is None else data_dir
    raise UserError(
      f"dataset.name={name!r} is not prepared as ArrayRecord in {where}; in an environment with tensorflow-cpu run:"
      f" tfds build {name} --file_format=array_record --data_dir={where}"
    )
  return builder


def _is_prepared(builder: Any) -> bool:
  """Asks a builder whether its data set is prepared, without its warning: the error that follows says it better."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    return builder.is_prepared()
  finally:
    logging.set_verbosity(verbosity)


def _keys(name: str, info: Any) -> tuple[str, str]:
  """Returns the names of the image and of the label in a record."""
  keys = info.supervised_keys or ("image", "label")
  kinds = (tfds.features.Image, tfds.features.ClassLabel)
  if len(keys) != 2 or not all(
    isinstance(key, str) and key in info.features and type(info.features[key]) is kind
    for key, kind in zip(keys, kinds, strict=True)
  ):
    raise UserError(
      f"dataset.name={name!r} is not an image classification set: it pairs {keys}, not an image with a class"
    )
  if info.features[keys[0]].np_dtype != np.uint8:
    raise UserError(f"dataset.name={name!r} has images of type {info.features[keys[0]].np_dtype}; they must be uint8")
  return keys


def _pixels(encoded: bytes, mode: str, name: str) -> np.ndarray:
  try:
    return image_ops.pixels(image_decoding.decode(encoded, mode).image)
  except image_decoding.DAMAGED as error:
    raise UserError(f"{name} cannot be decoded: {image_files.words_of(error)}") from None


def _decode(name: str, split: str, records: Any, found: Prepared) -> tuple[np.ndarray, np.ndarray]:
  """Decodes the images of one split; returns them and the labels."""
  count = len(records)
  inputs = np.zeros((0, 0, 0, len(found.mode)), np.uint8)
  labels = np.zeros(count, np.int32)
  for start in range(0, count, _CHUNK):
    chunk = range(start, min(start + _CHUNK, count))
    for position, record in zip(chunk, records.__getitems__(chunk), strict=True):
      encoded, labels[position] = example(record, found)
      image = _pixels(encoded, found.mode, f"{found.full_name} {split}[{position}]")
      if position == 0:
        inputs = np.empty((count, *image.shape), np.uint8)
      elif image.shape != inputs.shape[1:]:
        raise UserError(
          f"dataset.name={name!r} has images of different sizes: sample {position} of its split {split!r} has shape"
          f" {image.shape}, the first {inputs.shape[1:]}"
        )
      inputs[position] = image
  return inputs, labels
