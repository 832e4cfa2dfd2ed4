"""Reports: the task's metric, its name, unit and direction, in new run folders and in those of earlier versions."""

import csv
import json
import math

import numpy as np
import pytest

from dynsel_jax import options
from dynsel_jax.metric import ACCURACY
from dynsel_jax.report import groups, page, plots, tables, targets
from dynsel_jax.runs import finished
from tests.support import run_folders

pytest.importorskip("jinja2", reason="the extra `report` is not installed")

ERRORS = {  # mean squared error by method and seed
  "full": {0: 0.050, 1: 0.054},
  "rrd": {0: 0.040, 1: 0.042},
  "random": {0: 0.080, 1: 0.084},
}


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
  root = tmp_path_factory.mktemp("regression")
  for method, by_seed in ERRORS.items():
    for seed, final in by_seed.items():
      run_folders.write(root / f"{method}-seed{seed}", method, seed, keep=0.3, final=final, task=run_folders.REGRESSION)
  return root


def _groups(root):
  return groups.collect(finished.find([str(root)]))[0]


def _edit(path, change):
  path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_the_page_about_a_regression_says_its_metric_and_direction_and_never_accuracy(regression, tmp_path):
  page.write(finished.find([str(regression)]), str(tmp_path))
  files = [path for path in tmp_path.rglob("*") if path.suffix in (".md", ".html", ".csv", ".svg")]
  assert len(files) > 12
  for path in files:
    assert "accuracy" not in path.read_text().lower() and "accuracy" not in path.name
  text = (tmp_path / "report.md").read_text()
  assert "| mean squared error |" in text and "smaller is better. The best mean is that of rrd." in text
  assert "### Mean squared error against seconds" in text and "# digits\n" in text
  assert "| full | 2 | 0.052 ± 0.002828 |" in text  # as stored: neither times 100 nor in percent
  assert "| -0.011 [" in text and " points" not in text
  assert "Visits by class" not in text  # a regression has no classes
  rows = list(csv.DictReader((tmp_path / "tables" / "digits_results.csv").read_text().splitlines()))
  assert {row["metric"] for row in rows} == {"mean_squared_error"}
  assert float(rows[0]["metric_mean"]) == pytest.approx(0.052)


def test_where_smaller_is_better_the_best_is_the_smallest(regression, tmp_path):
  for run in finished.find([str(regression)]):
    values = [finished.value(line) for line in run.metrics]
    assert (
      finished.best(run)
      == min(values)
      <= finished.final(run)
      == values[-1]
      == ERRORS[run.config["selector"]["name"]][run.seed]
    )
  run = finished.find([str(regression / "rrd-seed0")])[0]
  lacking = {name: number for name, number in run.summary.items() if name != "best_metric"}
  assert finished.best(run._replace(summary=lacking)) == finished.best(run)  # from the epochs


def test_where_smaller_is_better_a_target_is_reached_from_above(regression):
  members = _groups(regression)
  by_method = {group.method: group for group in members}
  assert targets.target_of(by_method["random"], members, None) == pytest.approx(0.052 / 0.99)
  reached = {row["method"]: row["reached"] for row in targets.table(members, None).rows}
  assert reached == {"full": 1, "rrd": 2, "random": 0}
  run = by_method["rrd"].runs[0]
  first = next(line for line in run.metrics if line["metric"] <= 0.06)
  assert 1 < first["epoch"] < 4
  assert targets.to_target(by_method["rrd"], run, 0.06)[0] == first["epoch"]
  alone = [group for group in members if group.method != "full"]
  assert targets.target_of(alone[0], alone, None) == pytest.approx(0.041 / 0.99)  # of the best method


def test_the_default_target_is_one_percent_worse_whatever_the_sign(tmp_path):
  loglikelihood = {"name": "log_likelihood", "unit": "nats", "larger_is_better": True}
  run_folders.write(tmp_path / "a", "full", final=-2.0, task={"name": "density", "metric": loglikelihood})
  members = _groups(tmp_path)
  assert targets.target_of(members[0], members, None) == pytest.approx(-2.0 / 0.99)
  assert targets.table(members, None).rows[0]["reached"] == 1
  assert "| log likelihood, nats |" in tables.results(members).markdown()
  assert "by seed, in nats" in tables.results(members).note


def test_fronts_and_curves_follow_the_direction(regression):
  members = _groups(regression)
  figures = {name: figure for name, _, figure in plots.all_plots(members)}
  assert "classes" not in figures
  axes = figures["visits"].axes[0]
  (front,) = [line for line in axes.get_lines() if line.get_drawstyle() == "steps-post"]
  np.testing.assert_allclose(
    front.get_ydata(), [0.041]
  )  # random costs the same, full more, and both have larger errors
  assert axes.get_ylabel() == "final test mean squared error"
  low, high = figures["curves"].axes[0].get_ylim()
  points = [finished.value(line) for group in members for run in group.runs for line in run.metrics]
  assert low < min(points) and high < max(points)  # the first epochs begin outside


def test_a_run_that_diverged_is_reported(tmp_path):
  for method, final in (("full", 0.05), ("random", math.nan)):
    run_folders.write(tmp_path / method, method, final=final, task=run_folders.REGRESSION)
  found = finished.find([str(tmp_path)])
  page.write(found, str(tmp_path / "out"))
  text = (tmp_path / "out" / "report.md").read_text()
  assert "| random | 1 | - |" in text and "The best mean is that of full." in text
  diverged = [group for group in _groups(tmp_path) if group.method == "random"] * 2
  assert dict((name, figure) for name, _, figure in plots.all_plots(diverged))["visits"].startswith(
    "no group has a finite"
  )


