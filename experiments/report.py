"""Compares finished runs on one web page: what each method saved and lost, and how sure that is.

    python -m experiments.report --workdir=runs/digits_methods [FOLDER ...] [--out=reports/digits] [--target=0.95]
    python -m experiments.report --workdir=runs/digits_methods --watch

`--workdir` may be repeated, and more folders may follow; each is searched for runs at any depth. An archive (.tar.xz)
made by `experiments.pack_runs` may be given in place of a folder. The report is written to `--out`, by default the
folder `report` in the first workdir; the runs are not changed. With `--watch` the page is written again whenever a run
has gone on, until Ctrl-C; a browser that shows it reads it anew by itself.

Beside the page lie `samples/`, lists of the samples that were hardly used, always hard or likely mislabelled, with
labels and images where the data are on this machine; not for archives and not while watching.
"""

import contextlib
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from absl import flags

from dynsel_jax import data, options
from dynsel_jax.report import page, targets
from dynsel_jax.report.feedback import Samples
from dynsel_jax.runs import archive, finished
from experiments import cli

_SECONDS = 5  # between two looks at the folders


def samples_of(run: finished.Run) -> Samples:
  """Returns the training set of a run, as far as it is on this machine and is still the same."""
  section = dict(run.config["dataset"])
  known = Samples(class_names=run.made.get("class_names") or ())
  if section.get("stream"):
    return known
  try:
    source = data.prepare(section, run.config.get("cache_dir", ""))
  except Exception:  # of an earlier version, another machine, or with files that are gone: the lists have indices then
    return known
  if source.fingerprint != run.made.get("data_fingerprint"):
    return known
  inputs, labels = source.train["inputs"], source.labels
  images = inputs if inputs.ndim == 4 and inputs.dtype == np.uint8 else None
  return Samples(None if labels is None else np.asarray(labels), list(source.class_names), images)


def write(
  folders: Sequence[str], out: str, target: float | None, *, lists: bool = True, refresh: int = 0
) -> tuple[int, page.Written]:
  """Writes the report on the runs in `folders`, with `lists` of samples; returns their number and what it says first.

  Raises:
    UserError: there is no run, or the target is none that the metric can have.
  """
  found = finished.find(folders)
  if target is not None:
    targets.check_target(target, found)
  samples = samples_of if lists else None
  return len(found), page.write(found, out, target, finished.lost(folders), samples=samples, refresh=refresh)


def _state(folders: Iterable[str]) -> dict[str, float]:
  """Returns the times of the files that a report reads."""
  read = {"config.json", "metrics.jsonl", "summary.json", "error.txt"}
  places = (place for folder in folders for place in finished.walk(folder))
  paths = (path / name for path, names in places for name in read.intersection(names))
  found = {}
  for path in paths:
    with contextlib.suppress(OSError):  # it is being replaced
      found[str(path)] = path.stat().st_mtime
  return found


def watch(folders: Sequence[str], out: str, target: float | None, wait: Callable[[float], object] = time.sleep) -> None:
  """Writes the report again whenever a run has gone on, until `wait` raises KeyboardInterrupt."""
  seen: dict[str, float] | None = None
  print(options.printable(f"watching; {out}/report.html is written again as runs go on; Ctrl-C ends it"), flush=True)
  while True:
    state = _state(folders)
    if state != seen and any(path.endswith("config.json") for path in state):
      seen = state
      with contextlib.suppress(options.UserError):  # no config.json is whole yet
        count, _ = write(folders, out, target, lists=False, refresh=_SECONDS)
        print(f"{time.strftime('%H:%M:%S')} {count} runs", flush=True)
    wait(_SECONDS)


def main(*more: str) -> int:
  """Writes the report on the runs in `--workdir` and `more` folders, and prints the verdict on each method."""
  workdirs = [options.expand_home("workdir", folder) for folder in (*flags.FLAGS.workdir, *more)]
  given, target = options.expand_home("out", flags.FLAGS.out or ""), flags.FLAGS.target
  if not given and archive.is_archive(workdirs[0]):
    raise options.UserError(f"workdir={workdirs[0]} is an archive; name a folder for the report: --out=FOLDER")
  out = given or str(pathlib.Path(workdirs[0], "report"))
  if flags.FLAGS.watch:
    if archives := [workdir for workdir in workdirs if archive.is_archive(workdir)]:
      raise options.UserError(f"workdir={archives[0]} is an archive, which does not change; leave out --watch")
    try:
      watch(workdirs, out, target)
    except KeyboardInterrupt:
      print()  # the page is written once more below, and no longer reads itself anew
  with archive.unpacked(workdirs) as folders:
    count, written = write(folders, out, target, lists=folders == workdirs)
  for note in written.notes:
    print(options.printable(f"note: {note}"), file=sys.stderr)
  for label, text in written.verdicts:
    print(options.printable(f"{label}: {text}"))
  print(options.printable(f"{count} runs: {out}/report.html, and the files beside it"))
  return 0


if __name__ == "__main__":
  flags.DEFINE_multi_string(
    "workdir", None, "A run's folder, a folder or archive of runs; may be repeated.", required=True
  )
  flags.DEFINE_string("out", None, "The folder of the report; by default `report` in the first workdir.")
  flags.DEFINE_float(
    "target", None, "The value of the metric to reach, as stored (0.95, not 95 %); by default 99 % of full training's."
  )
  flags.DEFINE_bool("watch", False, "Write the page again whenever a run has gone on, until Ctrl-C.")
  cli.run(main, with_arguments=True)
