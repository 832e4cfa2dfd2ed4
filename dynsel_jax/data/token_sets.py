"""Builds the data set of a language model from the token ids of its sequences. Host-side.

`N` is the number of sequences, `L` the number of tokens of the longest one.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dynsel_jax.data import codecs, summary, text, tokens
from dynsel_jax.data.codecs import Codec
from dynsel_jax.data.source import Dataset, Source, Text
from dynsel_jax.models.decoder import PAD
from dynsel_jax.options import check_at_least

__all__ = ["Sequences", "check_lengths", "note_lost", "source"]


class Sequences(NamedTuple):
  """The sequences of a split, of two tokens at least."""

  ids: list[np.ndarray]  # [length] int32 each
  targets: list[np.ndarray]  # [length] bool each: the tokens whose loss counts, one at least, and never the first
  texts: list[str]
  domains: list[str]  # "" if there are none


def source(
  name: str, splits: Mapping[str, Sequences], codec: Codec, length_buckets: int, notes: Sequence[str], unit: str
) -> Source:
  """Builds a `Source` of "inputs" `[N, L]` int32, -1 on padding, and "targets" `[N, L]` bool; says what was read.

  The training set has "labels" `[N]` int32 too, the place of a sequence's domain among the sorted domains, unless all
  are of one domain. The other splits are sorted by length.

  Args:
    name: of the data set, for people.
    splits: "train", "test" and perhaps "validation".
    codec: that made the ids.
    length_buckets: number of lengths that a batch may be truncated to, as in `text.load`.
    notes: what people should know beside the numbers; if there are any the line is a warning.
    unit: a sequence, for people.
  """
  longest = max(len(ids) for split in splits.values() for ids in split.ids)
  lengths = text.lengths_of([len(ids) for ids in splits["train"].ids], length_buckets, longest)
  sets = {split: _arrays(held, longest) for split, held in splits.items()}
  names = tuple(sorted(set(splits["train"].domains)))
  if len(names) > 1:
    number = {domain: place for place, domain in enumerate(names)}
    sets["train"]["labels"] = np.array([number[domain] for domain in splits["train"].domains], np.int32)
  _describe(name, splits, names, notes, unit)
  about = Text(tuple(splits["train"].texts), PAD, codec.vocabulary, lengths, codec.tokenizer)
  return text.source_of(name, sets, names if len(names) > 1 else (), about)


def note_lost(codec: Codec, texts: Sequence[str]) -> list[str]:
  """Returns a note on the characters that the codec loses, if there are any."""
  lost = codecs.lost_characters(codec, texts)
  if not lost:
    return []
  most = ", ".join(f"{character!r} {count:,}" for character, count in lost.most_common(5))
  return [f"{lost.total():,} characters are lost, which the tokenizer's vocabulary lacks: {most}"]


def _arrays(held: Sequences, longest: int) -> Dataset:
  targets = np.zeros((len(held.ids), longest), bool)
  for row, counted in zip(targets, held.targets, strict=True):
    row[: len(counted)] = counted
  return Dataset(inputs=tokens.padded(held.ids, longest, PAD), targets=targets)


def _describe(
  name: str, splits: Mapping[str, Sequences], domains: Sequence[str], notes: Sequence[str], unit: str
) -> None:
  parts = []
  for split, held in splits.items():
    counted = sum(int(row.sum()) for row in held.targets)
    part = f"{split}: {len(held.ids):,} {unit}{'s' * (len(held.ids) != 1)} with {counted:,} target tokens"
    if len(domains) > 1:
      part += f" ({summary.counted(collections.Counter(held.domains))})"
    parts.append(part)
  summary.say(f"{summary.shown(name)}: {'; '.join([*parts, *notes])}", warn=bool(notes))


def check_lengths(max_length: int, length_buckets: int) -> None:
  """Raises `UserError` unless sequences may have two tokens and there is a bucket."""
  check_at_least("dataset.max_length", max_length, 2)  # the first token is not predicted
  check_at_least("dataset.length_buckets", length_buckets, 1)
