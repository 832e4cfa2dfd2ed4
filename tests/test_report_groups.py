"""Reports: groups of runs, their labels, their references and their seconds."""

import json

import numpy as np
import pytest

from dynsel_jax.report import groups, page, plots, tables, targets
from dynsel_jax.runs import finished
from tests.support import run_folders

pytest.importorskip("jinja2", reason="the extra `report` is not installed")


def _groups(root):
  members, notes = groups.collect(finished.find([str(root)]))
  return {group.label: group for group in members}, notes


def test_the_offline_stage_counts_for_every_group_that_used_it_whoever_found_it_cached(tmp_path):
  made = {"features": {"name": "pixels"}, "factors": {"k": 8}}
  run_folders.write(tmp_path / "rrd-seed0", "rrd", 0, **made)  # took 3 s for its factors
  run_folders.write(tmp_path / "rotation-seed1", "rotation", 1, **made)  # found them
  run_folders.write(tmp_path / "other-seed1", "other", 1, **made | {"factors": {"k": 9}})
  run_folders.write(tmp_path / "random-seed1", "random", 1)
  members, _ = _groups(tmp_path)
  assert {label: group.offline_seconds for label, group in members.items()} == {
    "rrd": 3.0,
    "rotation": 3.0,
    "other": 0.0,
    "random": 0.0,
  }
  note = tables.results(list(members.values())).note
  assert note.endswith(
    "Not counted, because it was made beforehand: the offline stage of other, which every run found in the cache."
  )


def test_features_of_the_model_itself_are_as_costly_as_the_model(tmp_path):
  for model, seed in (("small", 0), ("large", 1)):
    changes = {"model": {"name": model}, "features": {"name": "backbone"}, "factors": {"k": 8}}
    run_folders.write(tmp_path / f"{model}-seed{seed}", "rrd", seed, **changes)
  members, _ = _groups(tmp_path)
  assert sorted(group.offline_seconds for group in members.values()) == [0.0, 3.0]


def test_a_run_with_matched_steps_is_compared_with_full_training_of_the_recipe(tmp_path):
  run_folders.write(tmp_path / "full-seed0", "full", 0, match_steps=False)
  for method in ("random", "rs2"):
    for matched in (False, True):
      name = f"{method}{'_equal' if matched else ''}-seed0"
      run_folders.write(tmp_path / name, method, 0, match_steps=matched)
  members, _ = _groups(tmp_path)
  ordered = list(members.values())

  def compared(label, method):
    other = groups.reference(members[label], ordered, method)
    return other and other.label

  assert compared("rs2 (match_steps=True)", "full") == "full (match_steps=False)"
  assert compared("rs2 (match_steps=True)", "random") == "random (match_steps=True)"
  assert compared("rs2 (match_steps=False)", "random") == "random (match_steps=False)"


def test_of_several_random_groups_the_nearest_fraction_is_taken_and_named(tmp_path):
  for keep in (0.3, 0.5):
    run_folders.write(tmp_path / f"random{keep}", "random", 0, keep=keep)
  run_folders.write(tmp_path / "es", "es", 0, keep=0.45)
  members, _ = _groups(tmp_path)
  ordered = list(members.values())
  assert groups.reference(members["es"], ordered, "random") is members["random (keep=0.5)"]
  assert "random at 50 %" in tables.counts(ordered).markdown()


def test_two_folders_of_images_are_two_data_sets(tmp_path):
  for name in ("cats", "dogs"):
    path = tmp_path / f"{name}-seed0"
    run_folders.write(path, "full", 0, dataset="folder")
    made = json.loads((path / "config.json").read_text())
    made["config"]["dataset"]["data_dir"] = name
    (path / "config.json").write_text(json.dumps(made))
  members, notes = groups.collect(finished.find([str(tmp_path)]))
  assert [group.dataset for group in members] == ["folder cats", "folder dogs"] and not notes


def test_groups_with_more_than_one_setting_are_called_as_their_sweep_calls_them(tmp_path):
  for name, parts in (("whole", {}), ("no_penalty", {"penalty": 0.0}), ("static", {"penalty": 0.0, "alpha_min": 0.5})):
    for seed in (0, 1):
      selector = {"name": "rrd", "penalty": 0.2, "alpha_min": 0.2, **parts}
      run_folders.write(tmp_path / f"{name}-seed{seed}", "rrd", seed, selector=selector)
  assert set(_groups(tmp_path)[0]) == {"whole", "no_penalty", "static"}


def test_a_group_with_fewer_seeds_and_a_cell_that_failed_are_named(tmp_path):
  for seed in (0, 1):
    run_folders.write(tmp_path / f"full-seed{seed}", "full", seed)
  run_folders.write(tmp_path / "random-seed0", "random", 0)
  failed = tmp_path / "random-seed1"
  failed.mkdir()
  (failed / "error.txt").write_text("Traceback\nUserError: keep_fraction=2 is too large\n")
  folders = [str(tmp_path)]
  notes = page.write(finished.find(folders), str(tmp_path / "out"), lost=finished.lost(folders)).notes
  assert notes == [
    "Left out: random-seed1: failed (UserError: keep_fraction=2 is too large).",
    "Fewer seeds on digits: random (1 of 2).",
  ]
  assert "keep_fraction=2 is too large" in (tmp_path / "out" / "report.html").read_text()


def test_usage_says_over_how_many_runs_it_is(tmp_path):
  for seed in (0, 1):
    run_folders.write(tmp_path / f"random-seed{seed}", "random", seed)
  (tmp_path / "random-seed1" / "usage.npz").unlink()
  ordered = list(_groups(tmp_path)[0].values())
  row = tables.usage(ordered).rows[0]
  assert (row["n"], row["n_visits"], row["gini_n"]) == (2, 1, 1)
  assert "n with usage.npz" in tables.usage(ordered).markdown()
  pictures = {name: figure for name, _, figure in plots.all_plots(ordered)}
  assert pictures["lorenz"].axes[0].get_title(loc="left") == "random, n = 1"
  assert pictures["curves"].axes[0].get_title(loc="left") == "random, n = 2"


def test_a_picture_that_is_not_drawn_is_listed_with_the_reason(tmp_path):
  run_folders.write(tmp_path / "random-seed0", "random", 0)
  (tmp_path / "random-seed0" / "usage.npz").unlink()
  page.write(finished.find([str(tmp_path)]), str(tmp_path / "out"))
  text = (tmp_path / "out" / "report.md").read_text()
  assert "Not drawn: no run has a readable usage.npz." in text
  assert "Not drawn: the class sizes are unknown" in text  # random never trains on everything


def test_each_recipe_has_its_own_target_and_front(tmp_path):
  finals = {(0.1, "full"): 0.96, (0.1, "random"): 0.95, (0.2, "full"): 0.56, (0.2, "random"): 0.55}
  for (rate, method), final in finals.items():
    run_folders.write(tmp_path / f"{method}{rate}", method, 0, final=final, learning_rate=rate)
  ordered = list(_groups(tmp_path)[0].values())
  wanted = {row["label"]: row["target"] for row in targets.table(ordered, None).rows}
  for group in ordered:
    rate = dict(group.shared)["learning_rate"]
    assert wanted[group.label] == pytest.approx(0.99 * finals[rate, "full"])
  figure = next(figure for name, _, figure in plots.all_plots(ordered) if name == "visits")
  fronts = [line for line in figure.axes[0].get_lines() if line.get_drawstyle() == "steps-post"]
  assert sorted(np.max(line.get_ydata()) for line in fronts) == pytest.approx([56.0, 96.0])
