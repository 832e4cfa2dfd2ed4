"""Text classification sets from the user's own files, as token ids in memory. Host-side.

`N` is the number of samples, `L` the tokens of the longest text.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from dynsel_jax import options
from dynsel_jax.data import text_files, tokens
from dynsel_jax.data.source import Dataset, Source, Text, fingerprint
from dynsel_jax.options import UserError

__all__ = ["defaults", "halves", "load"]


def load(
  name: str,
  *,
  train: str = "",
  test: str = "",
  validation: str = "",
  split_test: bool = False,
  split_seed: int = 0,
  text_column: str = "text",
  label_column: str = "label",
  tokenizer: str = "",
  max_length: int = 128,
  length_buckets: int = 4,
) -> Source:
  """Returns the set of the given files, whose inputs are token ids `[N, L]` int32.

  Args:
    name: of the set, for people.
    train: file of the training rows, ending in .csv, .jsonl or one of them with .gz. Its labels are the classes, sorted
      by value where all are whole numbers and as words otherwise.
    test: file of the test rows.
    validation: file of the validation rows, or "" for none.
    split_test: whether to halve the test rows, class by class, into validation and test, as RRD does with RSD-15K.
    split_seed: of that draw.
    text_column: name of the texts' column.
    label_column: name of the labels' column.
    tokenizer: file `tokenizer.json`, the folder it lies in, or a name that `models.weights.folder` knows. "" is one by
      words, learned on the training texts.
    max_length: the largest L; a longer text is cut, which is reported once.
    length_buckets: how many lengths a batch may be cut to: that many quantiles of the training texts' tokens, equal
      ones taken once, and L in place of the last. Batches then hold texts of similar length, and test and validation
      rows are sorted by it. 1 pads every batch to L.

  Raises:
    UserError: a file or one of its rows is wrong, a label has no training row, or an option is wrong.
  """
  if max_length < 3:
    raise UserError(f"dataset.max_length={max_length} must be at least 3")
  options.check_positive("dataset.length_buckets", length_buckets)
  if validation and split_test:
    raise UserError(f"dataset.validation={validation!r} and dataset.split_test=True give two validation sets")
  if tokenizer:  # before the files, which may be long
    tokenize = tokens.load("dataset.tokenizer", tokenizer)
  paths = {"train": train, "test": test} | ({"validation": validation} if validation else {})
  rows = {split: text_files.read(f"dataset.{split}", path, text_column, label_column) for split, path in paths.items()}
  classes = _classes(rows["train"].labels)
  labels = {split: _numbers(f"dataset.{split}={paths[split]}", rows[split], classes) for split in rows}
  if not tokenizer:
    tokenize = tokens.words_of(rows["train"].texts)
  ids, cut = {}, 0
  for split in rows:
    ids[split], cut_here = tokens.encode(tokenize, rows[split].texts, max_length)
    cut += cut_here
  _report(name, cut, max_length, rows)
  length, pad = max(len(row) for split in ids for row in ids[split]), tokens.pad_id(tokenize)
  sets: dict[str, Dataset] = {
    split: {"inputs": tokens.padded(ids[split], length, pad), "labels": labels[split]} for split in rows
  }
  if split_test:
    sets["validation"], sets["test"] = halves(sets["test"], split_seed)
  texts = tuple(rows["train"].texts)
  print_of_texts = hashlib.sha256("\0".join(texts).encode()).hexdigest()

  def with_texts(*arrays: np.ndarray) -> str:
    return hashlib.sha256((fingerprint(*arrays) + print_of_texts).encode()).hexdigest()

  prints = (
    with_texts(*(array for split in sets.values() for array in split.values())),
    with_texts(sets["train"]["inputs"]),
  )
  lengths = _lengths([len(row) for row in ids["train"]], length_buckets, length)
  # The order of these rows means nothing, so they need no plan to be evaluated by length.
  sets |= {split: _by_length(sets[split], lengths, pad) for split in sets if split != "train"}
  return Source(
    name=name,
    train=sets["train"],
    test=sets["test"],
    num_classes=len(classes),
    fingerprint=prints[0],
    inputs_fingerprint=prints[1],
    class_names=classes,
    validation=sets.get("validation"),
    text=Text(texts, pad, tokenize.get_vocab_size(), lengths),
  )


def defaults() -> dict[str, Any]:
  """Returns the options of a config's section `dataset` for texts."""
  return options.keyword_defaults(load)


def halves(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
  """Splits a set by a draw of `seed` into two, each class's numbers and the halves' differing by one at most.

  Raises:
    UserError: there are fewer than two samples.
  """
  labels = dataset["labels"]
  if len(labels) < 2:
    raise UserError("dataset.split_test=True needs at least two test rows")
  order = np.random.default_rng(seed).permutation(len(labels))
  order = order[np.argsort(labels[order], kind="stable")]
  first, second = (np.sort(order[start::2]) for start in (0, 1))
  return _rows(dataset, first), _rows(dataset, second)


def _lengths(counts: Sequence[int], number: int, longest: int) -> tuple[int, ...]:
  """Returns the quantiles of the counts at 1 / number, 2 / number, ..., each once, and `longest` for the last."""
  shares = np.arange(1, number) / number
  return tuple(sorted({*np.quantile(counts, shares, method="inverted_cdf").tolist(), longest}))


def _by_length(dataset: Dataset, lengths: Sequence[int], pad: int) -> Dataset:
  """Sorts a set by the shortest of `lengths` that holds a text; texts of one length stay in their order."""
  bucket = np.searchsorted(lengths, np.sum(dataset["inputs"] != pad, axis=1))
  order = np.argsort(bucket, kind="stable")
  return _rows(dataset, order)


def _rows(dataset: Dataset, rows: np.ndarray) -> Dataset:
  return {name: array[rows] for name, array in dataset.items()}


def _classes(labels: Sequence[str]) -> tuple[str, ...]:
  distinct = set(labels)
  numbers = all(label.removeprefix("-").isdecimal() for label in distinct)
  return tuple(sorted(distinct, key=int) if numbers else sorted(distinct))


def _numbers(where: str, rows: text_files.Rows, classes: Sequence[str]) -> np.ndarray:
  number = {label: position for position, label in enumerate(classes)}
  for label, line in zip(rows.labels, rows.lines, strict=True):
    if label not in number:
      raise UserError(f"{where}: line {line} has the label {label!r}, which no training row has")
  return np.array([number[label] for label in rows.labels], np.int32)


def _report(name: str, cut: int, max_length: int, rows: dict[str, text_files.Rows]) -> None:
  """Says once what of the files is not in the set."""
  total = sum(len(split.texts) for split in rows.values())
  if cut:
    logging.warning("%s: %s of %s texts had more than max_length=%d tokens and were cut", name, cut, total, max_length)
  if left_out := sum(split.left_out for split in rows.values()):
    logging.warning("%s: %s rows with no label or several were left out, %s stay", name, left_out, total)
