"""Reads an image classification set that TensorFlow Datasets has prepared as ArrayRecord, without TensorFlow.

Host-side. Decoded images are cached on disk; see `dynsel_jax/cache.py`.
`N` is the number of samples, `H`, `W`, `C` are height, width and channels of an image.
"""

import bisect
import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.proto import tf_example_pb2

from dynsel_jax import cache, hashing
from dynsel_jax.data import image_decoding, image_files, image_ops
from dynsel_jax.options import UserError, printable

__all__ = ["Prepared", "example", "prepared", "read"]

_CHUNK = 1000  # records fetched at a time


class Prepared(NamedTuple):
  """A data set that is prepared on disk."""

  full_name: str  # with config and version
  records: dict[str, "Records"]  # serialised examples for each of "train" and "test"
  files: dict[str, list[str]]  # paths of the files of each split
  image_key: str
  label_key: str
  mode: str  # Pillow's name of the colours, one letter per channel, for example "RGB"
  class_names: tuple[str, ...]


class Records:
  """The serialised examples of one split, `[N]` bytes; an error names the file that cannot be read."""

  def __init__(self, name: str, split: Any, opened: Sequence[bytes], anew: str):
    """Takes the files of a split.

    Args:
      name: of the data set.
      split: what its description says about the split.
      opened: the examples.
      anew: says how to prepare the set again.

    Raises:
      UserError: a file is missing.
    """
    self._name, self._opened, self._anew = name, opened, anew
    self._files = [os.fspath(part.filename) for part in split.file_instructions]
    self._said = [part.examples_in_shard for part in split.file_instructions]
    self._ends = list(itertools.accumulate(part.take for part in split.file_instructions))
    self._checked: set[int] = set()
    for path in self._files:
      if not os.path.isfile(path):
        raise UserError(f"dataset.name={name!r}: {path} is missing; {anew}")

  def __len__(self) -> int:
    """Returns N."""
    return len(self._opened)

  def __getitem__(self, index: int) -> bytes:
    """Returns one example.

    Raises:
      UserError: its file is damaged.
    """
    try:
      return self._opened[index]
    except Exception as error:  # the reader of the files raises many kinds
      raise self._damaged(self._place(index), error) from None

  def __getitems__(self, indices: Sequence[int]) -> Sequence[bytes]:
    """Returns many examples, and counts the examples of files that it meets for the first time.

    Raises:
      UserError: a file is damaged, or has another number of examples than the set's description says.
    """
    for place in {self._place(index) for index in indices} - self._checked:
      self._check(place)
    try:
      return self._opened.__getitems__(indices)  # type: ignore[attr-defined]
    except Exception:
      return [self[index] for index in indices]  # finds the file

  def _place(self, index: int) -> int:
    return bisect.bisect_right(self._ends, index)

  def _check(self, place: int) -> None:
    from array_record.python import array_record_module  # here, since a set in another format needs none

    try:
      reader = array_record_module.ArrayRecordReader(self._files[place])
      found = reader.num_records()
      reader.close()
    except Exception as error:
      raise self._damaged(place, error) from None
    if found != self._said[place]:
      raise self._damaged(place, ValueError(f"it has {found} examples, dataset_info.json says {self._said[place]}"))
    self._checked.add(place)

  def _damaged(self, place: int, error: Exception) -> UserError:
    reason = printable(str(error), 200) or type(error).__name__
    return UserError(f"dataset.name={self._name!r}: {self._files[place]} is damaged ({reason}); {self._anew}")


def prepared(name: str, data_dir: str | None) -> Prepared:
  """Opens a data set without reading a record; arguments and errors as in `read`."""
  builder, anew = _builder(name, data_dir)
  info = builder.info
  image_key, label_key = _keys(name, info)
  test = next((split for split in ("test", "validation") if split in info.splits), None)
  if "train" not in info.splits or test is None:
    raise UserError(
      f"dataset.name={name!r} must have a split train and a split test or validation; it has {list(info.splits)}"
    )
  splits, raw = {"train": "train", "test": test}, tfds.decode.DeserializeMethod.RAW_BYTES
  try:
    described = {
      key: (info.splits[split], builder.as_data_source(split, deserialize_method=raw)) for key, split in splits.items()
    }
    files = {key: [os.fspath(path) for path in split.filepaths] for key, (split, _) in described.items()}
  except Exception as error:  # a description that is damaged
    raise _not_opened(name, f"{builder.data_dir}/dataset_info.json", anew, error) from None
  return Prepared(
    full_name=info.full_name,
    records={key: Records(name, split, opened, anew) for key, (split, opened) in described.items()},
    files=files,
    image_key=image_key,
    label_key=label_key,
    mode=image_ops.MODES[info.features[image_key].shape[-1] or 3],
    class_names=tuple(info.features[label_key].names),
  )


def example(record: bytes, found: Prepared) -> tuple[bytes, int]:
  """Returns the encoded image and the label of a record.

  Raises:
    UserError: the record is no example of an image with a label of the set.
  """
  encoded, label = _parsed(record, found)
  if not 0 <= label < len(found.class_names):
    raise UserError(f"{found.full_name} has the label {label}, outside [0, num_classes={len(found.class_names)})")
  return encoded, label


