"""The pilot that advises how to train at a fraction of the compute: its plan, its verdict, and one small pilot."""

import json
import math

import pytest

from dynsel_jax import options
from dynsel_jax.metric import ACCURACY, Metric
from dynsel_jax.report.frontier import Outcome
from dynsel_jax.runs import finished
from experiments import advise, sweep
from experiments.advice import plan, verdict
from experiments.sweeps import run_cell
from tests.support import run_folders

LOSS = Metric("loss", "", larger_is_better=False)


def _given(**changes):
  return plan.Given(**{"config": "configs/digits.py", "fields": {}, "epochs": 200, "budget": 0.4} | changes)


@pytest.mark.parametrize(
  ("epochs", "budget", "found"),
  [
    (200, 0.4, [(25, 2), (50, 4)]),
    (30, 0.4, [(8, 2), (16, 4)]),
    (12, 0.4, [(8, 2), (12, 4)]),
    (8, 0.4, [(8, 4)]),
    (15, 0.2, [(15, 4)]),
  ],
)
def test_rungs_grow_and_leave_the_budget_three_epochs(epochs, budget, found):
  rungs = plan.rungs(_given(epochs=epochs, budget=budget))
  assert rungs == found
  assert all(budget * rung.epochs >= 3 and rung.epochs <= epochs for rung in rungs)


def test_training_too_short_for_a_pilot_and_a_budget_out_of_range_are_refused():
  with pytest.raises(
    options.UserError, match="epochs=7 is too short for a pilot at budget=0.4, which needs at least 8"
  ):
    plan.rungs(_given(epochs=7))
  with pytest.raises(options.UserError, match="budget=1"):
    plan.rungs(_given(budget=1.0))


def test_a_method_keeps_the_budget_or_runs_for_fewer_epochs_until_its_cost_is_known():
  cell = plan.cell(_given(fields={"learning_rate": 0.2}), "rs2", 25, 1)
  config = sweep.config_of(cell)
  assert (config.selector.name, config.selector.keep_fraction, config.epochs) == ("rs2", 0.4, 25)
  assert (config.learning_rate, config.seed) == (0.2, 1)
  assert plan.epochs_of(50, 0.4, plan.first_fraction("rs2", 0.4)) == 50
  assert plan.epochs_of(50, 0.4, plan.first_fraction("infobatch", 0.4)) == 20
  assert plan.epochs_of(50, 0.4, 0.5) == 40
  assert plan.plain_epochs(plan.Rung(25, 2), 0.4) == [5, 10, 15]


def test_the_better_half_survives():
  assert plan.survivors(["a", "b", "c"]) == ["a", "b"]
  assert plan.survivors(["a"]) == ["a"]


def _round(offsets, metric=ACCURACY, noise=0.001):
  """A rung on a line in log2 of the cost; each method lies `offset` better than it at cost 3."""
  sign = 1 if metric.larger_is_better else -1

  def runs(cost, offset, noise=noise):
    value = 0.6 + sign * (0.05 * math.log2(cost) + offset)
    return [Outcome(seed, cost, value + noise * (-1) ** seed) for seed in range(4)]

  plain = {epochs: runs(float(epochs), 0.0, 0.0) for epochs in (2, 4, 8)}
  return verdict.Round(20, plain, {name: runs(3.0, offset) for name, offset in offsets.items()})


@pytest.mark.parametrize("metric", [ACCURACY, LOSS])
def test_a_method_planted_above_is_recommended(metric):
  made = _round({"rs2": 0.0, "es": 0.05, "rrd": -0.05}, metric)
  assert [name for name, _ in verdict.ranked(made, metric)] == ["es", "rs2", "rrd"]
  advice = verdict.advise(made, 16.0, metric)
  sign = 1 if metric.larger_is_better else -1
  assert advice.method == "es" and advice.compared == 3
  assert advice.expected == pytest.approx(0.6 + sign * (0.05 * 4 + 0.05), abs=0.01)


@pytest.mark.parametrize(("offset", "words"), [(0.0, "No method is distinguishable"), (-0.05, "is behind it")])
def test_without_a_method_above_the_advice_is_fewer_epochs(offset, words):
  made = _round({"rs2": offset, "es": offset - 0.2})
  advice = verdict.advise(made, 8.0, ACCURACY)
  assert advice.method == "full" and advice.best == "rs2"
  text = _text(advice, [made])
  assert "**Train for fewer epochs on everything: 12 epochs, 40 % of the compute of full training.**" in text
  assert words in text and "paid for itself after 4 runs" in text and "- rrd: no labels" in text


def _text(advice, rounds):
  return verdict.text(
    advice,
    rounds,
    ACCURACY,
    budget=0.4,
    epochs=12,
    pilot=2.4,
    judged="test",
    left_out={"rrd": "no labels"},
    command="python",
  )


def test_the_text_says_how_sure_a_recommended_method_is():
  made = _round({"es": 0.05})
  text = _text(verdict.advise(made, 8.0, ACCURACY), [made])
  assert "**Train with `es`: 12 epochs" in text
  assert "everything: +5." in text and "against plain training at the same compute" in text and "95 %" in text


