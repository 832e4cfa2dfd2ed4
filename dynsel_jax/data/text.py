"""Loads texts, or pairs of them, with labels or targets from the user's own files, as token ids in memory. Host-side.

`N` is the number of samples, `L` the number of tokens of the longest text.
"""

import collections
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from dynsel_jax import hashing, options
from dynsel_jax.data import hugging_face, summary, text_files, tokens
from dynsel_jax.data.source import Dataset, Source, Text, fingerprint
from dynsel_jax.options import UserError

__all__ = ["by_length", "defaults", "halves", "lengths_of", "load", "numbers", "source_of"]

_WHOLE = re.compile(r"-?[0-9]{1,18}(?:\.0+)?")


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
  text_pair_column: str = "",
  target_column: str = "",
  tokenizer: str = "",
  max_length: int = 128,
  length_buckets: int = 4,
) -> Source:
  """Loads the texts of the given files, and says in one line what was read; the inputs are token ids `[N, L]` int32.

  Args:
    name: of the data set, for people; "hf:NAME" reads it by the library Hugging Face `datasets`, see `hugging_face`,
      and then `train`, `test` and `validation` name splits; "" are the splits train and test, and no validation.
    train: file of the training rows; ends in .csv, .tsv or .jsonl, with or without .gz. Its labels are the classes,
      sorted as numbers if all are integers, and as words otherwise; 1.0 is the integer 1. There must be at least two.
    test: file of the test rows.
    validation: file of the validation rows; "" for none.
    split_test: whether to halve the test rows, class by class, into validation and test, as RRD does with RSD-15K.
    split_seed: seed of that split.
    text_column: name of the texts' column.
    label_column: name of the labels' column.
    text_pair_column: name of the column of second texts, "" for none. A pair is one sequence, joined by the tokenizer.
    target_column: name of a column of numbers, which become "targets" for the task regression, unscaled, in place of
      labels; "" for none.
    tokenizer: a file `tokenizer.json`, its folder, or a name that `models.weights.folder` knows. "" splits texts into
      words; the vocabulary is that of the training texts.
    max_length: the largest L; longer texts are truncated, and a warning gives their number.
    length_buckets: number of lengths that a batch may be truncated to. The lengths are quantiles of the training texts'
      numbers of tokens, without duplicates, and L in place of the last one. Batches then hold texts of similar length,
      and test and validation rows are sorted by length. 1 pads every batch to L.

  Raises:
    UserError: a file, one of its rows or an option is wrong, or a label does not occur in the training rows.
  """
  _check(validation, split_test, max_length, length_buckets, 5 if text_pair_column else 3)
  paths = _paths(name, train, test, validation)
  loaded = tokens.load("dataset.tokenizer", tokenizer) if tokenizer else None  # before the files, which may be long
  rows = _rows_of(name, paths, text_column, text_pair_column, label_column, target_column)
  first = rows["train"]
  tokenize = tokens.words_of([*first.texts, *first.seconds]) if loaded is None else loaded
  classes, found = ((), _targets(rows)) if target_column else _labels(paths, rows, label_column)
  answers = {split: {"targets" if target_column else "labels": values} for split, values in found.items()}
  _describe(name, paths, rows, found, classes)
  ids = _encode(name, tokenize, rows, max_length)
  longest, pad = max(len(row) for split in ids for row in ids[split]), tokens.pad_id(tokenize)
  sets = {split: Dataset(inputs=tokens.padded(ids[split], longest, pad), **answers[split]) for split in rows}
  if split_test:
    sets["validation"], sets["test"] = halves(sets["test"], split_seed)
  lengths = lengths_of([len(row) for row in ids["train"]], length_buckets, longest)
  joined = first.texts if not first.seconds else [f"{a} {b}" for a, b in zip(first.texts, first.seconds, strict=True)]
  about = Text(tuple(joined), pad, tokenize.get_vocab_size(), lengths, tokenize.to_str())
  return source_of(name, sets, classes, about)


def _paths(name: str, train: str, test: str, validation: str) -> dict[str, str]:
  """Returns the file of each split that is asked for, or its name in a Hugging Face data set."""
  paths = {"train": train, "test": test} | ({"validation": validation} if validation else {})
  in_hub = name.startswith(hugging_face.PREFIX)
  return {split: path or (split if in_hub else "") for split, path in paths.items()}


