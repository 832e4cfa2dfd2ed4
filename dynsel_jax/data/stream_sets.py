"""Opens image sets whose images stay on disk: folders, and what TensorFlow Datasets has prepared as ArrayRecord.

Host-side. The result is a `Source` whose `inputs` are `stream.Images`; labels are in memory.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from dynsel_jax import cache, options
from dynsel_jax.data import folders, image_ops, tfds_images
from dynsel_jax.data import source as source_lib
from dynsel_jax.data.stream import Images, read_ahead

__all__ = ["defaults", "load"]

_MEASURED = 4096  # images, at most, that give mean and deviation of the channels
_CHUNK = 1000  # records fetched at a time
_ROWS = 64  # images measured at a time


class _Opened(NamedTuple):
  """A set before its images are read; mappings are by split."""

  files: str  # a digest of the files' names and sizes
  labels: Mapping[str, np.ndarray]
  read: Mapping[str, Callable[[int], bytes]]
  name: Mapping[str, Callable[[int], str]]
  mode: str
  class_names: tuple[str, ...]


def load(
  name: str,
  *,
  data_dir: str | None = None,
  cache_dir: str = "",
  image_size: int = 224,
  resize: int = 256,
  image_mode: str = "RGB",
  test_folder: str = "",
  corrupt_limit: int = 100,
  threads: int = 0,
) -> source_lib.Source:
  """Opens an image set without holding its images.

  Args:
    name: "folder" (train/CLASS/*.jpeg, see `folders.read`), or an image classification set that TensorFlow Datasets
      has prepared as ArrayRecord, for example "imagenet2012". Of the latter each record is read once, for its label;
      the labels are kept on disk.
    data_dir: the folder, or where TensorFlow Datasets looks, by default where it always does.
    cache_dir: where labels are kept, by default `cache.default_directory()`.
    image_size: height and width that the model is given; 0 takes images as they are, all of one size.
    resize: for evaluation, the shorter side before the centre is cut out; 0 cuts out the largest square.
    image_mode: "L" or "RGB", to which the images of a folder are converted.
    test_folder: of a folder's test images; empty is test/, or else val/ or validation/.
    corrupt_limit: how many images of a split may be damaged; one more stops the run.
    threads: that read and decode; 0 is one for each core.

  Returns:
    The set. Its mean and deviation are those of at most 4,096 training images, evenly spread, in evaluation's view.
    Its fingerprint covers labels, the names and sizes of files, and the view, but not the pixels.

  Raises:
    UserError: as `sources.load`, or an option is wrong.
  """
  options.check_positive("dataset.image_size", image_size, zero=True)
  options.check_positive("dataset.corrupt_limit", corrupt_limit, zero=True)
  options.check_positive("dataset.threads", threads, zero=True)
  if resize and resize < max(image_size, 1):
    raise options.UserError(f"dataset.resize={resize} must be 0 or at least dataset.image_size={image_size}")
  if name == "folder":
    options.check_choice("dataset.image_mode", image_mode, ("L", "RGB"))
    opened = _folder(data_dir, test_folder, image_mode)
    name = pathlib.Path(data_dir or "").absolute().name
  else:
    opened = _prepared(name, data_dir, cache_dir)
  source_lib.check_classes(name, opened.labels["train"], len(opened.class_names))
  view = image_ops.View(image_size, resize, opened.mode)
  digests = {split: cache.checksum({"labels": labels}) for split, labels in opened.labels.items()}
  key = {"files": opened.files, "labels": digests, "view": view}

  def images(split: str) -> Images:
    size, read, named = len(opened.labels[split]), opened.read[split], opened.name[split]
    return Images(size, read, named, view, corrupt_limit=corrupt_limit, threads=threads)

  train, test = ({"inputs": images(split), "labels": opened.labels[split]} for split in ("train", "test"))
  measured = cache.cached("statistics", key, lambda: _statistics(train), cache_dir)
  return source_lib.Source(
    name=name,
    train=train,
    test=test,
    num_classes=len(opened.class_names),
    mean=tuple(measured["mean"].tolist()),
    std=tuple(measured["std"].tolist()),
    fingerprint=cache.digest(key),
    inputs_fingerprint=cache.digest({"files": opened.files, "view": view}),
    class_names=opened.class_names,
  )


def defaults() -> dict[str, Any]:
  """Returns the options of a streamed set, with their defaults."""
  known = options.keyword_defaults(load)
  return {name: value for name, value in known.items() if name not in ("data_dir", "cache_dir")}


def _statistics(train: source_lib.Dataset) -> cache.Arrays:
  chosen = np.arange(0, len(train["inputs"]), -(-len(train["inputs"]) // _MEASURED), dtype=np.int32)
  slots = np.arange(-(-len(chosen) // _ROWS) * _ROWS).reshape(-1, _ROWS)
  rows = read_ahead(train, chosen, slots)
  mean, std = source_lib.statistics_of_chunks(found.batch["inputs"][found.readable] for found in rows)
  return {"mean": np.array(mean), "std": np.array(std)}


def _folder(data_dir: str | None, test_folder: str, mode: str) -> _Opened:
  listed, class_names = folders.listing(data_dir, test_folder)
  root = pathlib.Path(data_dir or "").absolute()
  sizes = [(str(path.relative_to(root)), path.stat().st_size) for files in listed.values() for path, _ in files]
  paths = {split: [str(path) for path, _ in files] for split, files in listed.items()}  # a third of what Paths take
  return _Opened(
    files=cache.digest({"files": sizes}),
    labels={split: np.array([label for _, label in files], np.int32) for split, files in listed.items()},
    read={split: functools.partial(_content, of) for split, of in paths.items()},
    name={split: of.__getitem__ for split, of in paths.items()},
    mode=mode,
    class_names=class_names,
  )


def _content(paths: Sequence[str], index: int) -> bytes:
  return pathlib.Path(paths[index]).read_bytes()


def _prepared(name: str, data_dir: str | None, cache_dir: str) -> _Opened:
  found = tfds_images.prepared(name, data_dir)
  sizes = [(os.path.basename(path), os.stat(path).st_size) for paths in found.files.values() for path in paths]
  files = cache.digest({"set": found.full_name, "files": sizes})

  def labels() -> cache.Arrays:
    return {split: _labels(records, found) for split, records in found.records.items()}

  def read(split: str) -> Callable[[int], bytes]:
    return lambda index: tfds_images.example(found.records[split][index], found)[0]

  def named(split: str) -> Callable[[int], str]:
    return lambda index: f"{found.full_name} {split}[{index}]"

  return _Opened(
    files=files,
    labels=cache.cached("labels", {"files": files, "key": found.label_key}, labels, cache_dir),
    read={split: read(split) for split in found.records},
    name={split: named(split) for split in found.records},
    mode=found.mode,
    class_names=found.class_names,
  )


def _labels(records: Any, found: tfds_images.Prepared) -> np.ndarray:
  starts = tqdm(range(0, len(records), _CHUNK), desc="labels", unit=" records", unit_scale=_CHUNK, disable=None)
  chunks = (records.__getitems__(range(start, min(start + _CHUNK, len(records)))) for start in starts)
  return np.array([tfds_images.example(record, found)[1] for chunk in chunks for record in chunk], np.int32)
