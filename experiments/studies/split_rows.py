"""Splits a JSON Lines file into a smaller training set and a validation set. Host-side.

    python -m experiments.studies.split_rows --file=train.jsonl.gz --group=document --stratum=domain --keep=0.2 \
        --out=documents

The folder gets `train.jsonl.gz` and `validation.jsonl.gz`. All rows with the same value of the column `group` stay
together, so that no document is in both; without a group each row stands alone. Each value of the column `stratum` is
split by itself, so that all are in both parts. Rows with more than `longest` characters are left out. The order of the
groups is that of a hash of their values: a larger `keep` only adds rows, and the validation set does not depend on it.
"""

import gzip
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from dynsel_jax import hashing, options
from dynsel_jax.data import json_rows
from dynsel_jax.runs.workdir import check_writable
from experiments import cli

__all__ = ["split", "write"]


def _characters(held: Mapping[str, Any]) -> int:
  return sum(len(value) for value in held.values() if isinstance(value, str))


def split(
  file: str, group: str = "", stratum: str = "", validation: float = 0.1, keep: float = 1.0, longest: int = 0
) -> tuple[list[str], list[str]]:
  """Returns the lines of the training set and of the validation set, in the file's order.

  Args:
    file: in JSON Lines, `.jsonl` or `.jsonl.gz`.
    group: the column whose values stay together; "" lets each row stand alone.
    stratum: the column whose values are split one by one; "" splits the whole file at once.
    validation: fraction of a stratum's groups for validation, in (0, 1), rounded, at least one group; a single one is
      for training.
    keep: fraction of its other groups that are kept for training, in (0, 1], rounded, at least one group.
    longest: a row whose strings have more characters in all is left out; 0 leaves none out.

  Raises:
    UserError: the file is wrong, a row lacks a column, a number is out of range, or nothing is left for validation.
  """
  options.check_fraction("validation", validation, one=False)
  options.check_fraction("keep", keep)
  options.check_positive("longest", longest, zero=True)
  rows = [row for row in json_rows.read("file", file) if not longest or _characters(row.held) <= longest]
  for row in rows:
    for option, column in (("group", group), ("stratum", stratum)):
      if column and column not in row.held:
        raise row.wrong(f"has no column {column!r}; give another --{option}")
  lines = [json.dumps(row.held, ensure_ascii=False, sort_keys=True) for row in rows]
  groups = [json.dumps(row.held[group]) if group else line for row, line in zip(rows, lines, strict=True)]
  strata = [json.dumps(row.held[stratum]) if stratum else "" for row in rows]
  places = list(zip(strata, groups, strict=True))
  of_stratum = dict[str, set[str]]()
  for name, one in places:
    of_stratum.setdefault(name, set()).add(one)
  trained, held_out = set[tuple[str, str]](), set[tuple[str, str]]()
  for name, members in of_stratum.items():
    found = sorted(members, key=hashing.text_digest)
    held = min(max(1, round(validation * len(found))), len(found) - 1)
    kept = max(1, round(keep * (len(found) - held)))
    held_out |= {(name, one) for one in found[:held]}
    trained |= {(name, one) for one in found[held : held + kept]}
  if not held_out:
    raise options.UserError(f"file={file} has no group to spare for validation; give another --group or --stratum")
  chosen = [[line for line, at in zip(lines, places, strict=True) if at in part] for part in (trained, held_out)]
  return chosen[0], chosen[1]


def write(file: str, out: str, parts: Sequence[Sequence[str]]) -> None:
  """Writes the lines of the two parts into the folder `out`, and prints how many there are.

  Raises:
    UserError: the folder cannot be made, or the file that was split would be overwritten; nothing is written.
  """
  check_writable(out)
  folder = pathlib.Path(out)
  paths = [folder / f"{name}.jsonl.gz" for name in ("train", "validation")]
  if pathlib.Path(file).resolve() in [path.resolve() for path in paths]:
    raise options.UserError(f"out={out} would overwrite file={file}; name another folder")
  folder.mkdir(parents=True, exist_ok=True)
  for path, lines in zip(paths, parts, strict=True):
    text = "".join(f"{line}\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))  # the same rows always give the same bytes
    print(options.printable(f"{path}: {len(lines):,} rows"))


def main() -> int:
  """Splits the file."""
  values = flags.FLAGS
  file, out = (options.expand_home(name, values[name].value) for name in ("file", "out"))
  parts = split(file, values.group, values.stratum, values.validation, values.keep, values.longest)
  write(file, out, parts)
  return 0


if __name__ == "__main__":
  flags.DEFINE_string("file", None, "The file to split.", required=True)
  flags.DEFINE_string("out", None, "The folder of the two files.", required=True)
  flags.DEFINE_string("group", "", "The column whose values stay together.")
  flags.DEFINE_string("stratum", "", "The column whose values are split one by one.")
  flags.DEFINE_float("validation", 0.1, "Fraction of the groups for validation.")
  flags.DEFINE_float("keep", 1.0, "Fraction of the other groups that are kept for training.")
  flags.DEFINE_integer("longest", 0, "Leave out rows whose strings have more characters in all; 0 leaves none out.")
  cli.run(main)
