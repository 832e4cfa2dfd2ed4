"""A data set with its statistics and fingerprints, and its construction from arrays. Host-side.

A data set is a `Dataset`: a dict of arrays with a leading sample axis, "inputs", which the model is given, and further
arrays that the task reads, such as "labels" or "targets". `N` is the number of samples, `H`, `W`, `C` are height,
width and channels of an image.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
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

_CHUNK = 4096  # images whose pixels are counted at a time
_NARROW = {"float64": np.float32, "int64": np.int32, "uint64": np.uint32}  # the types that JAX holds these as


@jax.tree_util.register_pytree_with_keys_class
class Dataset(dict[str, Any]):
  """ "inputs" and others, `[N, ...]` each: NumPy arrays, or device arrays once they are placed.

  A dict whose arrays are its attributes too: `train.labels` is `train["labels"]`.
  """

  def __getattr__(self, name: str) -> Any:
    if name not in self:
      raise AttributeError(f"the data set has no array {name!r}; it has {', '.join(self)}")
    return self[name]

  def tree_flatten_with_keys(self) -> tuple[tuple[tuple[jax.tree_util.DictKey, Any], ...], tuple[str, ...]]:
    """Returns the arrays in the order of their names, as JAX does of a dict."""
    names = tuple(sorted(self))
    return tuple((jax.tree_util.DictKey(name), self[name]) for name in names), names

  @classmethod
  def tree_unflatten(cls, names: tuple[str, ...], arrays: Iterable[Any]) -> "Dataset":
    """Inverts `tree_flatten_with_keys`."""
    return cls(zip(names, arrays, strict=True))


class Text(NamedTuple):
  """Properties of a data set of texts, beside their token ids."""

  train: tuple[str, ...]  # the texts of the training samples
  pad_id: int  # the id that pads each row to L tokens
  vocabulary: int  # ids lie in [0, vocabulary)
  lengths: tuple[int, ...]  # lengths that a batch may be truncated to, ascending; the last is L
  tokenizer: str = ""  # as JSON of the library `tokenizers`, with its truncation, to read further texts in the same way


class Source(NamedTuple):
  """A data set with its splits, statistics and identity."""

  name: str
  train: Dataset
  test: Dataset
  fingerprint: str  # 64 hexadecimal digits, a hash of all arrays
  inputs_fingerprint: str  # a hash of the training inputs alone, which label noise does not change
  num_classes: int = 0  # of "labels" [N] int32; 0 without labels
  mean: tuple[float, ...] = ()  # by channel, of the training images divided by 255; empty if the inputs are not images
  std: tuple[float, ...] = ()  # likewise; 1 for a constant channel, so that one can divide by it
  class_names: tuple[str, ...] = ()  # in the order of the labels; empty if the classes have no names
  true_labels: np.ndarray | None = None  # [N] int32 of the training samples, if the labels have noise
  validation: Dataset | None = None
  text: Text | None = None  # None if the inputs are not texts

  @property
  def num_samples(self) -> int:
    """Number of training samples, N."""
    return num_samples(self.train)

  @property
  def labels(self) -> np.ndarray | None:
    """The training labels, `[N]` int32 in [0, num_classes); None without labels."""
    return self.train.get("labels")

  @property
  def noisy(self) -> np.ndarray | None:
    """True for training samples whose label is wrong, `[N]` bool; None without label noise."""
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
  """Builds a `Source` from arrays in memory: checks them, and computes statistics and fingerprints.

  Args:
    name: of the data set, for people.
    train: the training samples by array: "inputs" `[N, ...]`; for a classifier "labels" `[N]` int, for regression
      "targets" `[N]` float; and any further array with a leading sample axis that the task reads. Images
      `[N, H, W, C]` uint8 are normalised by channel. 64-bit numbers become 32-bit numbers, as JAX holds them.
    test: the test samples, with the same arrays.
    num_classes: number of classes of the labels; by default the number of class names, or else one more than the
      largest training label.
    class_names: in the order of the labels.
    validation: the validation samples, with the same arrays, if there are any.

  Raises:
    UserError: a split is empty, its arrays differ from those of `train` in name or shape, an array does not hold
      numbers, or a label lies outside [0, num_classes) or does not occur in `train`.
  """
  splits = {"train": train, "test": test} | ({} if validation is None else {"validation": validation})
  sets: dict[str, Dataset] = {
    split: Dataset({field: _numbers(name, split, field, array) for field, array in arrays.items()})
    for split, arrays in splits.items()
  }
  for split, dataset in sets.items():
    _check_split(name, split, dataset, sets["train"])
  if "labels" in sets["train"]:
    num_classes = num_classes or len(class_names) or int(sets["train"]["labels"].max()) + 1
    if class_names and len(class_names) != num_classes:
      raise UserError(f"dataset.name={name!r} has {len(class_names)} class names for {num_classes} classes")
    for split, dataset in sets.items():
      dataset["labels"] = _labels(name, split, dataset["labels"], num_classes)
    check_classes(name, sets["train"]["labels"], num_classes)
  elif num_classes or class_names:
    raise UserError(
      f"dataset.name={name!r} has {num_classes or len(class_names)} classes and no 'labels' in its split 'train'"
    )
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


def _numbers(name: str, split: str, field: str, values: Any) -> np.ndarray:
  """Returns the values as an array of at most 32 bits a number."""
  array = np.asarray(values)
  if array.ndim == 0 or array.dtype.kind not in "biuf":
    raise UserError(
      f"dataset.name={name!r}: {field!r} of its split {split!r} has shape {array.shape} and type {array.dtype}; it must"
      " be an array of numbers with a leading sample axis"
    )
  narrow = array.astype(_NARROW.get(array.dtype.name, array.dtype), copy=False)
  if array.dtype.kind in "iu" and narrow is not array and not np.array_equal(narrow, array):
    raise UserError(f"dataset.name={name!r}: {field!r} of its split {split!r} has numbers beyond 32 bits")
  return narrow


def _check_split(name: str, split: str, dataset: Dataset, train: Dataset) -> None:
  where = f"dataset.name={name!r}: split {split!r}"
  if dataset.keys() != train.keys() or "inputs" not in dataset:
    raise UserError(f"{where} has the arrays {sorted(dataset)}; it must have 'inputs' and those of 'train'")
  count = len(dataset["inputs"])
  if not count:
    raise UserError(f"{where} has no sample")
  for field, array in dataset.items():
    if len(array) != count:
      raise UserError(f"{where} has {count} samples in 'inputs' and {len(array)} in {field!r}; they must be as many")
    if array.shape[1:] != train[field].shape[1:]:
      raise UserError(
        f"{where} has {field!r} of shape {array.shape[1:]} a sample, and split 'train' {train[field].shape[1:]}"
      )


def _labels(name: str, split: str, labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Returns the labels of a split as int32, after a check."""
  where = f"dataset.name={name!r}: split {split!r}"
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    raise UserError(f"{where} has labels of shape {labels.shape} and type {labels.dtype}; they must be [N] integers")
  wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if wrong.size:
    raise UserError(
      f"{where} has label {labels[wrong[0]]} at sample {wrong[0]}, outside [0, num_classes={num_classes})"
    )
  return labels.astype(np.int32)


