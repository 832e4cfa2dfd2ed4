"""Compares the runs in two folders bit for bit, for example those of two versions of the code.

    python -m experiments.studies.same_bits --before=runs/old --after=runs/new

Each folder holds runs in folders of the same names. Every field of `metrics.jsonl` and `summary.json` that both have,
but seconds, and every array of `usage.npz` must be equal. Prints a line for each run; the exit status is 1 if any
differs.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from dynsel_jax import options
from experiments import cli

_UNCOMPARED = ("seconds", "resumed_from")


def differences(before: pathlib.Path, after: pathlib.Path) -> Iterator[str]:
  """Yields, for two run folders, each field with a different value."""
  for name, old, new in _values(before, after):
    if old != new:
      yield f"{name}: {old!r} before, {new!r} after"
  with np.load(before / "usage.npz") as old_usage, np.load(after / "usage.npz") as new_usage:
    for name in old_usage:
      if not np.array_equal(old_usage[name], new_usage[name], equal_nan=old_usage[name].dtype.kind == "f"):
        yield f"usage.npz {name}: {np.count_nonzero(old_usage[name] != new_usage[name])} samples differ"


def _values(before: pathlib.Path, after: pathlib.Path) -> Iterator[tuple[str, Any, Any]]:
  """Yields the name and the two values of each field that both runs have."""
  old_lines, new_lines = ((path / "metrics.jsonl").read_text().splitlines() for path in (before, after))
  yield "epochs", len(old_lines), len(new_lines)
  summaries = [(path / "summary.json").read_text() for path in (before, after)]
  pairs = [*zip(old_lines, new_lines, strict=False), tuple(summaries)]
  for number, pair in enumerate(pairs, start=1):
    old, new = map(json.loads, pair)
    where = f"epoch {number}" if number < len(pairs) else "summary"
    for name in old.keys() & new.keys() - set(_UNCOMPARED):
      yield f"{where} {name}", old[name], new[name]


def main() -> int:
  """Prints a line for each run."""
  before, after = (pathlib.Path(folder) for folder in (flags.FLAGS.before, flags.FLAGS.after))
  names = sorted(path.parent.name for path in before.glob("*/summary.json") if (after / path.parent.name).is_dir())
  if not names:
    raise options.UserError(f"before={before} and after={after} have no finished run of the same name")
  differing = 0
  for name in names:
    found = list(differences(before / name, after / name))
    differing += bool(found)
    print(f"{name}: {f'{len(found)} fields differ, first {found[0]}' if found else 'the same bits'}")
  print(f"{len(names) - differing} of {len(names)} runs are the same")
  return int(differing > 0)


if __name__ == "__main__":
  flags.DEFINE_string("before", None, "A folder of runs.", required=True)
  flags.DEFINE_string("after", None, "A folder of runs of the same names.", required=True)
  cli.run(main)