def _parsed(record: bytes, found: Prepared) -> tuple[bytes, int]:
  # Parsed here: the parser that TensorFlow Datasets uses without TensorFlow takes twice as long.
  try:
    feature = tf_example_pb2.Example.FromString(record).features.feature
    return feature[found.image_key].bytes_list.value[0], feature[found.label_key].int64_list.value[0]
  except Exception as error:  # not an example, or one without such a feature
    words = printable(str(error), 200) or type(error).__name__
    raise UserError(f"{found.full_name} has a record that is no image with a label: {words}") from None


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
    "files": [hashing.content_digest(pathlib.Path(path)) for paths in found.files.values() for path in paths],
    "features": [found.image_key, found.label_key, len(found.mode)],
    "decoder": [PIL.__version__, image_decoding.RULES],  # Pillow decides the pixels of a JPEG
  }
  arrays = cache.cached("images", key, build, cache_dir)
  return {split: (arrays[f"{split}_inputs"], arrays[f"{split}_labels"]) for split in found.files}, found.class_names


def _builder(name: str, data_dir: str | None) -> tuple[Any, str]:
  """Returns the builder of a data set that is prepared in `data_dir`, and how to prepare it anew."""
  command = f"tfds build {name} --file_format=array_record --data_dir="
  anew = f"prepare it anew, in an environment with tensorflow-cpu: {command}{data_dir or 'DIR'} --overwrite"
  try:
    builder = tfds.builder(name, data_dir=data_dir)
    ready = _is_prepared(builder) and builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD
  except tfds.core.DatasetNotFoundError as error:
    if broken := _broken(name, data_dir):
      raise _not_opened(name, broken, anew, error) from None
    raise UserError(
      f"dataset.name={name!r} is not known; known: diabetes, digits, folder, any image classification set of TensorFlow"
      " Datasets, and a loader of your own by its path, my_lab.my_data:load"
    ) from None
  except Exception as error:  # of a name that cannot be, or of a description that is damaged
    if broken := _broken(name, data_dir):
      raise _not_opened(name, broken, anew, error) from None
    raise UserError(f"dataset.name={name!r} cannot be opened: {str(error).splitlines()[0]}") from None
  if not ready:
    where = builder.data_dir_root if data_dir is None else data_dir
    raise UserError(
      f"dataset.name={name!r} is not prepared as ArrayRecord in {where}; in an environment with tensorflow-cpu run:"
      f" {command}{where}"
    )
  return builder, anew


def _broken(name: str, data_dir: str | None) -> str:
  """Returns the file of a set's description that is missing or damaged; "" if there is none, or no such set."""
  root = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR, name.partition(":")[0])
  for version in sorted({path.parent for path in _descriptions(root)}, reverse=True):
    for path in (version / "dataset_info.json", version / "features.json"):
      try:
        json.loads(path.read_bytes())
      except (OSError, ValueError, RecursionError):
        return os.fspath(path)
    return f"{version}/dataset_info.json or features.json"
  return ""


def _descriptions(root: pathlib.Path) -> Iterable[pathlib.Path]:
  return itertools.chain(root.rglob("dataset_info.json"), root.rglob("features.json"))


def _not_opened(name: str, file: Any, anew: str, error: Exception) -> UserError:
  reason = printable(" ".join(str(error).split()), 200) or type(error).__name__
  return UserError(f"dataset.name={name!r}: {file} is damaged ({reason}); {anew}")


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


def _decode(name: str, split: str, records: Records, found: Prepared) -> tuple[np.ndarray, np.ndarray]:
  """Decodes the images of one split; returns them and the labels."""
  count = len(records)
  inputs = np.zeros((0, 0, 0, len(found.mode)), np.uint8)
  labels = np.zeros(count, np.int32)
  for start in range(0, count, _CHUNK):
    chunk = range(start, min(start + _CHUNK, count))
    for position, record in zip(chunk, records.__getitems__(chunk), strict=True):
      encoded, label = _parsed(record, found)
      labels[position] = max(-1, min(label, np.iinfo(np.int32).max))  # `source.from_arrays` refuses what is no class
      image = _image(name, f"sample {position} of its split {split!r}", encoded, found.mode)
      if position == 0:
        inputs = np.empty((count, *image.shape), np.uint8)
      elif image.shape != inputs.shape[1:]:
        raise UserError(
          f"dataset.name={name!r} has images of different sizes: sample {position} of its split {split!r} has shape"
          f" {image.shape}, the first {inputs.shape[1:]}"
        )
      inputs[position] = image
  return inputs, labels


def _image(name: str, which: str, encoded: bytes, mode: str) -> np.ndarray:
  try:
    return image_ops.pixels(image_decoding.decode(encoded, mode).image)
  except image_decoding.DAMAGED as error:
    reason = printable(image_files.words_of(error), 200) or type(error).__name__
    raise UserError(f"dataset.name={name!r}: {which} cannot be decoded ({reason})") from None
