"""A data set with what is known of it, and how one is made from arrays. Host-side.

A data set is a dict of arrays with a leading sample axis: "inputs", which the model is given, and what the task reads
beside them, such as "labels" or "targets". `N` is the number of samples, `H`, `W`, `C` are height, width and channels
of an image.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dynsel_jax.options import UserError

__all__ = [
  "Dataset",
  "Source",
  "Text",
  "channel_statistics",
  "check_classes",
  "fingerprint",
  "from_arrays",
  "num_samples",
  "statistics_of_chunks",
]

_CHUNK = 4096  # images whose statistics are taken at a time

Dataset = dict[str, Any]  # "inputs" and others, [N, ...] each: NumPy arrays here, device arrays once they are placed


class Text(NamedTuple):
  """Facts about a set of texts beside their token ids."""

  train: tuple[str, ...]  # the texts of the training samples
  pad_id: int  # the id that fills a row up to the set's L tokens
  vocabulary: int  # ids lie in [0, vocabulary)
  lengths: tuple[int, ...]  # lengths that a batch may be cut to, ascending; the last is L


class Source(NamedTuple):
  """A data set with its splits, statistics and identity."""

  name: str
  train: Dataset
  test: Dataset
  fingerprint: str  # 64 hexadecimal digits, a hash of all arrays
  inputs_fingerprint: str  # the same of the training inputs alone, whatever noise the labels have
  num_classes: int = 0  # of "labels" [N] int32; 0 for a set without them
  mean: tuple[float, ...] = ()  # by channel, of the training images divided by 255; empty for a set of other inputs
  std: tuple[float, ...] = ()  # likewise; 1 for a constant channel, so that one can divide by it
  class_names: tuple[str, ...] = ()  # in the order of the labels; empty where they have no names
  true_labels: np.ndarray | None = None  # [N] int32 of the training samples, where the labels have noise
  validation: Dataset | None = None
  text: Text | None = None  # None for a set of other inputs

  @property
  def num_samples(self) -> int:
    """Number of training samples, N."""
    return num_samples(self.train)

  @property
  def labels(self) -> np.ndarray | None:
    """The training labels, `[N]` int32, in [0, num_classes); None for a set without labels."""
    return self.train.get("labels")

  @property
  def noisy(self) -> np.ndarray | None:
    """Which training labels are wrong, `[N]` bool; None without label noise."""
    return None if self.true_labels is None else np.asarray(self.labels != self.true_labels)


def num_samples(dataset: Mapping[str, Any]) -> int:
  """Returns the number of samples of a data set."""
  return len(dataset["inputs"])


def from_arrays(
  name: str,
  train: Mapping[str, np.ndarray],
  test: Mapping[str, np.ndarray],
  *,
  num_classes: int = 0,
  class_names: tuple[str, ...] = (),
  validation: Mapping[str, np.ndarray] | None = None,
) -> Source:
  """Makes a `Source` of arrays in memory; checks them and takes their fingerprints.

  Args:
    name: of the set, for people.
    train: "inputs" `[N, ...]`, for a classifier "labels" `[N]` int, for regression "targets" `[N]` float, and any other
      array with a leading sample axis that the task reads. Images `[N, H, W, C]` uint8 are normalised by channel.
    test: the same of the test samples.
    num_classes: number of classes of the labels; by default one more than the largest training label.
    class_names: in the order of the labels.
    validation: the same of validation samples, if there are any.

  Raises:
    UserError: a split is empty, arrays differ in length or in their samples' shape, or a label is not a class.
  """
  splits = {"train": train, "test": test} | ({} if validation is None else {"validation": validation})
  sets: dict[str, Dataset] = {split: {k: np.asarray(v) for k, v in arrays.items()} for split, arrays in splits.items()}
  if "labels" in sets["train"]:
    labels = sets["train"]["labels"]
    num_classes = num_classes or len(class_names) or (int(labels.max()) + 1 if labels.size else 0)
  for split, dataset in sets.items():
    _check_split(name, split, dataset, sets["train"], num_classes)
  if num_classes:
    check_classes(name, sets["train"]["labels"], num_classes)
  inputs = sets["train"]["inputs"]
  is_image = inputs.dtype == np.uint8 and inputs.ndim == 4
  mean, std = channel_statistics(inputs) if is_image else ((), ())
  arrays = [array for split in splits for _, array in sorted(sets[split].items())]
  return Source(
    name=name,
    train=sets["train"],
    test=sets["test"],
    fingerprint=fingerprint(*arrays),
    inputs_fingerprint=fingerprint(inputs),
    num_classes=num_classes,
    mean=mean,
    std=std,
    class_names=class_names,
    validation=sets.get("validation"),
  )


def _check_split(name: str, split: str, dataset: Dataset, train: Dataset, num_classes: int) -> None:
  where = f"dataset={name!r}: split {split!r}"
  if dataset.keys() != train.keys() or "inputs" not in dataset:
    raise UserError(f"{where} has the arrays {sorted(dataset)}; it must have 'inputs' and those of 'train'")
  count = len(dataset["inputs"])
  if not count:
    raise UserError(f"dataset={name!r} has no sample in its split {split!r}")
  for field, array in dataset.items():
    if len(array) != count:
      raise UserError(f"{where} has {count} inputs and {len(array)} {field}")
    if array.shape[1:] != train[field].shape[1:]:
      raise UserError(f"{where} has {field} of {array.shape[1:]}, the training split of {train[field].shape[1:]}")
  if num_classes:
    labels = dataset["labels"] = _integers(where, dataset["labels"])
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
      raise UserError(
        f"dataset={name!r} has label {labels[wrong[0]]} at sample {wrong[0]} of its split {split!r},"
        f" outside [0, {num_classes})"
      )


def _integers(where: str, labels: np.ndarray) -> np.ndarray:
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    raise UserError(f"{where} has labels of shape {labels.shape} and type {labels.dtype}; they must be [N] integers")
  return labels.astype(np.int32)


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
  """Returns `channel_statistics` of images that come in chunks."""
  counts: Any = 0
  for chunk in chunks:
    by_channel = np.moveaxis(chunk, -1, 0)
    counts = counts + np.stack([np.bincount(channel.ravel(), minlength=256) for channel in by_channel])
  values = np.arange(256) / 255
  frequency = counts / counts.sum(axis=1, keepdims=True)
  mean = frequency @ values
  deviation = np.sqrt(np.sum(frequency * np.square(values - mean[:, None]), axis=1))
  return tuple(mean.tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist())


def fingerprint(*arrays: np.ndarray) -> str:
  """Returns 64 hexadecimal digits that change with any value of the arrays."""
  digest = hashlib.sha256()
  for array in arrays:
    digest.update(repr((array.shape, array.dtype.str)).encode())
    digest.update(np.ascontiguousarray(array).data)
  return digest.hexdigest()