def _check(validation: str, split_test: bool, max_length: int, length_buckets: int, least: int) -> None:
  # Two special tokens and one of the text, or three and one of each.
  options.check_at_least("dataset.max_length", max_length, least)
  options.check_positive("dataset.length_buckets", length_buckets)
  if validation and split_test:
    raise UserError(
      f"dataset.validation={validation!r} and dataset.split_test=True give two validation sets; set one of them only"
    )


def _rows_of(
  name: str, paths: Mapping[str, str], text_column: str, pair_column: str, label_column: str, target_column: str
) -> dict[str, text_files.Rows]:
  """Reads the files; raises `UserError` if one is wrong, or a column has two uses."""
  answers = {"target_column": target_column} if target_column else {"label_column": label_column}
  columns = {"text_column": text_column, "text_pair_column": pair_column, **answers}
  for field, column in columns.items():
    if not column.strip() and field != "text_pair_column":
      raise UserError(f"dataset.{field}={column!r} must name a column")
    others = [other for other in columns if other != field and columns[other].strip() == column.strip() != ""]
    if others:
      raise UserError(f"dataset.{field} and dataset.{others[0]} are both {column!r}")
  names, are_numbers = (text_column, target_column or label_column, pair_column), bool(target_column)
  if name.startswith(hugging_face.PREFIX):
    return {split: hugging_face.read_texts(name, path, *names, numbers=are_numbers) for split, path in paths.items()}
  return {
    split: text_files.read(f"dataset.{split}", path, *names, numbers=are_numbers) for split, path in paths.items()
  }


def _targets(rows: Mapping[str, text_files.Rows]) -> dict[str, np.ndarray]:
  return {split: np.array(list(map(float, of_split.labels)), np.float32) for split, of_split in rows.items()}