def check_classes(name: str, labels: np.ndarray, num_classes: int) -> None:
  """Raises `UserError` if a training label is no class, or one of the classes has no training sample."""
  wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if wrong.size:
    raise UserError(
      f"dataset.name={name!r} has label {labels[wrong[0]]} at sample {wrong[0]}, outside [0, num_classes={num_classes})"
    )
  empty = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0)
  if empty.size:
    raise UserError(
      f"dataset.name={name!r} has no training sample of class {empty[0]}, one of {num_classes} classes; number the"
      " classes without a gap"
    )


def channel_statistics(inputs: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Computes mean and standard deviation of each channel of `[N, H, W, C]` uint8 images divided by 255, in float64.

  Pixels are counted by value, so that the result is exact and no copy of the images in floating point is made.
  """
  return statistics_of_chunks(inputs[start : start + _CHUNK] for start in range(0, len(inputs), _CHUNK))


def statistics_of_chunks(chunks: Iterable[np.ndarray]) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Computes the `channel_statistics` of images that come in chunks."""
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
  """Hashes shapes, types and values of the arrays to 64 hexadecimal digits."""
  digest = hashlib.sha256()
  for array in arrays:
    digest.update(repr((array.shape, array.dtype.str)).encode())
    digest.update(np.ascontiguousarray(array).data)
  return digest.hexdigest()
