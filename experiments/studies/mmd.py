"""Measures how well subsets represent the whole set by the maximum mean discrepancy: RRD, Fig. 3 and App. B.2.

    python -m experiments.studies.mmd --config=configs/cifar10.py:features=file --workdir=runs/mmd \
        --config.features.path=clip_vit_l14.npz

RRD is arXiv 2603.04981. Three methods at six sizes: the samples with the highest representativeness in each class,
greedy k-center on the same features without class balance, and uniform draws. The discrepancy is the unbiased estimate
with an RBF kernel of gamma 1 / D on unit features, between at most 5,000 random points of the subset and as many of the
whole set. Each seed draws the points, the order of ties and the uniform subset anew; k-center is computed once. Lower
is better. The workdir receives `mmd.csv`, every measurement, and `mmd.md` with `mmd.png`, mean and standard deviation
over the seeds.
"""

import csv
import itertools
import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import Array

from dynsel_jax.coresets import greedy
from dynsel_jax.factors import mmd
from dynsel_jax.report import mmd_page
from dynsel_jax.selectors import ranking
from dynsel_jax.training import setup
from dynsel_jax.types import SampleTable
from experiments import cli, fit_factors

FRACTIONS = (0.01, 0.05, 0.1, 0.3, 0.5, 0.7)
SEEDS = 5
POINTS = 5000  # at most, of the subset and of the whole set

Subset = Callable[[Array, float], np.ndarray]  # (key, keep fraction) -> indices of the samples


def measure(config: ml_collections.ConfigDict, folder: pathlib.Path) -> Iterator[mmd_page.Row]:
  """Yields every measurement, method by method, each from the smallest to the largest subset.

  Raises:
    UserError: a value of the config is wrong.
  """
  source, stage = fit_factors.prepare(config, folder)
  print(f"{source.name}: features and factors, unless they are in the cache", flush=True)
  features = np.asarray(stage.features, np.float32)
  unit = jnp.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12))
  for method, subset in _subsets(unit, setup.table_of(source, stage.columns)).items():
    for fraction in FRACTIONS:
      print(f"{method}, {fraction:.0%} of {len(unit):,} samples, {SEEDS} seeds", flush=True)
      for seed in range(SEEDS):
        tie_key, *point_keys = jax.random.split(jax.random.key(seed), 3)
        chosen = subset(tie_key, fraction)
        sides = (
          _points(key, unit, among) for key, among in zip(point_keys, (chosen, np.arange(len(unit))), strict=True)
        )
        yield mmd_page.Row(method, fraction, seed, chosen.size, float(mmd.mmd_squared(*sides)))


def _subsets(unit: Array, table: SampleTable) -> dict[str, Subset]:
  """Returns the three methods by name, given unit features `[N, D]` and a table with representativeness."""
  num_samples = table.num_samples
  layout = ranking.class_layout(table)
  most = ranking.budget(max(FRACTIONS), num_samples)
  picked: list[np.ndarray] = []  # computed once: a smaller subset is the start of the same order of picks

  def representative(key: Array, fraction: float) -> np.ndarray:
    counts = ranking.class_budgets(fraction, layout)
    return np.flatnonzero(ranking.top_by_class(key, table.columns["representativeness"], layout, counts))

  def k_center(key: Array, fraction: float) -> np.ndarray:
    del key
    if not picked:
      first = jax.random.randint(jax.random.key(0), (), 0, num_samples)
      picked.append(np.asarray(greedy.k_center(unit, most, first)))
    return picked[0][: ranking.budget(fraction, num_samples)]

  def uniform(key: Array, fraction: float) -> np.ndarray:
    return np.flatnonzero(ranking.uniform_subset(key, num_samples, ranking.budget(fraction, num_samples)))

  return {"representativeness": representative, "k-center": k_center, "random": uniform}


def _points(key: Array, unit: Array, among: np.ndarray) -> Array:
  """Returns the features of the samples `among`, or of `POINTS` of them drawn without replacement."""
  return unit[jax.random.permutation(key, jnp.asarray(among))[:POINTS]]


def study(config: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
  """Writes `mmd.csv`, line by line while it measures, and the page about it."""
  rows = measure(config, folder)
  first = next(rows)  # an error in the config is raised before anything is written
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / "mmd.csv").open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(mmd_page.Row._fields)
    for row in itertools.chain([first], rows):
      writer.writerow(row)
      file.flush()
  mmd_page.write(folder)


def main(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Runs the study, and prints its table."""
  study(config, pathlib.Path(workdir))
  print(pathlib.Path(workdir, "mmd.md").read_text())


if __name__ == "__main__":
  cli.run_on_config(main)
