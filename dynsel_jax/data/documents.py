"""Loads plain documents for language modelling from the user's own files, cut to length. Host-side."""

from typing import Any

import numpy as np

from dynsel_jax import options
from dynsel_jax.data import codecs, json_rows, summary, token_sets
from dynsel_jax.data.codecs import Codec
from dynsel_jax.data.source import Source
from dynsel_jax.data.token_sets import Sequences
from dynsel_jax.options import UserError, check_positive

__all__ = ["cut", "defaults", "load"]


def load(
  name: str,
  *,
  train: str = "",
  test: str = "",
  validation: str = "",
  text_column: str = "text",
  domain_column: str = "domain",
  tokenizer: str = "",
  vocabulary: int = 4096,
  max_length: int = 256,
  length_buckets: int = 1,
) -> Source:
  """Loads documents as pieces of at most `max_length` tokens, each a sample, and says in one line what was read.

  A document begins and ends with the token that ends texts. A piece begins with the last token of the piece before it,
  so that each token of a document, except the first, is predicted exactly once.

  Args:
    name: of the data set, for people.
    train: file of the training documents in JSON Lines, `.jsonl` or `.jsonl.gz`.
    test: file of the test documents.
    validation: file of the validation documents; "" for none.
    text_column: name of the texts' column.
    domain_column: name of the column of a document's domain, the label to balance over; no row need have it.
    tokenizer: a file `tokenizer.json`, or its folder. "" learns byte pairs on the training documents.
    vocabulary: number of tokens to learn; 0 reads bytes, and needs no library. Not read if there is a tokenizer.
    max_length: the largest L.
    length_buckets: number of lengths that a batch may be truncated to; most pieces have the same length.

  Raises:
    UserError: a file, one of its rows or an option is wrong.
  """
  token_sets.check_lengths(max_length, length_buckets)
  check_positive("dataset.vocabulary", vocabulary, zero=True)
  loaded = codecs.load("dataset.tokenizer", tokenizer) if tokenizer else None  # before the files, which may be long
  paths = {"train": train, "test": test} | ({"validation": validation} if validation else {})
  documents = {split: _read(f"dataset.{split}", path, text_column, domain_column) for split, path in paths.items()}
  texts = [text for text, _ in documents["train"]]
  codec = loaded or (codecs.learnt(texts, vocabulary) if vocabulary else codecs.by_bytes())
  splits = {split: _pieces(codec, rows, max_length) for split, rows in documents.items()}
  lost = token_sets.note_lost(codec, [text for rows in documents.values() for text, _ in rows])
  notes = summary.same_files(paths) + lost
  return token_sets.source(name, splits, codec, length_buckets, notes, "piece")


def defaults() -> dict[str, Any]:
  """Returns the options of a config's section `dataset` for documents."""
  return options.keyword_defaults(load)


def cut(ids: np.ndarray, max_length: int) -> list[np.ndarray]:
  """Cuts token ids `[n]`, n at least 2, into pieces of at most `max_length`, at least 2, that overlap by one token."""
  return [ids[start : start + max_length] for start in range(0, len(ids) - 1, max_length - 1)]


def _read(field: str, path: str, text_column: str, domain_column: str) -> list[tuple[str, str]]:
  """Returns text and domain of each document."""
  if text_column == domain_column:
    raise UserError(f"dataset.text_column and dataset.domain_column are both {text_column!r}")
  rows = json_rows.read(field, path)
  texts = [json_rows.string(row, text_column) for row in rows]
  return list(zip(texts, json_rows.domains(rows, domain_column), strict=True))


def _pieces(codec: Codec, documents: list[tuple[str, str]], max_length: int) -> Sequences:
  found = Sequences([], [], [], [])
  encoded = codec.encode([text for text, _ in documents])
  for ids, (_, domain) in zip(encoded, documents, strict=True):
    for piece in cut(np.array([codec.end, *ids, codec.end], np.int32), max_length):
      found.ids.append(piece)
      found.targets.append(np.arange(len(piece)) > 0)
      found.domains.append(domain)
  return found._replace(texts=codec.decode([piece[piece != codec.end].tolist() for piece in found.ids]))
