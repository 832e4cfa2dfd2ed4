"""The report's verdicts, its lists of samples, its live page, and the subset that is exported."""

import csv
import json
import os

import numpy as np
import pytest

from dynsel_jax import options
from dynsel_jax.offline import score_file
from dynsel_jax.report import columns, epoch_plots, feedback, groups, notes, page, tables, verdict
from dynsel_jax.report.feedback import Samples
from dynsel_jax.runs import finished
from experiments import export_subset, report
from tests.support import run_folders

PLANTED = {  # accuracy by method and seed
  "full": (0.950, 0.956, 0.950),
  "same": (0.951, 0.955, 0.951),
  "worse": (0.921, 0.925, 0.920),
  "better": (0.970, 0.977, 0.970),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp("runs")
  for method, finals in PLANTED.items():
    for seed, final in enumerate(finals):
      run_folders.write(root / f"{method}-seed{seed}", method, seed, keep=0.25, final=final)
  return root


def _groups(root):
  return groups.collect(finished.find([str(root)]))[0]


def test_a_verdict_says_what_was_lost_and_saved_and_how_sure_that_is(folder):
  said = dict(verdict.verdicts(_groups(folder)))
  assert said["full"].startswith("test accuracy 95.20 ± 0.35 %; the reference") and said["full"].endswith("3 seeds.")
  for method, word in (("same", "not distinguishable from"), ("worse", "worse than"), ("better", "better than")):
    assert f"], {word} full training, with 75 % fewer backward passes and" in said[method]
  row = {row["method"]: row for row in tables.results(_groups(folder)).rows}["worse"]
  interval = " ".join(f"{100 * row[f'less_full_{end}']:+.2f}" for end in ("low", "high")).replace(" ", ", ")
  assert said["worse"].startswith(f"{100 * row['less_full_mean']:+.2f} points [{interval}]")
  assert row["saved_backward"] == pytest.approx(0.75)
  assert row["seconds_speed_up"] == pytest.approx(1 / (1 - row["seconds_saved"]))
  assert f"{100 * row['seconds_saved']:.0f} % less time" in said["worse"]


def test_no_time_is_named_where_seconds_do_not_compare(folder):
  assert not any("time" in text for _, text in verdict.verdicts(_groups(folder), seconds=False))


def test_one_seed_gives_no_interval_and_no_full_training_no_difference(tmp_path):
  for method in ("full", "random"):
    run_folders.write(tmp_path / "both" / method, method, 0)
  run_folders.write(tmp_path / "alone" / "random", "random", 0)
  both, alone = (dict(verdict.verdicts(_groups(tmp_path / name)))["random"] for name in ("both", "alone"))
  assert "of one seed and so without an interval" in both and both.endswith("; 1 seed.")
  assert "no full training of this recipe to compare with" in alone


def test_equal_differences_are_no_certainty_and_two_seeds_say_little(tmp_path):
  for method, finals in (("full", (0.950, 0.956)), ("random", (0.947, 0.953)), ("twin", (0.950, 0.956))):
    for seed, final in enumerate(finals):
      run_folders.write(tmp_path / f"{method}{seed}", method, seed, final=final)
  said = dict(verdict.verdicts(_groups(tmp_path)))
  assert said["random"].startswith("-0.30 points against full training, the same with every seed and so without an")
  assert said["twin"].startswith("+0.00 points [+0.00, +0.00], not distinguishable")
  assert "12.7 standard errors" in " ".join(notes.all_notes([], _groups(tmp_path), [], []))


@pytest.mark.parametrize(
  ("seconds", "said"),
  [
    ((40.0, 41.0, 42.0), "4.1 times the time;"),
    ((996.0, 997.0, 998.0), "100 times the time;"),
    ((5.0, 5.1, 5.2), "49 % less time;"),
    ((2.0, 30.0, 5.0), "23 % more time (perhaps by chance);"),
  ],
)
def test_the_time_saved_is_a_number_for_people_and_chance_is_named(folder, seconds, said):
  members = {group.method: group for group in _groups(folder)}

  def spending(group, values):
    runs = tuple(
      run._replace(summary={**run.summary, "seconds": {"training": value, "total": value}})
      for run, value in zip(group.runs, values, strict=True)
    )
    return group._replace(runs=runs, offline={run.seed: {} for run in runs})

  made = [spending(members["full"], (9.9, 10.0, 10.1)), spending(members["worse"], seconds)]
  assert said in dict(verdict.verdicts(made))["worse"]


def test_where_smaller_is_better_a_larger_loss_is_worse(tmp_path):
  for method, finals in (("full", (0.050, 0.051)), ("random", (0.080, 0.0812))):
    for seed, final in enumerate(finals):
      run_folders.write(tmp_path / f"{method}{seed}", method, seed, final=final, task=run_folders.REGRESSION)
  assert "worse than full training" in dict(verdict.verdicts(_groups(tmp_path)))["random"]


def test_the_frontier_of_shorter_plain_runs_is_part_of_the_verdict_and_the_table(tmp_path):
  for epochs, base in ((2, 0.90), (4, 0.95)):
    for seed in (0, 1, 2):
      final = base + 0.001 * (seed if epochs == 2 else 2 - seed)
      run_folders.write(tmp_path / f"full{epochs}-seed{seed}", "full", seed, epochs=epochs, final=final)
  for seed in (0, 1, 2):
    run_folders.write(tmp_path / f"rs2-seed{seed}", "rs2", seed, keep=0.75, final=0.90 + 0.0011 * seed)
  members = _groups(tmp_path)
  said = {label: text for label, text in verdict.verdicts(members) if label.startswith("rs2")}
  assert all("below the frontier of shorter plain runs at its own compute (-" in text for text in said.values())
  shorter = {label: text for label, text in verdict.verdicts(members) if label.startswith("full")}
  assert shorter["full (epochs=2)"].startswith("-5.00 points [") and "with 50 % fewer" in shorter["full (epochs=2)"]
  assert "the reference" in shorter["full (epochs=4)"]
  table = tables.results(members)
  assert table.columns[-1].title == "against shorter plain runs"
  assert next(row for row in table.rows if row["method"] == "rs2")["beside_frontier"] == "below"


def test_a_short_run_is_not_cut_off_and_does_not_cut_others(tmp_path):
  for seed, epochs in ((0, 6), (1, 3)):
    run_folders.write(tmp_path / f"random{seed}", "random", seed, epochs=6)
    path = tmp_path / f"random{seed}" / "metrics.jsonl"
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:epochs]))
  (group,) = _groups(tmp_path)
  drawn = epoch_plots.curves([group]).axes[0].get_lines()[-1]
  np.testing.assert_array_equal(drawn.get_xdata(), np.arange(1, 7))
  last = finished.value(group.runs[0].metrics[-1])
  assert drawn.get_ydata()[-1] == pytest.approx(100 * last)  # of the run that has this epoch


