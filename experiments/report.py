"""Compares the runs in folders: tables, plots, and one page to read anywhere. Unfinished runs are named and left out.

    python -m experiments.report --workdir=runs/digits_methods --out=reports/digits_methods [--target=0.95]

`--workdir` may be repeated; each is searched for runs at any depth. Nothing in them is changed.
"""

import sys

from absl import flags

from dynsel_jax import options
from dynsel_jax.report import page, runs
from experiments import cli

_WORKDIR = flags.DEFINE_multi_string("workdir", None, "A run's folder, or one that holds runs; may be repeated.")
_OUT = flags.DEFINE_string("out", None, "The report's folder.")
_TARGET = flags.DEFINE_float("target", None, "The test accuracy to take time to; by default 99 % of full training's.")
flags.mark_flags_as_required(["workdir", "out"])


def main() -> int:
  """Writes the report, and prints what was left out."""
  if _TARGET.value is not None:
    options.check_fraction("target", _TARGET.value)
  found = runs.find(_WORKDIR.value)
  for note in page.write(found, _OUT.value, _TARGET.value):
    print(f"note: {note}", file=sys.stderr)
  print(f"{len(found)} runs: {_OUT.value}/report.html, report.md, tables/ and plots/")
  return 0


if __name__ == "__main__":
  cli.run(main)
