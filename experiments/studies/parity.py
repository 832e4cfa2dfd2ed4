"""Compares plain training here with the same recipe in PyTorch, over initialisations and weight decay.

    python -m experiments.studies.parity --config=configs/cifar10.py:size=cpu,selector=full --workdir=runs/parity \
        --config.epochs=8

The networks are the residual ones of `dynsel_jax.models`, trained by SGD on the full data. Each starts as torchvision's
do or with PyTorch's default (`model.init`), and decays its matrices alone or every parameter (`optimizer.decay_all`).
DeepCore's code (800ef76) and InfoBatch's example (1bb917e) set neither: PyTorch's default, and decay on everything.
PyTorch is the extra `benchmark`. The workdir receives `parity.csv`, a row for each run, so that the command goes on
where it was stopped, and `parity.md`: means and standard deviations over seeds, and 95 % intervals of the difference.
"""

import csv
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from scipy import stats

from dynsel_jax import data, offline, options
from dynsel_jax.models.resnet import INITS, ResNet
from dynsel_jax.training import setup
from experiments import cli
from experiments.studies import torch_twin

SEEDS = 5
RECIPES = tuple(itertools.product(INITS, (False, True)))  # of `model.init` and `optimizer.decay_all`
SIDES = ("dynsel_jax", "PyTorch")
FIELDS = ("seed", "init", "decay_all", "side", "accuracy")

Cell = tuple[str, str, str, str]  # the first four fields


def study(config: ml_collections.ConfigDict, folder: pathlib.Path) -> str:
  """Makes the runs that `parity.csv` does not have yet, and returns the table.

  Raises:
    UserError: the config is not of a residual network, SGD and image classification on the full data.
  """
  _check(config)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / "parity.csv"
  if not path.exists():
    path.write_text(",".join(FIELDS) + "\n")
  with path.open(newline="") as file:
    done = {tuple(row[name] for name in FIELDS[:4]): float(row["accuracy"]) for row in csv.DictReader(file)}
  source = data.prepare(config.dataset.to_dict(), config.cache_dir)
  for seed, (init, decay_all), side in itertools.product(range(SEEDS), RECIPES, SIDES):
    cell = (str(seed), init, str(decay_all), side)
    if cell in done:
      continue
    made = config.copy_and_resolve_references()
    made.update_from_flattened_dict({"seed": seed, "model.init": init, "optimizer.decay_all": decay_all})
    done[cell] = _accuracy(made, source, side, folder / "-".join(cell[1:3] + (f"seed{seed}",)))
    with path.open("a", newline="") as file:
      csv.writer(file).writerow([*cell, done[cell]])
  text = table(done)
  (folder / "parity.md").write_text(text)
  return text


def _check(config: ml_collections.ConfigDict) -> None:
  """Raises `UserError` for what has no twin."""
  wanted = {"selector": "full", "optimizer": "sgd", "task": "classification"}
  for section, name in wanted.items():
    if config[section].name != name:
      raise options.UserError(f"{section}.name={config[section].name}: the study compares {section}={name}")
  if "init" not in config.model or "resnet" not in config.model.name:
    raise options.UserError(f"model.name={config.model.name}: the study compares residual networks, model=resnet18")
  options.optional_library("torch", "benchmark")


def _accuracy(config: ml_collections.ConfigDict, source: data.Source, side: str, workdir: pathlib.Path) -> float:
  """Returns the test accuracy of one run, in [0, 1]."""
  if side == "PyTorch":
    parts = setup.parts(config, source)
    assert isinstance(parts.module, ResNet)
    return torch_twin.accuracy(parts)
  return float(offline.train_and_evaluate(config, str(workdir)).summary["final_metric"])


def table(accuracies: Mapping[Any, float]) -> str:
  """Returns the table of accuracies in percent, a row for each recipe, in Markdown.

  Args:
    accuracies: in [0, 1], by seed, init, decay_all and side, all as strings.
  """
  lines = ["| first weights | decay on | " + " | ".join(SIDES) + " | PyTorch less ours |", "|---|---|---:|---:|---:|"]
  for init, decay_all in RECIPES:
    ours, theirs = (
      [100 * value for (_, *cell), value in accuracies.items() if tuple(cell) == (init, str(decay_all), side)]
      for side in SIDES
    )
    decayed = "everything" if decay_all else "matrices"
    lines.append(f"| `{init}` | {decayed} | {_mean(ours)} | {_mean(theirs)} | {_difference(theirs, ours)} |")
  return "\n".join(lines) + "\n"


def _mean(values: Sequence[float]) -> str:
  return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else f"{np.mean(values):.2f}"


def _difference(one: Sequence[float], other: Sequence[float]) -> str:
  """Returns the difference of two means with its 95 % interval by Welch's test; the seeds pair nothing."""
  difference = f"{np.mean(one) - np.mean(other):+.2f}"
  if min(len(one), len(other)) < 2:
    return difference
  low, high = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
  return f"{difference} [{low:+.2f}, {high:+.2f}]"


def main(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Runs the study, and prints its table."""
  print(study(config, pathlib.Path(workdir)))


if __name__ == "__main__":
  cli.run_on_config(main)
