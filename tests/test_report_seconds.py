"""The report's seconds: one definition in summary.json, tables and pictures; what does not compare is said."""

import csv
import json
import re

import numpy as np
import pytest

from dynsel_jax.report import groups, plots, seconds, tables
from dynsel_jax.report import notes as notes_lib
from dynsel_jax.runs import console, finished, timing
from tests.support import run_folders, small_runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  root = tmp_path_factory.mktemp("trained")
  for method in ("full", "random"):
    small_runs.train(small_runs.config(method, epochs=2), root / f"{method}-seed0")
  return root


def _groups(root):
  return groups.collect(finished.find([str(root)]))[0]


def _notes(root):
  found = finished.find([str(root)])
  members, on_groups = groups.collect(found)
  return notes_lib.all_notes(found, members, [], on_groups)


def _summary(root, group):
  return json.loads((root / f"{group.method}-seed0" / "summary.json").read_text())


def test_every_second_of_a_run_is_in_a_named_phase(trained):
  for group in _groups(trained):
    spent = _summary(trained, group)["seconds"]
    assert spent["total"] == pytest.approx(sum(spent[name] for name in timing.PHASES))
    assert spent["setting_up"] > 0 and spent["recording"] > 0
    for line in group.runs[0].metrics:
      assert line["seconds"]["total"] == pytest.approx(sum(line["seconds"][name] for name in timing.PHASES))


def _by_method(table):
  return {row["method"]: row for row in csv.DictReader(table.csv().splitlines())}


def test_tables_pictures_and_console_add_up_to_the_summary(trained):
  members = _groups(trained)
  rows, results = _by_method(seconds.table(members)), _by_method(tables.results(members))
  bars = next(figure for name, _, figure in plots.all_plots(members) if name == "phases").axes[0].patches
  for place, group in enumerate(members):
    summary = _summary(trained, group)
    spent, total = summary["seconds"], summary["seconds"]["total"]
    cost = sum(spent[name] for name in timing.COST)
    row = rows[group.method]
    assert float(row["total_mean"]) == pytest.approx(total)
    assert sum(float(row[f"{name}_mean"]) for name in (*timing.COST, *seconds.APART)) == pytest.approx(total)
    assert float(row["cost_mean"]) == float(results[group.method]["seconds_mean"]) == pytest.approx(cost)
    drawn = sum(bar.get_width() for bar in bars if round(bar.get_y() + bar.get_height() / 2) == place)
    assert drawn == pytest.approx(total)
    printed = console.closing_lines(summary, group.metric, "run")
    whole, parts = re.search(r"seconds +([\d.]+) \((.*)\)", printed).groups()
    assert sum(float(part.split()[-1]) for part in parts.split(", ")) == pytest.approx(float(whole))


def test_the_printed_seconds_of_a_row_add_up(trained):
  table = seconds.table(_groups(trained))
  titles = [column.title for column in table.columns]
  whole, cost = titles.index("whole run"), titles.index("cost of the method")
  for cells in table.shown():
    numbers = [float(cell) for cell in cells[2:]]
    assert sum(numbers[: cost - 2]) == pytest.approx(numbers[cost - 2])
    assert numbers[whole - 2] == pytest.approx(sum(numbers[cost - 2 : whole - 2]))


@pytest.mark.parametrize("unit", [0.001, 0.1, 1.0])
def test_rounded_seconds_add_up_and_are_off_by_less_than_a_unit(unit):
  drawn = np.random.default_rng(0).exponential(2.0, (50, 7))
  for values in drawn:
    given = dict(zip("abcdefg", values, strict=True))
    found = timing.rounded(given, unit)
    assert sum(found.values()) == pytest.approx(unit * round(values.sum() / unit))
    assert all(abs(found[name] - given[name]) < unit for name in given)


def test_what_earlier_versions_left_out_is_unnamed_and_not_the_methods(tmp_path):
  run_folders.write(tmp_path / "random-seed0", "random", 0)
  (group,) = _groups(tmp_path)
  spent = groups.phase_seconds(group, group.runs[0])
  assert spent["unnamed"] == pytest.approx(0.5)
  assert sum(spent.values()) == pytest.approx(group.runs[0].summary["seconds"]["total"])
  row = next(row for row in tables.results([group]).rows)
  assert row["seconds_mean"] == pytest.approx(sum(spent[name] for name in timing.COST))


def _made(root, name, seed, ended, machine, **changes):
  run_folders.write(root / name, "random", seed, **changes)
  for file, more in (("summary.json", {"ended": ended}), ("config.json", {"machine": {"name": machine, "cores": 2}})):
    path = root / name / file
    held = json.loads(path.read_text()) | more
    path.write_text(json.dumps({field: value for field, value in held.items() if value is not None}))


