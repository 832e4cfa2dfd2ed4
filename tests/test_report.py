"""Reports: reading run folders, whole or torn; tables against numpy; plots and the page."""

import csv
import json
import re
import xml.etree.ElementTree

import numpy as np
import pytest
from scipy import stats

from dynsel_jax import options
from dynsel_jax.report import cost_plots, groups, page, plots, tables, targets, theme
from dynsel_jax.runs import finished
from tests.support import run_folders

pytest.importorskip("jinja2", reason="the extra `report` is not installed")

ACCURACIES = {  # by method and seed
  "full": {0: 0.951, 1: 0.957, 2: 0.949},
  "random": {0: 0.921, 1: 0.933, 2: 0.915},
  "rs2": {1: 0.940, 2: 0.924, 3: 0.900},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp("runs")
  for method, by_seed in ACCURACIES.items():
    for seed, final in by_seed.items():
      run_folders.write(root / f"{method}-seed{seed}", method, seed, keep=0.3, final=final)
  return root


def _groups(root):
  return groups.collect(finished.find([str(root)]))


def _by_method(root):
  return {group.method: group for group in _groups(root)[0]}


def test_mean_deviation_and_paired_differences_are_those_of_numpy_and_scipy(folder):
  members, left_out = _groups(folder)
  assert not left_out and [group.label for group in members] == ["full", "random", "rs2"]
  rows = {row["method"]: row for row in tables.results(members).rows}
  for method, by_seed in ACCURACIES.items():
    finals = np.array(list(by_seed.values()))
    assert rows[method]["metric_mean"] == pytest.approx(finals.mean())
    assert rows[method]["metric_sd"] == pytest.approx(finals.std(ddof=1))
    assert rows[method]["n"] == 3
  common = (1, 2)
  differences = np.array([ACCURACIES["rs2"][seed] - ACCURACIES["full"][seed] for seed in common])
  interval = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
  row = rows["rs2"]
  assert (row["less_full_mean"], row["less_full_n"]) == (pytest.approx(differences.mean()), 2)
  assert (row["less_full_low"], row["less_full_high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))
  assert "less_full_mean" not in rows["full"] and rows["random"]["less_full_n"] == 3
  assert f"{100 * differences.mean():+.2f} [" in tables.results(members).markdown()


def test_the_methods_cost_counts_the_offline_stage_for_every_seed_and_nothing_beside_the_method(folder):
  group = _by_method(folder)["random"]
  for run in group.runs:
    measured = run.summary["seconds"]
    expected = measured["selecting"] + measured["training"] + 3.0  # seed 0 alone paid for the factors
    assert groups.work_seconds(group, run) == pytest.approx(expected)


def test_the_target_is_reached_at_the_first_epoch_that_has_it(folder):
  group = _by_method(folder)["full"]
  run = group.runs[0]
  reached = [line for line in run.metrics if line["test_accuracy"] >= 0.93]
  epochs, visits, _ = targets.to_target(group, run, 0.93)
  assert (epochs, visits) == (reached[0]["epoch"], reached[0]["backward_visits"])
  assert epochs < len(run.metrics)
  assert targets.to_target(group, run, 0.99) is None
  members, _ = _groups(folder)
  assert targets.target_of(members[-1], members, None) == pytest.approx(
    0.99 * np.mean(list(ACCURACIES["full"].values()))
  )
  row = targets.table(members, 0.945).rows[-1]
  assert (row["method"], row["reached"], row["n"]) == ("rs2", 0, 3)


def test_usage_is_that_of_numpy(folder):
  group = _by_method(folder)["random"]
  row = next(row for row in tables.usage([group]).rows)
  visits = [np.load(run.path / "usage.npz")["visits"] for run in group.runs]
  assert row["seen_mean"] == pytest.approx(np.mean([np.mean(v > 0) for v in visits]))
  pairs = [np.abs(v[:, None] - v[None, :]).mean() / (2 * v.mean()) for v in visits]  # the definition of Gini's
  assert row["gini_mean"] == pytest.approx(np.mean(pairs))


def test_settings_that_differ_part_groups_and_choose_the_reference(tmp_path):
  for keep in (0.3, 0.5):
    for method in ("random", "rs2"):
      run_folders.write(tmp_path / f"{method}{keep}", method, 0, keep=keep)
  run_folders.write(tmp_path / "whole", "full", 0)
  run_folders.write(tmp_path / "longer", "rs2", 0, keep=0.3, epochs=8)
  run_folders.write(tmp_path / "other_rate", "rs2", 0, keep=0.3, learning_rate=0.2)
  run_folders.write(tmp_path / "again", "full", 0)
  members, left_out = _groups(tmp_path)
  labels = [group.label for group in members]
  assert "rs2 (keep=0.3, epochs=8, learning_rate=0.1)" in labels and len(labels) == 7
  assert left_out == ["Left out: whole: same config and seed as again."]
  by_label = dict(zip(labels, members, strict=True))

  def compared(label, method):
    other = groups.reference(by_label[label], members, method)
    return other and other.label

  usual = "epochs=4, learning_rate=0.1"
  assert compared(f"rs2 (keep=0.5, {usual})", "random") == f"random (keep=0.5, {usual})"
  assert compared("rs2 (keep=0.3, epochs=8, learning_rate=0.1)", "full") == f"full ({usual})"  # an equal-step control
  assert compared("rs2 (keep=0.3, epochs=4, learning_rate=0.2)", "full") is None


def test_a_wrapped_method_is_another_one_and_is_compared_with_the_unwrapped_full(tmp_path):
  for name in ("full", "random"):
    run_folders.write(tmp_path / name, name, 0)
    wrappers = {"names": ["annealed"], "annealed": {"last": 0.1}}
    run_folders.write(tmp_path / f"{name}_annealed", name, 0, wrappers=wrappers)
  members, _ = _groups(tmp_path)
  assert [group.label for group in members] == ["full", "random", "full + annealed", "random + annealed"]
  assert groups.reference(members[3], members, "full") is members[0]
  assert groups.reference(members[3], members, "random") is members[1]


def test_runs_on_a_score_file_for_each_seed_are_one_group_and_compared_with_runs_without_scores(tmp_path):
  for seed in (0, 1):
    run_folders.write(tmp_path / f"full{seed}", "full", seed)
    scores = {"path": f"runs/scores{seed}/scores.npz"}
    run_folders.write(tmp_path / f"top{seed}", "top", seed, scores=scores)
  members, left_out = _groups(tmp_path)
  assert [(group.label, len(group.runs)) for group in members] == [("full", 2), ("top", 2)] and not left_out
  assert groups.reference(members[1], members, "full") is members[0]


def test_what_a_folder_lacks_is_said_and_the_rest_is_reported(folder, tmp_path):
  for name, seed in (("whole", 0), ("no_usage", 1), ("no_metrics", 2), ("torn", 3), ("only_config", 4), ("no_run", 5)):
    run_folders.write(tmp_path / name, "random", seed)
  (tmp_path / "no_usage" / "usage.npz").write_bytes(b"PK\x03\x04torn")
  (tmp_path / "no_metrics" / "metrics.jsonl").unlink()
  lines = (tmp_path / "torn" / "metrics.jsonl").read_text()
  (tmp_path / "torn" / "metrics.jsonl").write_text(lines[: len(lines) * 2 // 3])
  (tmp_path / "torn" / "summary.json").unlink()
  for name in ("metrics.jsonl", "summary.json", "usage.npz"):
    (tmp_path / "only_config" / name).unlink()
  (tmp_path / "no_run" / "config.json").write_text("{}")
  found = finished.find([str(tmp_path)])
  missing = {run.path.name: run.missing for run in found}
  assert missing == {
    "whole": (),
    "no_usage": ("usage.npz",),
    "no_metrics": ("metrics.jsonl",),
    "torn": ("metrics.jsonl: a torn line", "summary.json", "2 of 4 epochs"),
    "only_config": ("metrics.jsonl", "summary.json", "usage.npz"),
  }
  notes = page.write(found, str(tmp_path / "out"), lost=finished.lost([str(tmp_path)])).notes
  assert len(notes) == 3 and all("not finished" in note for note in notes[1:])
  assert notes[0] == "Left out: no_run: config.json is damaged, or was not written by dynsel_jax."
  text = (tmp_path / "out" / "report.md").read_text()
  assert "| random | 3 | 90.00" in text
  assert "metrics.jsonl: a torn line, summary.json, 2 of 4 epochs" in text


def test_lines_behind_a_torn_one_are_read(tmp_path):
  run_folders.write(tmp_path / "run", "random", 0)
  path = tmp_path / "run" / "metrics.jsonl"
  first, *others = path.read_text().splitlines()
  path.write_text("\n".join([first, first[:20], *others]) + "\n")
  run = finished.read(tmp_path / "run")
  assert [line["epoch"] for line in run.metrics] == [1, 2, 3, 4] and run.missing == ("metrics.jsonl: a torn line",)


def test_unfinished_runs_alone_still_give_a_report(tmp_path):
  run_folders.write(tmp_path / "begun", "random", 0)
  (tmp_path / "begun" / "summary.json").unlink()
  page.write(finished.find([str(tmp_path)]), str(tmp_path / "out"))
  assert "begun: not finished" in (tmp_path / "out" / "report.html").read_text()


def test_a_folder_without_a_run_is_refused(tmp_path):
  for folder, line in ((tmp_path, "contains no run"), (tmp_path / "nowhere", "is not a folder")):
    with pytest.raises(options.UserError, match=line):
      finished.find([str(folder)])


def test_the_page_refers_to_nothing_outside_and_every_file_is_there(folder, tmp_path):
  page.write(finished.find([str(folder)]), str(tmp_path))
  text = (tmp_path / "report.html").read_text()
  assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)|url\(|@import|<script|<link""", text)
  assert text.count("<img ") == 9 and 'name="viewport"' in text
  markdown = (tmp_path / "report.md").read_text()
  pictures = re.findall(r"\]\((plots/\S+\.svg)\)", markdown)
  assert len(pictures) == 9
  for picture in pictures:
    assert (tmp_path / picture.replace(".svg", ".png")).stat().st_size > 1000
    root = xml.etree.ElementTree.parse(tmp_path / picture).getroot()
    links = [value for node in root.iter() for name, value in node.attrib.items() if name.endswith("href")]
    assert links and all(link.startswith("#") for link in links)
  rows = list(csv.DictReader((tmp_path / "tables" / "digits_results.csv").read_text().splitlines()))
  assert [row["method"] for row in rows] == ["full", "random", "rs2"]
  assert float(rows[0]["metric_mean"]) == pytest.approx(np.mean(list(ACCURACIES["full"].values())))
  assert rows[0]["less_full_mean"] == ""


def _record(path, fields):
  """Adds to each line of a run's metrics what `fields` gives for its epoch."""
  lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
  lines = [line | fields(line["epoch"]) for line in lines]
  (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _coverage(epoch):
  if epoch == 4:  # the full data, where a curriculum logs zeros; and a set that has no common factor
    whole = {"factors_covered": 1.0, "rare_factor_rate": 1.0, "common_factor_rate": None}
    return {**whole, "selector": {"alpha": 0.0, "full_data": 1.0}}
  found = {"factors_covered": 0.1 * epoch, "rare_factor_rate": 0.5 + epoch, "common_factor_rate": None}
  return {**found, "selector": {"alpha": 1 - 0.1 * epoch, "full_data": 0.0}}


def test_factor_coverage_and_noise_over_epochs_are_shown_where_runs_record_them(tmp_path):
  for seed in (0, 1):
    for method in ("full", "rrd", "random"):
      run_folders.write(tmp_path / f"{method}{seed}", method, seed)
  names = [name for name, _, _ in plots.all_plots(_groups(tmp_path)[0])]
  assert "factors" not in names and "noise" not in names
  assert "factors covered" not in tables.usage(_groups(tmp_path)[0]).markdown()

  _record(tmp_path / "rrd0", _coverage)  # the other seed's is from before there were such fields
  _record(tmp_path / "rrd1", lambda epoch: {"noisy_fraction_kept": 0.05 * epoch})
  _record(tmp_path / "full1", lambda epoch: {"noisy_share_kept": 0.05 * epoch})  # the name in earlier versions
  members, _ = _groups(tmp_path)
  figures = {name: figure for name, _, figure in plots.all_plots(members)}
  (panel,) = [axes for axes in figures["factors"].axes if axes.get_title(loc="left")]
  assert panel.get_title(loc="left") == "rrd, n = 1"
  _, covered, rare, common, alpha = (line.get_ydata() for line in panel.lines)
  np.testing.assert_allclose(covered, [0.1, 0.2, 0.3, 1.0])
  np.testing.assert_allclose(rare, [1.5, 2.5, 3.5, 1.0])
  assert np.isnan(common).all()
  np.testing.assert_allclose(alpha, [0.9, 0.8, 0.7, np.nan])
  of_full, of_rrd = [axes for axes in figures["noise"].axes if axes.get_title(loc="left")]
  assert (len(of_full.lines), len(of_rrd.lines)) == (1, 2)  # full training stands beside the method
  np.testing.assert_allclose(of_rrd.lines[1].get_ydata(), [5, 10, 15, 20])

  row = next(row for row in tables.usage(members).rows if row["method"] == "rrd")
  assert (row["factors_covered_mean"], row["factors_covered_n"]) == (pytest.approx(0.4), 1)
  assert row["rare_factor_rate_mean"] == pytest.approx(8.5 / 4) and row["common_factor_rate_n"] == 0
  assert "| 40.0 | 2.12 | - |" in tables.usage(members).markdown()
  page.write(finished.find([str(tmp_path)]), str(tmp_path / "out"))
  text = (tmp_path / "out" / "report.md").read_text()
  assert "plots/digits_factors.svg" in text and "plots/digits_noise.svg" in text


def test_names_are_escaped_in_the_page(tmp_path):
  run_folders.write(tmp_path / "run", "my_lab:<b>x</b>", 0, dataset="a|b/<i>")
  page.write(finished.find([str(tmp_path / "run")]), str(tmp_path / "out"))
  text = (tmp_path / "out" / "report.html").read_text()
  assert "<b>x" not in text and "<i>" not in text and "&lt;b&gt;x" in text
  assert (tmp_path / "out" / "tables" / "a_b_i_results.csv").exists()


def test_labels_are_moved_apart_in_their_order_and_stay_inside():
  rng = np.random.default_rng(0)
  for heights in (rng.random(12), np.full(9, 0.97), np.zeros(5), [0.5]):
    placed = np.array(cost_plots._placed(list(heights), 0.06))
    assert placed.min() >= -1e-9 and placed.max() <= 1 + 1e-9
    assert np.all(np.diff(np.sort(placed)) > 0.06 - 1e-6)
    assert np.all(np.diff(placed[np.argsort(heights, kind="stable")]) > 0)


def test_the_front_is_what_no_other_beats_in_both():
  costs, gains = [3.0, 1.0, 2.0, 2.5, 1.0], [0.9, 0.7, 0.8, 0.75, 0.6]
  beaten = [
    any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in zip(costs, gains, strict=True))
    for cost, gain in zip(costs, gains, strict=True)
  ]
  assert sorted(cost_plots._front(costs, gains)) == [i for i, worse in enumerate(beaten) if not worse]


def test_a_value_far_off_does_not_squeeze_the_others():
  close = [97.0, 97.5, 96.2, 98.0, 95.1, 96.9]
  for values, far in (([63.0, *close], [0]), ([*close, 63.0, 64.0], []), (close, []), ([63.0, *close[:3]], [])):
    for sign in (1.0, -1.0):
      found = theme.far_off([sign * value for value in values], larger_is_better=sign > 0)
      assert np.flatnonzero(found).tolist() == far
  assert not theme.far_off([-63.0, *(-value for value in close)], larger_is_better=True).any()  # far better


def test_nothing_is_cut_off_in_a_picture_of_many_methods(tmp_path):
  for number in range(13):
    final = 0.6 if number == 5 else 0.95 + 0.001 * number
    method = f"selective_backprop_{number}" if number else "full"
    run_folders.write(tmp_path / f"{number}-seed0", method, 0, final=final)
  members, _ = _groups(tmp_path)
  made = {name: figure for name, _, figure in plots.all_plots(members)}
  for name in ("phases", "visits", "classes"):
    made[name].draw_without_rendering()
    inside = made[name].get_tightbbox()
    assert inside.x0 > -0.05 and inside.x1 < made[name].get_figwidth() + 0.05, name
  (visits,) = made["visits"].axes
  assert visits.get_ylim()[0] > 90 and "selective_bac…: 60" in {text.get_text() for text in visits.texts}


def test_devices_that_differ_are_noted(folder, tmp_path):
  run_folders.write(tmp_path / "a", "random", 0)
  run_folders.write(tmp_path / "b", "random", 1)
  made = json.loads((tmp_path / "b" / "config.json").read_text())
  made["device"]["kind"] = "H200"
  (tmp_path / "b" / "config.json").write_text(json.dumps(made))
  notes = page.write(finished.find([str(tmp_path)]), str(tmp_path / "out")).notes
  assert notes == ["Seconds do not compare: the runs were made on 2 machines or devices (1 x H200, 1 x cpu)."]
