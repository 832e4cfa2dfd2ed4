"""Compares finished runs in tables, plots and one web page. Unfinished runs are named and left out.

    python -m experiments.report --workdir=runs/digits_methods [FOLDER ...] [--out=reports/digits] [--target=0.95]

`--workdir` may be repeated, and more folders may follow; each is searched for runs at any depth. An archive (.tar.xz)
made by `experiments.pack_runs` may be given in place of a folder. The report is written to `--out`, by default the
folder `report` in the first workdir; the runs are not changed.
"""

import pathlib
import sys

from absl import flags

from dynsel_jax import options
from dynsel_jax.report import archive, page, targets
from dynsel_jax.runs import finished
from experiments import cli


def main(*more: str) -> int:
  """Writes the report on the runs in `--workdir` and `more` folders, and prints which runs were left out."""
  workdirs = [options.expand_home("workdir", folder) for folder in (*flags.FLAGS.workdir, *more)]
  given, target = options.expand_home("out", flags.FLAGS.out or ""), flags.FLAGS.target
  if not given and archive.is_archive(workdirs[0]):
    raise options.UserError(f"workdir={workdirs[0]} is an archive; name a folder for the report: --out=FOLDER")
  out = given or str(pathlib.Path(workdirs[0], "report"))
  with archive.unpacked(workdirs) as folders:
    found = finished.find(folders)
    if target is not None:
      targets.check_target(target, found)
    for note in page.write(found, out, target, finished.lost(folders)):
      print(options.printable(f"note: {note}"), file=sys.stderr)
  print(options.printable(f"{len(found)} runs: {out}/report.html, report.md, tables/ and plots/"))
  return 0


if __name__ == "__main__":
  flags.DEFINE_multi_string(
    "workdir", None, "A run's folder, a folder or archive of runs; may be repeated.", required=True
  )
  flags.DEFINE_string("out", None, "The folder of the report; by default `report` in the first workdir.")
  flags.DEFINE_float(
    "target", None, "The value of the metric to reach, as stored (0.95, not 95 %); by default 99 % of full training's."
  )
  cli.run(main, with_arguments=True)