def test_every_note_fits_two_lines_of_a_wide_page(folder):
  members = _groups(folder)
  for table in [*tables.all_tables(members, None), *tables.runs_tables(finished.find([str(folder)]))]:
    assert len(table.note) <= 330, table.title


def test_classes_have_their_names(tmp_path):
  for method in ("full", "random"):
    run_folders.write(tmp_path / method, method, 0)
    path = tmp_path / method / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"class_names": ["cat", "dog", "eel", "fox"]}))
  row = next(row for row in tables.usage(_groups(tmp_path)).rows if row["method"] == "random")
  assert {row["least_used_class"], row["most_used_class"]} <= {"cat", "dog", "eel", "fox"}
  assert row["least_used_ratio"] <= 1 <= row["most_used_ratio"]


def test_planted_wrong_labels_are_listed_as_hard_and_mislabelled_and_unused_ones_as_such():
  rng = np.random.default_rng(0)
  wrong = rng.choice(1000, 40, replace=False)
  losses, visits = [], []
  for _ in range(3):
    loss = rng.exponential(0.2, 1000)
    loss[wrong] = 4 + rng.random(40)
    count = np.full(1000, 10)
    count[rng.choice(1000, 100, replace=False)] = 0  # not seen by this run
    losses.append(np.where(count > 0, loss, np.nan))
    visits.append(count)
  hard, mean = feedback.always_hard(losses, visits)
  assert set(wrong) <= set(hard.tolist()) and np.all(np.diff(mean) <= 0)
  assert set(hard[feedback.likely_mislabelled(mean, 10)].tolist()) == set(wrong.tolist())


def test_lists_of_samples_have_labels_classes_and_pictures(folder, tmp_path):
  rng = np.random.default_rng(0)
  images, labels = rng.integers(0, 256, (200, 4, 4, 1), np.uint8), rng.integers(0, 4, 200)
  known = Samples(labels, ["=a", "b", "c", "d"], images)
  found = feedback.feedback(_groups(folder), known, "digits")
  lists = {table.name: list(csv.DictReader(table.csv().splitlines())) for table in found.lists}
  for group in _groups(folder):
    if group.method != "full":
      visits = np.mean([run.visits for run in group.runs], axis=0)
      listed = {int(row["index"]) for row in lists[f"digits_hardly_used_{group.method}"]}
      assert listed == set(np.flatnonzero(visits < 0.1 * visits.mean()).tolist())
  for rows in lists.values():
    for row in rows:
      label = labels[int(row["index"])]
      assert int(row["label"]) == label and row["class"] == ["'=a", "b", "c", "d"][label]
  assert [row["count"] for row in found.table.rows] == [len(table.rows) for table in found.lists]
  bare = feedback.feedback(_groups(folder), Samples(), "digits")
  assert not bare.sheets and all("label" not in row for table in bare.lists for row in table.rows)


