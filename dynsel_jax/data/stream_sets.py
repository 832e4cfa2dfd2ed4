"""Opens image sets whose images stay on disk: folders, and sets that TensorFlow Datasets has prepared as ArrayRecord.

Host-side. The result is a `Source` whose `inputs` are `stream.Images`; labels are in memory.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from dynsel_jax import cache, hashing, options
from dynsel_jax.data import folders, image_decoding, image_files, image_ops, tfds_images
from dynsel_jax.data import source as source_lib
from dynsel_jax.data.stream import Images, read_ahead

__all__ = ["defaults", "load"]

_MEASURED = 4096  # largest number of images from which the channels' mean and deviation are computed
_CHUNK = 1000  # records fetched at a time
_ROWS = 64  # images decoded at a time for mean and deviation
_HASHED = 1024  # largest number of a split's files whose content is part of the set's identity
_HASHED_BYTES = 2**28  # likewise of bytes of the files that TensorFlow Datasets has prepared


class _Opened(NamedTuple):
  """A data set before its images are read; the mappings are by split."""

  name: str
  files: str  # a digest of the files' names and sizes, and of the content of some
  times: str  # a digest of the times at which they were written, on which caches depend too
  labels: Mapping[str, np.ndarray]
  read: Mapping[str, Callable[[int], bytes]]
  file_name: Mapping[str, Callable[[int], str]]
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
  """Opens an image set and leaves its images on disk.

  Args:
    name: "folder" (train/CLASS/*.jpeg, see `folders.read`), or an image classification set that TensorFlow Datasets
      has prepared as ArrayRecord, for example "imagenet2012". Each record of the latter is read once for its label;
      the labels are cached on disk.
    data_dir: the folder, or the one in which TensorFlow Datasets looks; None stands for its default.
    cache_dir: the folder of the cache for labels, by default `cache.default_directory()`.
    image_size: height and width that the model is given; 0 keeps the images' own size, which must be the same for all.
    resize: in evaluation, the shorter side before the centre crop; 0 crops the largest square.
    image_mode: "L" or "RGB", to which the images of a folder are converted.
    test_folder: name of the folder of test images; "" looks for test/, val/ and validation/ in this order.
    corrupt_limit: number of images of a split that may be damaged; one more stops the run.
    threads: number of threads that read and decode; 0 stands for one per core.

  Returns:
    The data set. Its mean and deviation are those of at most 4,096 training images, evenly spread and cropped at their
    centre. Its fingerprint covers the labels, the names and sizes of all files, the size of the images, and some of the
    content: 1,024 evenly spread files of each split, or 256 MiB of what TensorFlow Datasets has prepared. To read all
    of it would take hours from some disks. What is cached depends on the files' times as well; the fingerprint does
    not, since a copy has others.

  Raises:
    UserError: as in `sources.load`, or an option is wrong.
  """
  data_dir = options.expand_home("dataset.data_dir", os.fspath(data_dir)) if data_dir else None
  options.check_positive("dataset.image_size", image_size, zero=True)
  options.check_positive("dataset.corrupt_limit", corrupt_limit, zero=True)
  options.check_positive("dataset.threads", threads, zero=True)
  if resize and resize < max(image_size, 1):
    raise options.UserError(f"dataset.resize={resize} must be 0 or at least dataset.image_size={image_size}")
  if name == "folder":
    options.check_choice("dataset.image_mode", image_mode, ("L", "RGB"))
    opened = _folder(data_dir, test_folder, image_mode)
  else:
    opened = _prepared(name, data_dir, cache_dir)
  view = image_ops.View(image_size, resize, opened.mode)
  return _source(opened, view, cache_dir, corrupt_limit=corrupt_limit, threads=threads)


def defaults() -> dict[str, Any]:
  """Returns the options of a streamed set, with their defaults."""
  known = options.keyword_defaults(load)
  return {name: value for name, value in known.items() if name not in ("data_dir", "cache_dir")}


def _source(opened: _Opened, view: image_ops.View, cache_dir: str, **reading: Any) -> source_lib.Source:
  """Returns the data set with its images in one `view`; `reading` are further arguments of `Images`."""
  source_lib.check_classes(opened.name, opened.labels["train"], len(opened.class_names))
  digests = {split: hashing.checksum({"labels": labels}) for split, labels in opened.labels.items()}
  key = {"files": opened.files, "labels": digests, "view": view, "decoder": image_decoding.RULES}

  def dataset(split: str) -> source_lib.Dataset:
    labels = opened.labels[split]
    images = Images(len(labels), opened.read[split], opened.file_name[split], view, **reading)
    return source_lib.Dataset(inputs=images, labels=labels)

  train, test = dataset("train"), dataset("test")
  measured = cache.cached("statistics", key | {"times": opened.times}, lambda: _statistics(train), cache_dir)
  return source_lib.Source(
    name=opened.name,
    train=train,
    test=test,
    num_classes=len(opened.class_names),
    mean=tuple(measured["mean"].tolist()),
    std=tuple(measured["std"].tolist()),
    fingerprint=hashing.digest(key),
    inputs_fingerprint=hashing.digest({name: value for name, value in key.items() if name != "labels"}),
    class_names=opened.class_names,
  )


def _statistics(train: source_lib.Dataset) -> cache.Arrays:
  chosen = np.arange(0, len(train["inputs"]), -(-len(train["inputs"]) // _MEASURED), dtype=np.int32)
  slots = np.arange(-(-len(chosen) // _ROWS) * _ROWS).reshape(-1, _ROWS)
  rows = read_ahead(train, chosen, slots)
  mean, std = source_lib.statistics_of_chunks(found.batch["inputs"][found.readable] for found in rows)
  return {"mean": np.array(mean), "std": np.array(std)}


def _folder(data_dir: str | None, test_folder: str, mode: str) -> _Opened:
  listed = folders.listing(data_dir, test_folder)
  folders.describe(listed, {})
  paths = {split: [path for path, _ in files] for split, files in listed.splits.items()}
  statuses = [(os.path.relpath(path, listed.root), os.stat(path)) for of in paths.values() for path in of]
  sizes = [(name, status.st_size) for name, status in statuses]
  hashed = [_digest(path) for of in paths.values() for path in of[:: -(-len(of) // _HASHED)]]
  return _Opened(
    name=folders.set_name(listed.root),
    files=hashing.digest({"files": sizes, "content": hashed}),
    times=hashing.digest({"times": [status.st_mtime_ns for _, status in statuses]}),
    labels={split: listed.labels(split) for split in paths},
    read={split: functools.partial(_content, of) for split, of in paths.items()},
    file_name={split: of.__getitem__ for split, of in paths.items()},
    mode=mode,
    class_names=listed.class_names,
  )


def _content(paths: Sequence[str], index: int) -> bytes:
  return image_files.content(paths[index])


def _digest(path: str) -> str:
  try:
    return image_files.digest(path)
  except image_decoding.DAMAGED:  # found, counted and named where the image is read
    return ""


def _prepared(name: str, data_dir: str | None, cache_dir: str) -> _Opened:
  found = tfds_images.prepared(name, data_dir)
  paths = [path for paths in found.files.values() for path in paths]
  sizes = [(os.path.basename(path), os.stat(path).st_size) for path in paths]
  hashed = [hashing.sampled_digest(path, _HASHED_BYTES // len(paths)) for path in paths]
  files = hashing.digest({"set": found.full_name, "files": sizes, "content": hashed})
  times = hashing.digest({"times": [os.stat(path).st_mtime_ns for path in paths]})

  def labels() -> cache.Arrays:
    return {split: _labels(records, found) for split, records in found.records.items()}

  def read(split: str) -> Callable[[int], bytes]:
    return lambda index: tfds_images.example(found.records[split][index], found)[0]

  def named(split: str) -> Callable[[int], str]:
    return lambda index: f"{found.full_name} {split}[{index}]"

  return _Opened(
    name=name,
    files=files,
    times=times,
    labels=cache.cached("labels", {"files": files, "times": times, "key": found.label_key}, labels, cache_dir),
    read={split: read(split) for split in found.records},
    file_name={split: named(split) for split in found.records},
    mode=found.mode,
    class_names=found.class_names,
  )


def _labels(records: Any, found: tfds_images.Prepared) -> np.ndarray:
  starts = tqdm(range(0, len(records), _CHUNK), desc="labels", unit=" records", unit_scale=_CHUNK, disable=None)
  chunks = (records.__getitems__(range(start, min(start + _CHUNK, len(records)))) for start in starts)
  return np.array([tfds_images.example(record, found)[1] for chunk in chunks for record in chunk], np.int32)
