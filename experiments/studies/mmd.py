"""How well subsets stand for the whole, by the maximum mean discrepancy: RRD's Fig. 3 (arXiv 2603.04981, App. B.2).

    python -m experiments.studies.mmd --config=configs/cifar10.py:features=file --workdir=runs/mmd \
        --config.features.path=clip_vit_l14.npz

Three subsets at six sizes: in each class the samples of highest representativeness, greedy k-center on the same
features without balance, and uniform draws. The discrepancy is the unbiased one, with an RBF kernel of gamma 1 / D on
unit features, between at most 5,000 random points of the subset and as many of all; each seed draws the points, the
order of ties, and the uniform subset anew, while k-center is picked once. Lower is better. The workdir gets `mmd.csv`,
every measurement, and `mmd.md` with `mmd.png`, mean and deviation over the seeds.
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
from experiments import cli, fit_factors

FRACTIONS = (0.01, 0.05, 0.1, 0.3, 0.5, 0.7)
SEEDS = 5
POINTS = 5000  # at most, on each side

Subset = Callable[[Array, float], np.ndarray]  # from a key and a share kept to indices


def measure(config: ml_collections.ConfigDict, folder: pathlib.Path) -> Iterator[mmd_page.Row]:
  """Yields every measurement, one method after another, and for each the sizes from small to large.

  Raises:
    UserError: a value of the config is wrong.
  """
  source, stage = fit_factors.prepare(config, folder)
  features = np.asarray(stage.features, np.float32)
  unit = jnp.asarray(features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12))
  labels = jnp.asarray(source.labels)
  for method, subset in _subsets(unit, labels, source.num_classes, stage.columns["representativeness"]).items():
    for fraction in FRACTIONS:
      for seed in range(SEEDS):
        tie_key, *point_keys = jax.random.split(jax.random.key(seed), 3)
        chosen = subset(tie_key, fraction)
        sides = (
          _points(key, unit, among) for key, among in zip(point_keys, (chosen, np.arange(len(unit))), strict=True)
        )
        yield mmd_page.Row(method, fraction, seed, chosen.size, float(mmd.mmd_squared(*sides)))


def _subsets(unit: Array, labels: Array, num_classes: int, representativeness: Array) -> dict[str, Subset]:
  num_samples = len(unit)
  layout = ranking.class_layout(labels, num_classes)
  most = ranking.budget(max(FRACTIONS), num_samples)
  picked: list[np.ndarray] = []  # once for all sizes: the first of an order of picks are those of a smaller one

  def representative(key: Array, fraction: float) -> np.ndarray:
    counts = ranking.class_budgets(fraction, layout)
    return np.flatnonzero(ranking.top_by_class(key, representativeness, layout, counts))

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
  """Returns the features of at most `POINTS` of the samples `among`, drawn without replacement."""
  return unit[jax.random.permutation(key, jnp.asarray(among))[:POINTS]]


def study(config: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
  """Writes `mmd.csv`, a line as soon as it is measured, then the page on it."""
  rows = measure(config, folder)
  first = next(rows)  # what can be wrong is found before anything is written
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / "mmd.csv").open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(mmd_page.Row._fields)
    for row in itertools.chain([first], rows):
      writer.writerow(row)
      file.flush()
  mmd_page.write(folder)


def main(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Runs, and prints the table."""
  study(config, pathlib.Path(workdir))
  print(pathlib.Path(workdir, "mmd.md").read_text())


if __name__ == "__main__":
  cli.run_on_config(main)
