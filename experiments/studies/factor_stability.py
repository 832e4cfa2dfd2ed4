"""Measures how far the scores of RRD depend on the seed of the autoencoder, under each rule for active latents.

    python -m experiments.studies.factor_stability --config=configs/digits.py:features=pixels --workdir=runs/stability

RRD is arXiv 2603.04981. For each rule of `configs/sweeps/factor_rules.py`, after a fit of the config's epochs and after
one four times as long, autoencoders of three seeds score the training set. The agreement of a score is Spearman's
correlation, the mean over the pairs of seeds: 1 if the seed does not matter, 0 if it decides everything. The workdir
receives `stability.csv`, a row for each rule, and `stability.md`, the table.
"""

import csv
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np
from scipy import stats

from configs.sweeps.factor_rules import RULES
from dynsel_jax import data
from dynsel_jax.offline import factor_stage
from dynsel_jax.runs import timing
from experiments import cli, fit_factors

LENGTHS = (1, 4)  # times the config's epochs
SEEDS = 3
COLUMNS = {
  "rule": "rule",
  "epochs": "epochs of the fit",
  "representativeness": "agreement of representativeness",
  "rarity": "agreement of rarity",
  "fvu": "variance unexplained",
  "mean_l0": "active latents",
  "dead_fraction": "dead latents",
}


def measure(config: ml_collections.ConfigDict, folder: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields a row of the table for each rule and length; the last three columns are means over the seeds.

  Raises:
    UserError: a value of the config is wrong.
  """
  source, _ = fit_factors.prepare(config, folder)
  for length, (rule, fields) in itertools.product(LENGTHS, RULES.items()):
    made = config.copy_and_resolve_references()
    made.update_from_flattened_dict({**fields, "factors.epochs": length * config.factors.epochs})
    yield {"rule": rule, "epochs": made.factors.epochs, **_agreement(made, source)}


def _agreement(config: ml_collections.ConfigDict, source: data.Source) -> dict[str, float]:
  """Returns the numbers of a row."""
  scores, qualities = [], []
  for seed in range(SEEDS):
    config.factors.seed = seed
    stage = factor_stage.Stage(config, source, timing.Timers())
    scores.append({name: np.asarray(column) for name, column in stage.columns.items()})
    qualities.append(stage.quality)
  agreement = {
    name: _mean(stats.spearmanr(one[name], other[name])[0] for one, other in itertools.combinations(scores, 2))
    for name in factor_stage.COLUMNS
  }
  measured = ("fvu", "mean_l0", "dead_fraction")
  return agreement | {name: _mean(float(getattr(quality, name)) for quality in qualities) for name in measured}


def _mean(values: Iterator[float]) -> float:
  return float(np.mean(list(values)))


def study(config: ml_collections.ConfigDict, folder: pathlib.Path) -> str:
  """Writes `stability.csv`, line by line while it measures, and `stability.md`; returns the table."""
  rows = measure(config, folder)
  first = next(rows)  # an error in the config is raised before anything is written
  folder.mkdir(parents=True, exist_ok=True)
  lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
  with (folder / "stability.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    for row in itertools.chain([first], rows):
      writer.writerow(row)
      file.flush()
      lines.append("| " + " | ".join(f"{x:.3g}" if isinstance(x, float) else str(x) for x in row.values()) + " |")
  table = "\n".join(lines) + "\n"
  (folder / "stability.md").write_text(table)
  return table


def main(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Runs the study, and prints its table."""
  print(study(config, pathlib.Path(workdir)))


if __name__ == "__main__":
  cli.run_on_config(main)
