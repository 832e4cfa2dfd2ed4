"""Says in one line for people what was read of a data set, and what was left out. Host-side."""

import collections
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np
from absl import logging

from dynsel_jax import options

__all__ = ["alike", "counted", "named", "plain", "same_files", "say", "shown", "splits", "targets"]

_NAMED = 10  # largest number of classes, or of reasons, of which each is named
_LENGTH = 40  # characters of a class's name from which on its middle is cut out


def say(line: str, *, warn: bool = False) -> None:
  """Shows a line on standard error, by the first of several processes; `warn` makes it a warning of the log."""
  if jax.distributed.is_initialized() and jax.process_index() > 0:
    return
  if warn:
    logging.warning("%s", line)
  else:
    print(line, file=sys.stderr, flush=True)


def shown(path: str) -> str:
  """Returns a path, or a name, for people: in one line, whatever bytes it has."""
  return options.printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def named(names: Iterable[str]) -> str:
  """Lists names, the first ten of them if there are more."""
  listed = [options.printable(shown(name), _LENGTH) for name in names]
  return ", ".join([*listed[:_NAMED], *(["..."] if len(listed) > _NAMED else [])])


def counted(numbers: Mapping[str, int]) -> str:
  """Lists reasons with their numbers, the most frequent first, for example ".txt 3, hidden 1"."""
  ordered = sorted((-number, reason) for reason, number in numbers.items() if number)
  words = [f"{shown(reason)} {-number:,}" for number, reason in ordered[:_NAMED]]
  if rest := ordered[_NAMED:]:
    words.append(f"others {-sum(number for number, _ in rest):,}")
  return ", ".join(words)


def plain(name: str) -> str:
  """Returns a name without what one easily overlooks in it."""
  visible = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
  return " ".join(visible.casefold().split())


def alike(names: Sequence[str]) -> list[str]:
  """Returns the names that differ from another one only by case, spaces, the encoding of an accent or what has no
  width."""
  counts = collections.Counter(map(plain, names))
  return [name for name in names if counts[plain(name)] > 1]


def same_files(paths: Mapping[str, str]) -> list[str]:
  """Names the splits that are read from the file of another one; `paths` are the files by split."""
  found: dict[str, str] = {}
  firsts = {split: found.setdefault(os.path.realpath(os.path.expanduser(path)), split) for split, path in paths.items()}
  return [f"dataset.{split} is the file of dataset.{first}" for split, first in firsts.items() if split != first]


def splits(what: str, labels: Mapping[str, np.ndarray], names: Sequence[str]) -> list[str]:
  """Describes each split, for example "train: 8 images of 2 classes (cat 5, dog 3)", and the classes that one lacks.

  Args:
    what: a sample, for people: "image" or "text".
    labels: `[N]` int32 by split.
    names: of the classes, in the order of the labels.
  """
  parts = []
  for split, of_split in labels.items():
    counts = np.bincount(of_split, minlength=len(names))
    parts.append(f"{split}: {len(of_split):,} {what}{'s' * (len(of_split) != 1)} of {_classes(counts, names)}")
    if not counts.all():
      parts.append(f"no {split} {what}s of: {named(names[label] for label in np.flatnonzero(counts == 0).tolist())}")
  return parts


def targets(what: str, numbers: Mapping[str, np.ndarray]) -> list[str]:
  """Describes each split of numbers `[N]`, for example "train: 8 pairs with targets from 0 to 5, mean 2.5"."""
  return [
    f"{split}: {len(of_split):,} {what}{'s' * (len(of_split) != 1)} with targets from {of_split.min():.4g} to"
    f" {of_split.max():.4g}, mean {of_split.mean():.4g}"
    for split, of_split in numbers.items()
  ]


def _classes(counts: np.ndarray, names: Sequence[str]) -> str:
  present = np.flatnonzero(counts).tolist()
  number = f"{len(present):,} class{'es' if len(present) > 1 else ''}"
  if len(present) <= _NAMED:
    return f"{number} ({', '.join(f'{named([names[label]])} {counts[label]:,}' for label in present)})"
  low, high = counts[present].min(), counts[present].max()
  each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
  return f"{number} ({named(names[label] for label in present)}; {each} of each)"
