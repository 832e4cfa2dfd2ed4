"""Compares the runs in folders: tables, plots, and one page to read anywhere. Unfinished runs are named and left out.

    python -m experiments.report --workdir=runs/digits_methods [FOLDER ...] [--out=reports/digits] [--target=0.95]

`--workdir` may be repeated, and more folders may follow; each is searched for runs at any depth. No run is changed; the
report goes to the folder `report` in the first, or where `--out` says.
"""

import pathlib
import sys

from absl import flags

from dynsel_jax import options
from dynsel_jax.report import page, runs
from experiments import cli


def main(*more: str) -> int:
  """Writes the report on the runs in `--workdir` and `more` folders, and prints what was left out."""
  if flags.FLAGS.target is not None:
    options.check_fraction("target", flags.FLAGS.target)
  folders = [*flags.FLAGS.workdir, *more]
  out = flags.FLAGS.out or str(pathlib.Path(folders[0], "report"))
  found = runs.find(folders)
  for note in page.write(found, out, flags.FLAGS.target, runs.lost(folders)):
    print(f"note: {note}", file=sys.stderr)
  print(f"{len(found)} runs: {out}/report.html, report.md, tables/ and plots/")
  return 0


if __name__ == "__main__":
  flags.DEFINE_multi_string("workdir", None, "A run's folder, or one that holds runs; may be repeated.", required=True)
  flags.DEFINE_string("out", None, "The report's folder; by default `report` in the first workdir.")
  flags.DEFINE_float("target", None, "The test accuracy to take time to; by default 99 % of full training's.")
  cli.run(main, with_arguments=True)
