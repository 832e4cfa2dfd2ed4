"""Compares the runs in two folders bit for bit, for example those of two versions of the code.

    python -m experiments.studies.same_bits --before=runs/old --after=runs/new

Runs are matched by the names of their folders. Every array of `usage.npz` must be equal, and every field of
`metrics.jsonl` and `summary.json` that both runs have, except seconds. Prints a line for each run; the exit status is 1
if any run differs.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from dynsel_jax import cache, options
from dynsel_jax.runs import files
from experiments import cli

__all__ = ["differences"]

# Fields that depend on the machine, on where the run was stopped, or on those.
_UNCOMPARED = ("seconds", "ended", "resumed_from", files.DIGEST)


def differences(before: pathlib.Path, after: pathlib.Path) -> Iterator[str]:
  """Describes each field and array that differs between two folders of finished runs."""
  for name, old, new in _values(before, after):
    if old != new:
      yield f"{name}: {old!r} before, {new!r} after"
  old_usage, new_usage = (
    cache.read_arrays(name, path / "usage.npz") for name, path in (("before", before), ("after", after))
  )
  for name, old in old_usage.items():
    new = new_usage[name]
    if old.shape != new.shape:
      yield f"usage.npz {name}: {len(old)} samples before, {len(new)} after"
    elif count := np.count_nonzero((old != new) & ~(np.isnan(old) & np.isnan(new))):
      yield f"usage.npz {name}: {count} samples differ"


def _values(before: pathlib.Path, after: pathlib.Path) -> Iterator[tuple[str, Any, Any]]:
  """Yields the name and the two values of each field that both runs have."""
  old_lines, new_lines = ((path / "metrics.jsonl").read_text().splitlines() for path in (before, after))
  yield "epochs", len(old_lines), len(new_lines)
  pairs = {f"epoch {epoch}": pair for epoch, pair in enumerate(zip(old_lines, new_lines, strict=False), start=1)}
  pairs["summary"] = ((before / "summary.json").read_text(), (after / "summary.json").read_text())
  for where, texts in pairs.items():
    old, new = map(json.loads, texts)
    for name in sorted((old.keys() & new.keys()) - set(_UNCOMPARED)):
      yield f"{where} {name}", old[name], new[name]


def main() -> int:
  """Prints a line for each run."""
  given = {"before": flags.FLAGS.before, "after": flags.FLAGS.after}
  before, after = (pathlib.Path(options.expand_home(name, folder)) for name, folder in given.items())
  names, others = ({path.parent.name for path in folder.glob("*/summary.json")} for folder in (before, after))
  if not names & others:
    raise options.UserError(f"before={before} and after={after} contain no finished runs of the same name")
  differing = 0
  for name in sorted(names & others):
    found = list(differences(before / name, after / name))
    differing += bool(found)
    said = f"{len(found)} fields differ, first {found[0]}" if found else "the same bits"
    print(options.printable(f"{name}: {said}"))
  for folder, lacking in ((after, names - others), (before, others - names)):
    if lacking:
      print(options.printable(f"not compared, since {folder} lacks them: {', '.join(sorted(lacking))}"))
  print(f"{len(names & others) - differing} of {len(names & others)} runs are the same")
  return int(differing > 0)


if __name__ == "__main__":
  flags.DEFINE_string("before", None, "A folder of runs.", required=True)
  flags.DEFINE_string("after", None, "A folder of runs with the same names.", required=True)
  cli.run(main)
