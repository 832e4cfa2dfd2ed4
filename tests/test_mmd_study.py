"""The study of the discrepancy: its subsets are what it says, and its page shows the numbers of its file."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import data
from dynsel_jax.offline import factor_stage
from dynsel_jax.runs import timing
from dynsel_jax.training import setup
from experiments.studies import mmd
from tests.test_fit_factors import _config


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
  """Returns the folder, the config, and the rows of the csv."""
  folder = tmp_path_factory.mktemp("mmd")
  made = _config(folder)
  with jax.numpy_dtype_promotion("standard"), pytest.MonkeyPatch.context() as patched:
    patched.setattr(mmd, "FRACTIONS", (0.05, 0.3))
    patched.setattr(mmd, "SEEDS", 2)
    patched.setattr(mmd, "POINTS", 100)
    mmd.study(made, folder / "study")
  with (folder / "study" / "mmd.csv").open(newline="") as file:
    return folder / "study", made, list(csv.DictReader(file))


def test_every_cell_is_there_with_the_size_it_should_have(studied):
  _, _, rows = studied
  cells = [(row["method"], float(row["fraction"]), int(row["seed"])) for row in rows]
  methods = ("representativeness", "k-center", "random")
  assert cells == [(method, fraction, seed) for method in methods for fraction in (0.05, 0.3) for seed in (0, 1)]
  of_class = np.bincount(data.load("digits").labels)
  for row in rows:
    fraction = float(row["fraction"])
    balanced = row["method"] == "representativeness"
    assert int(row["size"]) == (np.sum((fraction * of_class + 1e-9).astype(int)) if balanced else int(fraction * 1442))


def test_the_page_has_the_means_and_the_picture(studied):
  folder, _, rows = studied
  page = (folder / "mmd.md").read_text()
  for method in ("representativeness", "k-center", "random"):
    values = [1e4 * float(row["mmd_squared"]) for row in rows if row["method"] == method and row["fraction"] == "0.3"]
    assert f"{np.mean(values):z.2f} ± {np.std(values, ddof=1):.2f} |" in page
  assert (folder / "mmd.png").stat().st_size > 5000


def test_subsets_are_the_best_of_each_class_the_farthest_and_uniform(studied):
  _, made, _ = studied
  source = data.load("digits")
  stage = factor_stage.Stage(made, source, timing.Timers())  # from the cache
  score, labels = stage.columns["representativeness"], source.labels
  unit = stage.features / np.linalg.norm(stage.features, axis=1, keepdims=True)
  subsets = mmd._subsets(jnp.asarray(unit), setup.table_of(source, stage.columns))

  best = subsets["representativeness"](jax.random.key(0), 0.1)
  for label in range(10):
    taken = np.isin(np.arange(1442), best)[labels == label]
    of_class = np.asarray(score)[labels == label]
    assert of_class[taken].min() >= of_class[~taken].max()

  picks = subsets["k-center"](jax.random.key(0), 0.02)
  distance = np.full(1442, np.inf)
  for before, pick in zip(picks, picks[1:], strict=False):
    distance = np.minimum(distance, np.linalg.norm(unit - unit[before], axis=1))
    assert distance[pick] == pytest.approx(distance.max(), abs=1e-4)
  np.testing.assert_array_equal(subsets["k-center"](jax.random.key(1), 0.01), picks[:14])

  one, other = (subsets["random"](jax.random.key(seed), 0.1) for seed in (0, 1))
  assert one.size == other.size == 144
  assert not np.array_equal(one, other)
