"""Sets of small images with a validation set, on which learning rates are tuned, and with planted faults. Host-side.

    --config=configs/cifar10.py:size=cpu,dataset=experiments.held_out:cifar10 --config.dataset.duplicates=0.5

The last tenth of the training rows is the validation set. What remains may be made such that selection should pay by
theory: `imbalance` makes classes rare, `duplicates` makes rows redundant; wrong labels are `dataset.label_noise`. The
validation and the test set stay as they are. All draws are the same in every run: a set is one set.

`data_dir` is that of TensorFlow Datasets, or a folder with NAME.npz, the decoded arrays `train_inputs`, `train_labels`,
`test_inputs`, `test_labels`, which a machine without the prepared set can read.
"""

import pathlib

import numpy as np

from dynsel_jax import cache, data, options

__all__ = ["cifar10", "cifar100", "digits", "fashion_mnist", "training_rows"]

_HELD_OUT = 10  # one in so many training rows
_SOURCES = 0.01  # fraction of the rows from which all copies are made


def training_rows(labels: np.ndarray, *, imbalance: float = 1.0, duplicates: float = 0.0) -> np.ndarray:
  """Returns the rows of the whole training split that make the training set.

  Args:
    labels: `[N]` int32 of the whole split.
    imbalance: how many times as many rows the largest class keeps as the smallest. Class c of C keeps a fraction
      imbalance ** -(c / (C - 1)) of its rows, the long-tailed profile of Cao et al. (arXiv 1906.07413, App. C.1).
    duplicates: fraction of the rows that are replaced by copies. All are copies of the first hundredth of the rows, as
      in a crawl, where a few things are copied often: the more often, the less another visit teaches.

  Returns:
    `[n]` int64, ascending but for the copies; n is 0.9 N without `imbalance`.

  Raises:
    UserError: a value is out of range.
  """
  options.check_fraction("dataset.duplicates", duplicates, zero=True, one=False)
  if not 1 <= imbalance < np.inf:
    raise options.UserError(f"dataset.imbalance={imbalance} must be at least 1")
  rows = np.arange(len(labels) - len(labels) // _HELD_OUT)
  classes = int(labels.max()) + 1
  kept = []
  for label in range(classes):
    of_class = rows[labels[rows] == label]
    kept.append(of_class[: max(1, round(len(of_class) * imbalance ** (-label / max(classes - 1, 1))))])
  rows = np.sort(np.concatenate(kept))
  copied = round(duplicates * len(rows))
  if copied:
    sources = rows[: max(1, round(_SOURCES * len(rows)))]
    rows[len(rows) - copied :] = np.resize(sources, copied)
  return rows


def _load(name: str, imbalance: float, duplicates: float, data_dir: str, cache_dir: str) -> data.Source:
  arrays = pathlib.Path(data_dir) / f"{name}.npz"
  if data_dir and arrays.is_file():
    held = cache.read_arrays("dataset.data_dir", arrays)
    whole = {key: {part: held[f"{key}_{part}"] for part in ("inputs", "labels")} for key in ("train", "test")}
    train, test, names = whole["train"], whole["test"], ()
  else:
    source = data.load(name, data_dir=data_dir or None, cache_dir=cache_dir)
    train, test, names = dict(source.train), dict(source.test), source.class_names
  rows = training_rows(train["labels"], imbalance=imbalance, duplicates=duplicates)
  held_out = np.arange(len(train["labels"]))[-(len(train["labels"]) // _HELD_OUT) :]

  def part(where: np.ndarray) -> dict[str, np.ndarray]:
    return {key: array[where] for key, array in train.items()}

  return data.from_arrays(name, part(rows), test, class_names=names, validation=part(held_out))


def cifar10(*, imbalance: float = 1.0, duplicates: float = 0.0, data_dir: str = "", cache_dir: str = "") -> data.Source:
  """Loads CIFAR-10: 45,000 training, 5,000 validation and 10,000 test images; options as in `training_rows`."""
  return _load("cifar10", imbalance, duplicates, data_dir, cache_dir)


def cifar100(
  *, imbalance: float = 1.0, duplicates: float = 0.0, data_dir: str = "", cache_dir: str = ""
) -> data.Source:
  """Loads CIFAR-100: 45,000 training, 5,000 validation and 10,000 test images; options as in `training_rows`."""
  return _load("cifar100", imbalance, duplicates, data_dir, cache_dir)


def fashion_mnist(
  *, imbalance: float = 1.0, duplicates: float = 0.0, data_dir: str = "", cache_dir: str = ""
) -> data.Source:
  """Loads Fashion-MNIST: 54,000 training, 6,000 validation and 10,000 test images; options as in `training_rows`."""
  return _load("fashion_mnist", imbalance, duplicates, data_dir, cache_dir)


def digits(*, imbalance: float = 1.0, duplicates: float = 0.0, data_dir: str = "", cache_dir: str = "") -> data.Source:
  """Loads scikit-learn's digits: 1,292 training, 143 validation and 362 test images; options as in `training_rows`."""
  return _load("digits", imbalance, duplicates, data_dir, cache_dir)