def _unfinished(root, name="begun"):
  run_folders.write(root / name, "random", 0, epochs=6)
  (root / name / "summary.json").unlink()
  path = root / name / "metrics.jsonl"
  path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:2]))


def test_a_page_shows_the_running_epoch(tmp_path):
  _unfinished(tmp_path)
  (table,) = tables.running_tables(finished.find([str(tmp_path)]))
  assert table.shown()[0][:2] == ["begun", "3 of 6"]
  assert float(table.shown()[0][4]) == pytest.approx(2 * table.rows[0]["seconds"], abs=0.5)


def test_a_watched_folder_is_read_again_when_a_run_has_gone_on_and_not_otherwise(tmp_path, monkeypatch):
  written, waits = [], []
  monkeypatch.setattr(report, "write", lambda folders, *_, **__: (written.append(len(waits)), None))

  def wait(_):
    waits.append(None)
    if len(waits) == 2:
      _unfinished(tmp_path)
    elif len(waits) == 4:
      path = tmp_path / "begun" / "metrics.jsonl"
      path.write_text(path.read_text() + "{}\n")
    elif len(waits) == 6:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    report.watch([str(tmp_path)], "out", None, wait)
  assert len(written) == 2


def test_a_folder_that_vanishes_while_it_is_looked_for_is_skipped(tmp_path, monkeypatch):
  for name in ("a", "b"):
    run_folders.write(tmp_path / name, "random", 0)
  scan = os.scandir

  def gone(path):
    if os.path.basename(path) == "a":
      raise FileNotFoundError(path)
    return scan(path)

  monkeypatch.setattr(os, "scandir", gone)
  assert [run.path.name for run in finished.find([str(tmp_path)])] == ["b"]
  assert {path.rsplit("/", 2)[1] for path in report._state([str(tmp_path)])} == {"b"}


def test_a_watched_page_reads_itself_anew_and_a_finished_one_does_not(tmp_path):
  pytest.importorskip("jinja2", reason="the extra `report` is not installed")
  _unfinished(tmp_path / "runs")
  for refresh in (5, 0):
    page.write(finished.find([str(tmp_path / "runs")]), str(tmp_path / "out"), refresh=refresh)
    text = (tmp_path / "out" / "report.html").read_text()
    assert ('http-equiv="refresh"' in text) == bool(refresh)
    assert "3 of 6" in text and "No run is finished yet" in text and "prefers-color-scheme: dark" in text


def test_the_exported_subset_is_the_most_used_and_can_be_trained_on(tmp_path):
  run_folders.write(tmp_path / "run", "random", 0, samples=100)
  path = tmp_path / "run" / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | {"data_fingerprint": "ab" * 32}))
  assert export_subset.export(str(tmp_path / "run"), 0.3, str(tmp_path / "out")) == 30
  visits = np.load(tmp_path / "run" / "usage.npz")["visits"]
  rows = list(csv.DictReader((tmp_path / "out" / "subset.csv").read_text().splitlines()))
  chosen = [int(row["index"]) for row in rows]
  assert sorted(visits[chosen])[0] >= np.sort(visits)[::-1][29] and len(set(chosen)) == 30
  assert [int(row["visits"]) for row in rows] == visits[chosen].tolist()
  column = score_file.read(tmp_path / "out" / "scores.npz")[0]["usage"]
  assert set(np.argsort(-column)[:30].tolist()) == set(chosen)


def test_a_run_without_a_selection_gives_no_subset(tmp_path):
  run_folders.write(tmp_path / "run", "full", 0)
  with pytest.raises(options.UserError, match="selector=full used every sample equally often"):
    export_subset.export(str(tmp_path / "run"), 0.3, str(tmp_path / "out"))
  assert not (tmp_path / "out").exists()


def test_saved_columns_are_missing_where_nothing_was_saved(folder):
  full = next(row for row in tables.results(_groups(folder)).rows if row["method"] == "full")
  assert columns.plain("saved_backward", 100)(full) == "-"
