"""Reads data sets of the library Hugging Face `datasets`: of its hub, or of local files. Host-side.

A name is what `datasets.load_dataset` takes, for example "cifar10", a folder of Parquet, CSV or image files, or a
folder written by `save_to_disk`.
`N` is the number of samples, `H`, `W`, `C` are height, width and channels of an image.
"""

import collections
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from dynsel_jax import options
from dynsel_jax.data import folders, image_files, text_files
from dynsel_jax.data.summary import shown
from dynsel_jax.options import UserError

__all__ = ["PREFIX", "read_images", "read_texts"]

PREFIX = "hf:"  # of `dataset.name`
_TEST = ("test", "validation", "val")

Splits = dict[str, tuple[np.ndarray, np.ndarray]]


def read_images(
  name: str,
  data_dir: str | None = None,
  *,
  subset: str = "",
  train: str = "train",
  test: str = "",
  image_column: str = "image",
  label_column: str = "label",
  image_size: int = 0,
  image_mode: str = "",
) -> tuple[Splits, tuple[str, ...]]:
  """Decodes the images of a data set, all to one size and mode.

  Args:
    name: with `PREFIX` in front.
    data_dir: passed on to `load_dataset`.
    subset: name of the data set's configuration, where it has several.
    train: name of the split to train on, in the library's own notation, for example "train[:90%]".
    test: name of the test split; "" looks for test, validation and val.
    image_column: name of the images' column.
    label_column: name of the labels' column, of integers or names of classes.
    image_size: as in `folders.read`.
    image_mode: as in `folders.read`.

  Returns:
    For each of "train" and "test" the images `[N, H, W, C]` uint8 and labels `[N]` int32; and the class names.

  Raises:
    UserError: the library or the data set cannot be loaded, a column is missing or of another kind, a sample has no
      label, or images differ in size or mode.
  """
  library = options.optional_library("datasets", "huggingface")
  folders.check_options(image_size, image_mode)
  found = _splits(library, name, {"train": train, "test": test}, subset, data_dir)
  for split in found.values():
    _check_columns(name, split, image_column, label_column)
  names = _class_names(name, found["train"].features[label_column], found["train"][label_column])
  encoded = [
    folders.Encoded(f"{name} {split}[{row}]", _reader(image), os.path.splitext(image["path"] or "")[1])
    for split, rows in found.items()
    for row, image in enumerate(rows.cast_column(image_column, library.Image(decode=False))[image_column])
  ]
  inputs, _ = folders.decode(encoded, image_size, image_mode)
  first = len(found["train"])
  images = {"train": inputs[:first], "test": inputs[first:]}
  return {
    split: (images[split], _labels(name, split, rows, label_column, names)) for split, rows in found.items()
  }, names


def read_texts(
  name: str, split: str, text_column: str, label_column: str, pair_column: str = "", *, numbers: bool = False
) -> text_files.Rows:
  """Reads the texts of one split, with their labels as words.

  Args:
    name: with `PREFIX` in front.
    split: in the library's own notation.
    text_column: name of the texts' column.
    label_column: name of the labels' column.
    pair_column: name of the column of second texts; "" if each row has one text.
    numbers: whether the labels are numbers, as in `text_files.read`.

  Raises:
    UserError: as in `read_images`, or a text is empty, or a label is no number.
  """
  library = options.optional_library("datasets", "huggingface")
  rows = _splits(library, name, {split: split}, "", None)[split]
  columns = text_column, *([pair_column] if pair_column else []), label_column
  _check_columns(name, rows, *columns)
  names = getattr(rows.features[label_column], "names", None)
  found = text_files.Rows([], [], [], [], collections.Counter(), ",")
  for number, (*texts, label) in enumerate(zip(*(rows[column] for column in columns), strict=True)):
    at = f"dataset.name={shown(name)}: {split}[{number}]"
    for text in texts:
      if not isinstance(text, str) or not text.strip():
        raise UserError(f"{at} has the text {text!r}; it must be a string that is not empty")
    if not numbers and (label is None or label == -1 or isinstance(label, float | list)):
      raise UserError(f"{at} has the label {label!r}, which is no class; name a split with one label for each text")
    found.texts.append(texts[0])
    found.seconds.extend(texts[1:])
    found.labels.append(text_files.number_of(at, label) if numbers else names[label] if names else str(label))
    found.lines.append(number)
  return found


def _splits(library: Any, name: str, wanted: dict[str, str], subset: str, data_dir: str | None) -> dict[str, Any]:
  """Loads the splits that are wanted, by the names that this package has for them."""
  path = options.expand_home("dataset.name", name.removeprefix(PREFIX))
  try:
    if os.path.isfile(os.path.join(path, "dataset_dict.json")):
      held = library.load_from_disk(path)
      found = {ours: held[split] for ours, split in _named(name, wanted, list(held)).items()}
    else:
      settings = {"name": subset or None, "data_dir": data_dir}
      known = library.get_dataset_split_names(path, subset or None, data_dir=data_dir)
      named = _named(name, wanted, known)
      found = {ours: library.load_dataset(path, split=split, **settings) for ours, split in named.items()}
  except UserError:
    raise
  except Exception as error:  # the library raises many kinds
    reason = options.printable(" ".join(str(error).split()), 300) or type(error).__name__
    raise UserError(f"dataset.name={shown(name)} cannot be loaded: {reason}") from None
  for ours, rows in found.items():
    if not len(rows):
      raise UserError(f"dataset.name={shown(name)}: split {ours!r} has no sample")
  return found


def _named(name: str, wanted: dict[str, str], known: Sequence[str]) -> dict[str, str]:
  """Returns the library's name of each split that is wanted."""
  named = dict(wanted)
  if not named.get("test", "given"):
    named["test"] = next((split for split in _TEST if split in known), "")
  for ours, split in named.items():
    if split.partition("[")[0] not in known:
      raise UserError(
        f"dataset.name={shown(name)} has the splits {', '.join(known)}; name one of them in dataset.{ours}"
      )
  return named


def _check_columns(name: str, rows: Any, *columns: str) -> None:
  for column in columns:
    if column not in rows.features:
      raise UserError(
        f"dataset.name={shown(name)} has no column {column!r}; its columns: {', '.join(rows.features)}; name them in"
        " dataset.image_column or dataset.text_column, and in dataset.label_column"
      )


def _class_names(name: str, feature: Any, labels: Sequence[Any]) -> tuple[str, ...]:
  if names := getattr(feature, "names", None):
    return tuple(names)
  if all(type(label) is int for label in labels):
    return tuple(map(str, range(max(labels) + 1)))
  if all(isinstance(label, str) for label in labels):
    return tuple(sorted(set(labels)))
  raise UserError(f"dataset.name={shown(name)}: labels must be integers or words, one for each image")


def _labels(name: str, split: str, rows: Any, column: str, names: Sequence[str]) -> np.ndarray:
  number = {word: label for label, word in enumerate(names)}
  labels = [number.get(label, -1) if isinstance(label, str) else label for label in rows[column]]
  for row, label in enumerate(labels):
    if type(label) is not int or not 0 <= label < len(names):
      given = rows[column][row]
      raise UserError(f"dataset.name={shown(name)}: {split}[{row}] has the label {given!r}, which is no class")
  return np.array(labels, np.int32)


def _reader(image: dict[str, Any]) -> folders.Read:
  if image["bytes"] is not None:
    return lambda: image["bytes"]
  return lambda: image_files.content(image["path"])