def _labels(
  paths: Mapping[str, str], rows: Mapping[str, text_files.Rows], label_column: str
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
  """Returns the classes of the training rows, and the numbers of each split's labels."""
  where = {split: f"dataset.{split}={summary.shown(path)}" for split, path in paths.items()}
  classes = _classes(rows["train"].labels)
  if len(classes) == 1:
    raise UserError(
      f"{where['train']} has one class, {classes[0]!r}; a classifier needs two; is"
      f" dataset.label_column={label_column!r} the column of the labels?"
    )
  return classes, {split: numbers(where[split], rows[split], classes) for split in rows}


def _encode(
  name: str, tokenize: tokens.Tokenizer, rows: dict[str, text_files.Rows], max_length: int
) -> dict[str, list[list[int]]]:
  """Returns the token ids of each split's texts; warns of truncated texts."""
  ids, truncated = {}, 0
  for split in rows:
    of_split = rows[split]
    pairs = list(zip(of_split.texts, of_split.seconds, strict=True)) if of_split.seconds else of_split.texts
    ids[split], count = tokens.encode(tokenize, pairs, max_length)
    truncated += count
  total = sum(len(split.texts) for split in rows.values())
  if truncated:
    logging.warning(
      "%s: %s of %s texts had more than dataset.max_length=%d tokens and were truncated",
      name,
      truncated,
      total,
      max_length,
    )
  return ids


def _describe(
  name: str,
  paths: Mapping[str, str],
  rows: Mapping[str, text_files.Rows],
  answers: Mapping[str, np.ndarray],
  classes: Sequence[str],
) -> None:
  """Says what was read, and what was left out."""
  what = "pair" if rows["train"].seconds else "text"
  parts = summary.splits(what, answers, classes) if classes else summary.targets(what, answers)
  notes = summary.same_files(paths)
  if alike := summary.alike(classes):
    notes.append(f"classes that look alike: {summary.named(alike)}")
  left_out = sum((split.left_out for split in rows.values()), collections.Counter[str]())
  if words := summary.counted(left_out):
    notes.append(f"left out: {words}")
  parts += notes
  parts += [
    f"the columns of dataset.{split} are separated by {split_rows.separator!r}"
    for split, split_rows in rows.items()
    if split_rows.separator != ","
  ]
  summary.say(f"{summary.shown(name)}: {'; '.join(parts)}", warn=bool(notes))


def source_of(name: str, sets: Mapping[str, Dataset], classes: tuple[str, ...], text: Text) -> Source:
  """Builds a `Source` of token ids: takes the fingerprints, and sorts all splits but the training set by length.

  Args:
    name: of the data set, for people.
    sets: "train", "test" and perhaps "validation".
    classes: names of the labels; empty without labels.
    text: the texts, which the fingerprints cover too, and the lengths.
  """
  texts_digest = hashing.text_digest("\0".join(text.train))

  def with_texts(*arrays: np.ndarray) -> str:
    return hashing.text_digest(fingerprint(*arrays) + texts_digest)

  whole = with_texts(*(array for split in sets.values() for array in split.values()))
  inputs = with_texts(sets["train"]["inputs"])
  # The order of test and validation rows has no meaning, so that sorting them replaces a plan by length.
  sorted_sets = {split: by_length(sets[split], text.lengths, text.pad_id) for split in sets if split != "train"}
  return Source(
    name=name,
    train=sets["train"],
    test=sorted_sets["test"],
    num_classes=len(classes),
    fingerprint=whole,
    inputs_fingerprint=inputs,
    class_names=classes,
    validation=sorted_sets.get("validation"),
    text=text,
  )


def defaults() -> dict[str, Any]:
  """Returns the options of a config's section `dataset` for texts."""
  return options.keyword_defaults(load)


def halves(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
  """Splits a data set at random into two halves, class by class if it has labels.

  The halves differ by at most one sample, over all and within each class.

  Raises:
    UserError: there are fewer than two samples.
  """
  labels = dataset.get("labels", np.zeros(len(dataset["inputs"]), np.int32))
  if len(labels) < 2:
    raise UserError(f"dataset.split_test=True needs at least two test rows; there are {len(labels)}")
  order = np.random.default_rng(seed).permutation(len(labels))
  order = order[np.argsort(labels[order], kind="stable")]
  first, second = (np.sort(order[start::2]) for start in (0, 1))
  return _rows(dataset, first), _rows(dataset, second)


def lengths_of(counts: Sequence[int], number: int, longest: int) -> tuple[int, ...]:
  """Returns the quantiles of the counts at 1 / number, 2 / number, ..., without duplicates, `longest` for the last."""
  fractions = np.arange(1, number) / number
  return tuple(sorted({*np.quantile(counts, fractions, method="inverted_cdf").tolist(), longest}))


def by_length(dataset: Dataset, lengths: Sequence[int], pad: int) -> Dataset:
  """Sorts a data set by the shortest of `lengths` that holds each text; texts of one length keep their order."""
  bucket = np.searchsorted(lengths, np.sum(dataset["inputs"] != pad, axis=1))
  order = np.argsort(bucket, kind="stable")
  return _rows(dataset, order)


def _rows(dataset: Dataset, rows: np.ndarray) -> Dataset:
  return Dataset({name: array[rows] for name, array in dataset.items()})


def _classes(labels: Sequence[str]) -> tuple[str, ...]:
  if all(map(_WHOLE.fullmatch, labels)):
    return tuple(sorted({*map(_plain, labels)}, key=lambda label: (int(label), label)))
  return tuple(sorted({*labels}))


def _plain(label: str) -> str:
  """Returns 1 for 1.0, as some libraries write a column of whole numbers in which one is missing."""
  return label.partition(".")[0]


def numbers(where: str, rows: text_files.Rows, classes: Sequence[str]) -> np.ndarray:
  """Returns the labels of rows as positions in `classes`, `[N]` int32.

  Raises:
    UserError: a label is none of the classes; the message begins with `where`.
  """
  number = {label: position for position, label in enumerate(classes)}
  whole = all(map(_WHOLE.fullmatch, classes))
  labels = [_plain(label) if whole and _WHOLE.fullmatch(label) else label for label in rows.labels]
  for label, line in zip(labels, rows.lines, strict=True):
    if label not in number:
      raise UserError(f"{where}: line {line} has the label {label!r}, which does not occur in dataset.train")
  return np.array([number[label] for label in labels], np.int32)