def test_a_distance_that_is_the_same_with_every_seed_is_told_without_an_interval():
  made = _round({"rs2": 0.0})
  equal = [one._replace(metric=one.metric + 0.01) for one in made.plain[8]]
  text = _text(verdict.advise(made._replace(methods={"rs2": equal}), 8.0, ACCURACY), [made])
  assert "rs2 differs from it by +1.00 points" in text and "nan" not in text.partition("Expect")[0]


def test_a_cost_outside_the_plain_runs_comes_last_and_is_not_judged():
  made = _round({"rs2": -0.3})
  outside = made._replace(methods={"es": [one._replace(cost=100.0) for one in made.methods["rs2"]], **made.methods})
  assert [name for name, _ in verdict.ranked(outside, ACCURACY)] == ["rs2", "es"]
  alone = made._replace(methods={"es": outside.methods["es"]})
  assert "No method ran at a compute" in _text(verdict.advise(alone, 8.0, ACCURACY), [alone])


def test_the_line_to_full_length_never_falls_and_stays_a_percentage():
  falling = verdict.Round(8, {2: [Outcome(0, 2.0, 0.9)], 4: [Outcome(0, 4.0, 0.8)]}, {})
  assert verdict.expected(falling, 100.0, ACCURACY) == pytest.approx(0.8)
  steep = verdict.Round(8, {2: [Outcome(0, 2.0, 0.5)], 4: [Outcome(0, 4.0, 0.9)]}, {})
  assert verdict.expected(steep, 100.0, ACCURACY) == 1.0


@pytest.fixture
def pretended(monkeypatch):
  """Runs that leave folders at once: rs2 is better than plain training, kakurenbo fails; yields their names."""
  made = []

  def attempt(task, **hooks):
    made.append(task.name)
    method, epochs = task.config.selector.name, task.config.epochs
    if method == "kakurenbo":
      return run_cell.Outcome("failed", "selector=kakurenbo needs 'correct'")
    keep = task.config.selector.get("keep_fraction", 1.0)
    cost = epochs * (1.0 if method == "full" else keep)
    final = (
      0.5
      + 0.05 * math.log2(cost)
      + 0.001 * task.config.seed
      + (0.04 + 0.001 * (task.config.seed % 2) if method == "rs2" else -0.02)
    )
    run_folders.write(task.folder, method, task.config.seed, keep=keep, epochs=epochs, final=final)
    return run_cell.Outcome("done", "", seconds=0.1)

  monkeypatch.setattr(run_cell, "attempt", attempt)
  monkeypatch.setattr(run_cell, "finished_summary", lambda task: run_cell.finished_run(task.folder))
  return made


def test_a_pilot_halves_the_methods_and_writes_a_config_that_trains_the_best(tmp_path, pretended):
  text = advise.advise(_given(epochs=30), str(tmp_path))
  second = {name.split("_epochs")[0] for name in pretended if name.endswith("seed3")}
  assert "rs2" in second and len(second) == 4  # of five methods that ran three are left, and plain training
  advice = json.loads((tmp_path / "advice.json").read_text())
  assert advice["method"] == "rs2" and list(advice["left_out"]) == ["kakurenbo"]
  costs = [(run.summary["forward_visits"] + 2 * run.summary["backward_visits"]) / 3 for run in _runs(tmp_path)]
  assert advice["pilot_full_trainings"] == pytest.approx(sum(costs) / (200 * 30))
  assert "selector=kakurenbo needs 'correct'" in text and "on the test set" in text
  config = sweep._module(str(tmp_path / "recommended.py")).get_config()
  assert (config.selector.name, config.selector.keep_fraction, config.epochs) == ("rs2", 0.4, 30)
  assert config.dataset.augmentations == ()  # not a list


def _runs(folder):
  return [run for run in finished.find([str(folder)]) if run.summary is not None]


def test_a_pilot_that_was_stopped_goes_on(tmp_path, pretended, monkeypatch):
  whole, count = advise.advise(_given(epochs=30), str(tmp_path / "whole")), len(pretended)
  attempt = run_cell.attempt

  def stopping(task, **hooks):
    if len(pretended) == count + 10:
      return run_cell.Outcome("stopped", "stopped by SIGTERM")
    return attempt(task, **hooks)

  monkeypatch.setattr(run_cell, "attempt", stopping)
  with pytest.raises(advise.Interrupted, match="stopped by SIGTERM"):
    advise.advise(_given(epochs=30), str(tmp_path / "parts"))
  monkeypatch.setattr(run_cell, "attempt", attempt)
  text = advise.advise(_given(epochs=30), str(tmp_path / "parts"))
  failed = [name for name in pretended if name.startswith("kakurenbo")]
  assert len(pretended) == 2 * count + len(failed) - 2  # only what had failed is tried again
  assert text.replace("parts", "whole") == whole


def test_a_plain_run_that_fails_ends_the_pilot(tmp_path, monkeypatch):
  monkeypatch.setattr(run_cell, "attempt", lambda task, **hooks: run_cell.Outcome("failed", "batch_size=0"))
  with pytest.raises(options.UserError, match="batch_size=0"):
    advise.advise(_given(epochs=30), str(tmp_path))
