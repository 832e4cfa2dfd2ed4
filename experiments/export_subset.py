"""Writes the most used samples of a run as a fixed subset: a small data set to keep.

    python -m experiments.export_subset --workdir=runs/digits --fraction=0.3 --out=subset

The folder `--out` receives `subset.csv`, the samples with their visits, and their labels if the data are on this
machine; and `scores.npz`, a score file by which any run on the same data trains on the subset:

    python -m experiments.train --config=configs/digits.py:selector=top --config.selector.column=usage \
        --config.selector.keep_fraction=0.3 --config.scores.path=subset/scores.npz --workdir=runs/subset

Of samples with the same number of visits, which to take is drawn. A method that chooses by the loss uses hard samples
most, and wrong labels among them: see `experiments.report`, which lists these.
"""

import pathlib

import numpy as np
from absl import flags

from dynsel_jax import options
from dynsel_jax.offline import score_file
from dynsel_jax.runs import finished
from dynsel_jax.runs.workdir import check_writable
from dynsel_jax.selectors import ranking
from experiments import cli, report

__all__ = ["export", "ranks"]


def ranks(visits: np.ndarray) -> np.ndarray:
  """Returns each sample's rank by its visits, `[N]` float32: N for the most used, 1 for the least; ties are drawn."""
  drawn = np.random.default_rng(0).permutation(len(visits))
  order = np.lexsort((drawn, visits))
  found = np.empty(len(visits), np.float32)
  found[order] = np.arange(1, len(visits) + 1)
  return found


def export(workdir: str, fraction: float, out: str) -> int:
  """Writes the subset of the run in `workdir`; returns its number of samples.

  Raises:
    UserError: there is no run with a readable usage.npz, the fraction is wrong, or `out` cannot be written.
  """
  options.check_fraction("fraction", fraction)
  check_writable(out)
  run = finished.read(pathlib.Path(workdir))
  if run is None:
    raise options.UserError(f"workdir={workdir} is not the folder of a run: it has no config.json of dynsel_jax")
  if run.visits is None:
    raise options.UserError(f"workdir={workdir} has no readable usage.npz, which a run writes at its end")
  if run.visits.min() == run.visits.max():
    name = run.config["selector"]["name"]
    raise options.UserError(
      f"workdir={workdir}: selector={name} used every sample equally often; name a run that selected"
    )
  found = ranks(run.visits)
  size = ranking.budget(fraction, len(found), least=0)
  if not size:
    raise options.UserError(f"fraction={fraction} of {len(found)} samples is none; name a larger one")
  chosen = np.sort(np.argsort(-found, kind="stable")[:size])
  samples = report.samples_of(run)
  labels = samples.labels
  lines = [f"{index},{run.visits[index]}{'' if labels is None else f',{labels[index]}'}" for index in chosen.tolist()]
  folder = pathlib.Path(out)
  folder.mkdir(parents=True, exist_ok=True)
  head = "index,visits" + ("" if labels is None else ",label")
  (folder / "subset.csv").write_text("\n".join([head, *lines, ""]))
  made_from = {"usage_of": run.config}
  score_file.write(folder / "scores.npz", {"usage": found}, run.made["data_fingerprint"], made_from)
  return size


def main() -> int:
  """Writes the subset, and prints what was written."""
  given = flags.FLAGS
  workdir, out = (options.expand_home(name, getattr(given, name)) for name in ("workdir", "out"))
  size = export(workdir, given.fraction, out)
  print(options.printable(f"{size:,} samples: {out}/subset.csv and {out}/scores.npz"))
  return 0


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "The folder of a finished run.", required=True)
  flags.DEFINE_float("fraction", None, "The fraction of the training set to keep.", required=True)
  flags.DEFINE_string("out", None, "The folder to write.", required=True)
  cli.run(main)