def test_runs_of_one_data_set_with_different_metrics_share_no_table(regression, tmp_path):
  for method in ("full", "random"):
    run_folders.write(tmp_path / "runs" / f"{method}-seed0", method, 0, task=run_folders.CLASSIFICATION)
  found = finished.find([str(regression), str(tmp_path / "runs")])
  page.write(found, str(tmp_path / "out"))
  text = (tmp_path / "out" / "report.md").read_text()
  for words in ("classification, accuracy, %, larger", "regression, mean squared error, no unit, smaller"):
    assert f"## digits: {words} is better" in text and f"### Runs: {words} is better" in text
  tables_of = {path.name: path.read_text() for path in (tmp_path / "out" / "tables").iterdir()}
  assert len(tables_of) == 13  # what was kept of each class is none of a regression
  for name, lines in tables_of.items():
    metrics = {row["metric"] for row in csv.DictReader(lines.splitlines()) if "metric" in row}
    assert len(metrics) == (1 if "results" in name or "target" in name or "runs" in name else 0), name
  members = groups.collect(found)[0]
  random = next(group for group in members if group.method == "random" and group.task == "classification")
  assert groups.reference(random, members, "full").task == "classification"
  with pytest.raises(options.UserError, match="target=0.05 needs runs with one metric"):
    targets.check_target(0.05, found)


def test_a_target_is_in_the_unit_of_the_metric(regression, tmp_path):
  run_folders.write(tmp_path / "run", task=run_folders.CLASSIFICATION)
  found = finished.find([str(tmp_path)])
  targets.check_target(0.95, found)
  with pytest.raises(options.UserError, match=r"target=95.* must lie in \(0, 1\]"):
    targets.check_target(95.0, found)
  of_regression = finished.find([str(regression)])
  targets.check_target(95.0, of_regression)
  with pytest.raises(options.UserError, match="target=nan must be finite"):
    targets.check_target(math.nan, of_regression)


def test_a_classifier_is_reported_alike_with_a_task_and_without(tmp_path):
  found = {}
  for version, task in (("old", None), ("new", run_folders.CLASSIFICATION)):
    for method, seed in (("full", 0), ("random", 0), ("random", 1)):
      run_folders.write(tmp_path / version / f"{method}-seed{seed}", method, seed, final=0.91 + 0.01 * seed, task=task)
    found[version] = finished.find([str(tmp_path / version)])
  assert {(run.task, run.metric) for run in (*found["old"], *found["new"])} == {("classification", ACCURACY)}
  for old, new in zip(found["old"], found["new"], strict=True):
    assert "metric" not in json.loads((old.path / "metrics.jsonl").read_text().splitlines()[0])
    assert (finished.final(old), finished.best(old)) == (finished.final(new), finished.best(new))
    assert finished.best(old) == max(map(finished.value, old.metrics))
  old, new = ([t.csv() for t in tables.all_tables(groups.collect(found[v])[0], 0.9)] for v in ("old", "new"))
  assert old == new and "accuracy" in old[0]


def test_runs_of_two_versions_may_lie_side_by_side(tmp_path):
  run_folders.write(tmp_path / "old-seed0", "full", weighting="", label_smoothing=0.1)
  run_folders.write(tmp_path / "new-seed0", "full", task=run_folders.CLASSIFICATION, loss_normalization="")

  def nested(made):
    made["config"]["task"] = {"name": "classification", "label_smoothing": 0.1}
    return made

  _edit(tmp_path / "new-seed0" / "config.json", nested)
  notes = page.write(finished.find([str(tmp_path)]), str(tmp_path / "out")).notes
  assert not notes
  assert len(_groups(tmp_path)) == 2 and (tmp_path / "out" / "tables" / "digits_results.csv").exists()


@pytest.mark.parametrize(
  "task",
  [
    {"name": "regression"},
    {"name": "regression", "metric": {"name": "error", "unit": ""}},
    {"name": "regression", "metric": {"name": "error", "unit": "", "larger_is_better": "no"}},
    "regression",
  ],
)
def test_a_config_with_a_task_that_cannot_be_read_is_left_out(task, tmp_path):
  run_folders.write(tmp_path / "good")
  run_folders.write(tmp_path / "bad")
  _edit(tmp_path / "bad" / "config.json", lambda made: made | {"task": task})
  assert [run.path.name for run in finished.find([str(tmp_path)])] == ["good"]
  assert finished.lost([str(tmp_path)]) == ["bad: config.json is damaged, or was not written by dynsel_jax"]


def test_a_summary_without_the_metric_is_that_of_an_unfinished_run(tmp_path):
  run_folders.write(tmp_path / "run", task=run_folders.REGRESSION)
  (tmp_path / "run" / "summary.json").write_text('{"epochs": 4}')
  (run,) = finished.find([str(tmp_path)])
  assert run.summary is None
  assert run.missing[0] == "summary.json: no final_metric and no final_test_mean_squared_error"
  with pytest.raises(ValueError, match="is not finished"):
    finished.final(run)
