"""The study of the scores' stability: a row for each rule and length, and numbers that a fit of its own has too."""

import csv

import jax
import numpy as np
import pytest
from scipy import stats

from configs.sweeps import base, factor_rules
from dynsel_jax import data
from dynsel_jax.offline import factor_stage
from dynsel_jax.runs import timing
from experiments.studies import factor_stability
from tests.test_fit_factors import _config


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
  """Returns the config and the rows of the csv, of two rules, one length and two seeds."""
  folder = tmp_path_factory.mktemp("stability")
  made = _config(folder)
  with jax.numpy_dtype_promotion("standard"), pytest.MonkeyPatch.context() as patched:
    patched.setattr(factor_stability, "RULES", {name: factor_rules.RULES[name] for name in ("literal", "nonzero")})
    patched.setattr(factor_stability, "LENGTHS", (1,))
    patched.setattr(factor_stability, "SEEDS", 2)
    factor_stability.study(made, folder / "study")
    table = (folder / "study" / "stability.md").read_text()
  with (folder / "study" / "stability.csv").open(newline="") as file:
    return made, list(csv.DictReader(file)), table


def test_agreement_is_the_rank_correlation_of_two_fits(studied):
  made, rows, table = studied
  assert [row["rule"] for row in rows] == ["literal", "nonzero"] and table.count("\n") == 4
  made.factors.active = "nonzero"
  scores = []
  for made.factors.seed in (0, 1):
    stage = factor_stage.Stage(made, data.load("digits"), timing.Timers())  # from the cache
    scores.append(np.asarray(stage.columns["rarity"]))
  assert float(rows[1]["rarity"]) == pytest.approx(stats.spearmanr(*scores)[0])
  assert float(rows[0]["mean_l0"]) < float(rows[1]["mean_l0"]) == made.factors.k
  assert rows[0]["fvu"] == rows[1]["fvu"]  # the signs do not matter to what is explained


def test_the_sweep_has_each_rule_at_each_length():
  cells = base.cells(factor_rules.get_sweep("lengths=5+20,seeds=1"))
  named = {cell.row: cell.fields for cell in cells}
  assert len(named) == 2 + 2 * len(factor_rules.RULES)
  assert named["value_fit20"]["factors.topk"] == "value" and named["value_fit20"]["factors.epochs"] == 20
  assert {"literal", "nonzero"} <= {cell.row for cell in base.cells(factor_rules.get_sweep())}