@pytest.mark.parametrize(
  ("ended", "machines", "said"),
  [
    ((1000.0, 2000.0), "aa", ""),
    ((1000.0, 1001.0), "aa", "2 of the 2 runs were made side by side"),
    ((1000.0, 2000.0), "ab", "2 machines or devices (1 x cpu)"),
    ((1000.0, None), "aa", "1 of the 2 runs do not say when they were made"),
  ],
)
def test_seconds_that_do_not_compare_are_said(ended, machines, said, tmp_path):
  for seed, (when, machine) in enumerate(zip(ended, machines, strict=True)):
    _made(tmp_path, f"random-seed{seed}", seed, when, machine)
  found = seconds.incomparable(finished.find([str(tmp_path)]))
  assert said in found and bool(said) == bool(found)


def test_runs_side_by_side_are_those_of_brute_force(tmp_path):
  run_folders.write(tmp_path / "random-seed0", "random", 0)
  (run,) = finished.find([str(tmp_path)])
  drawn, some = np.random.default_rng(0), set()  # of numbers of runs
  for _ in range(60):
    begins = drawn.uniform(0, 30, 6)
    spans = [*zip(begins, begins + drawn.choice([0.5, 3, 9], 6), strict=True)]
    beside = sum(
      any(min(end, others[1]) - max(begin, others[0]) > 1 for j, others in enumerate(spans) if i != j)
      for i, (begin, end) in enumerate(spans)
    )
    made = [
      run._replace(summary={**run.summary, "ended": end, "seconds": {"total": end - begin}}) for begin, end in spans
    ]
    said = f"Seconds do not compare: {beside} of the 6 runs were made side by side."
    assert seconds.incomparable(made) == (said if beside else "")
    some.add(beside)
  assert len(some) > 3


def test_every_run_on_the_ranks_of_one_proxy_counts_its_seconds(tmp_path):
  small = {"update_every": 4, "model": {"name": "mlp"}}
  cells = {  # the seconds that a run measured, its wrappers and the models of both networks
    "found": (7.0, (), "resnet", small),
    "wrapped": (0.0, ("annealed",), "resnet", small),
    "another": (0.0, (), "vit", small),
    "other_proxy": (0.0, (), "resnet", small | {"update_every": 2}),
    "itself": (5.0, (), "resnet", small | {"model": {"name": ""}}),
    "another_itself": (0.0, (), "vit", small | {"model": {"name": ""}}),
  }
  for cell, (spent, names, model, proxy) in cells.items():
    changes = {"wrappers": {"names": names}, "model": {"name": model}, "proxy": proxy}
    made = run_folders.write(tmp_path / f"{cell}-seed0", "proxy", 0, **changes)
    made["seconds"] = made["seconds"] | {"factors": 0.0, "proxy": spent}
    (tmp_path / f"{cell}-seed0" / "summary.json").write_text(json.dumps(made))
  paid = {group.runs[0].path.name.removesuffix("-seed0"): group.offline_seconds for group in _groups(tmp_path)}
  expected = {"found": 7, "wrapped": 7, "another": 7, "other_proxy": 0, "itself": 5, "another_itself": 0}
  assert paid == expected


def test_a_deviation_without_that_of_the_factors_is_said(tmp_path):
  for seed in (0, 1):
    run_folders.write(tmp_path / "one" / f"rrd-seed{seed}", "rrd", seed, features={"name": "x"}, factors={"seed": 0})
    run_folders.write(tmp_path / "own" / f"rrd-seed{seed}", "rrd", seed, features={"name": "x"}, factors={"seed": seed})
  notes = {}
  for name in ("one", "own"):
    (group,) = _groups(tmp_path / name)
    assert len(group.runs) == 2
    notes[name] = _notes(tmp_path / name)
  assert notes == {"one": ["One autoencoder served all seeds, so deviations lack that of its fit: rrd."], "own": []}


def test_two_settings_of_the_factors_seed_are_two_groups(tmp_path):
  for factors in (0, 1):
    name = f"rrd_factors{factors}-seed0"
    run_folders.write(tmp_path / name, "rrd", 0, features={"name": "x"}, factors={"seed": factors})
  assert {group.label for group in _groups(tmp_path)} == {"rrd (seed=0)", "rrd (seed=1)"}


def test_versions_that_differ_within_a_group_are_named(tmp_path):
  for seed, version in enumerate(("0.10.2", "0.11.2")):
    run_folders.write(tmp_path / f"random-seed{seed}", "random", seed)
    path = tmp_path / f"random-seed{seed}" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"versions": {"jax": version, "numpy": "2.4"}}))
  assert _notes(tmp_path) == ["Runs that are averaged were made by different versions: jax 0.10.2, 0.11.2."]
