"""Compares the runs in folders: tables, plots, and one page to read anywhere. Unfinished runs are named and left out.

    python -m experiments.report --workdir=runs/digits_methods --out=reports/digits_methods [--target=0.95]

`--workdir` may be repeated; each is searched for runs at any depth. Nothing in them is changed.
"""

import sys

from absl import flags

from dynsel_jax import options
from dynsel_jax.report import page, runs
from experiments import cli


def main() -> int:
  """Writes the report, and prints what was left out."""
  if flags.FLAGS.target is not None:
    options.check_fraction("target", flags.FLAGS.target)
  found = runs.find(flags.FLAGS.workdir)
  for note in page.write(found, flags.FLAGS.out, flags.FLAGS.target):
    print(f"note: {note}", file=sys.stderr)
  print(f"{len(found)} runs: {flags.FLAGS.out}/report.html, report.md, tables/ and plots/")
  return 0


if __name__ == "__main__":
  flags.DEFINE_multi_string("workdir", None, "A run's folder, or one that holds runs; may be repeated.", required=True)
  flags.DEFINE_string("out", None, "The report's folder.", required=True)
  flags.DEFINE_float("target", None, "The test accuracy to take time to; by default 99 % of full training's.")
  cli.run(main)
