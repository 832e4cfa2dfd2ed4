"""What a report says was kept of each class or domain, against planted numbers."""

import csv
import io

import pytest

from dynsel_jax.report import classes, groups, plots, tables
from dynsel_jax.runs import finished
from tests.support import run_folders

NAMES = ["rare", "half", "common"]
SIZES = [20, 80, 100]


def _groups(root):
  return groups.collect(finished.find([str(root)]))[0]


def _write(path, method, kept, sizes=SIZES, seed=0, names=NAMES, **changes):
  run_folders.write(path, method, seed, **changes)
  run_folders.give_classes(path, kept, sizes, names)


@pytest.fixture
def folder(tmp_path):
  _write(tmp_path / "full", "full", SIZES)
  _write(tmp_path / "random", "random", [10, 40, 50])
  _write(tmp_path / "es0", "es", [40, 40, 20])
  _write(tmp_path / "es1", "es", [20, 60, 20], seed=1)
  return tmp_path


def test_fractions_and_ratios_are_means_over_the_seeds_and_the_farthest_come_first(folder):
  table = classes.table(_groups(folder))
  assert table.title == "What was kept of each class"
  assert table.shown() == [  # (p - q) / sqrt(q): 0.2 / sqrt(0.1), -0.3 / sqrt(0.5), 0.1 / sqrt(0.4)
    ["rare", "10.00", "10.00 (1.00)", "30.00 (3.00)"],
    ["common", "50.00", "50.00 (1.00)", "20.00 (0.40)"],
    ["half", "40.00", "40.00 (1.00)", "50.00 (1.25)"],
  ]
  assert [column.title for column in table.columns] == ["class", "of the training set, %", "random", "es"]
  row = next(csv.DictReader(io.StringIO(table.csv())))
  assert float(row["fraction of the visits, es"]) == pytest.approx(0.3)
  assert float(row["ratio, es"]) == pytest.approx(3)


def test_the_other_classes_are_one_row_and_an_empty_one_has_none(tmp_path):
  _write(tmp_path / "es", "es", [0, *[10] * 12, 20, 30], [0, *[10] * 14], names=())
  rows = classes.table(_groups(tmp_path)).shown()
  assert [row[0] for row in rows] == ["14", "13", *map(str, range(1, 11)), "2 others"]
  assert rows[0][1:] == ["7.14", "17.65 (2.47)"] and rows[-1][1:] == ["14.29", "11.76 (0.82)"]


def test_a_run_that_knows_no_sizes_has_those_of_another_with_the_same_data(folder):
  _write(folder / "rs2", "rs2", [10, 40, 50], None)
  assert all(row[-1].endswith("(1.00)") for row in classes.table(_groups(folder)).shown())


def test_labels_that_differ_between_seeds_are_counted_by_each_runs_own_sizes(tmp_path):
  _write(tmp_path / "random0", "random", [10, 90], [20, 180])
  _write(tmp_path / "random1", "random", [30, 70], [60, 140], seed=1)
  (found,) = classes.used(_groups(tmp_path))
  assert found.ratio == pytest.approx([1, 1]) and found.of_set == pytest.approx([0.2, 0.8])


def test_labels_of_a_column_of_domains_are_called_so(tmp_path):
  _write(tmp_path / "es", "es", [40, 40, 20], dataset="texts")
  (group,) = _groups(tmp_path)
  group.runs[0].config["dataset"]["domain_column"] = "source"
  table = classes.table([group])
  assert (table.name, table.columns[0].title) == ("kept_by_domain", "domain") and "The domain's" in table.note
  assert "Visits by domain" in {title for _, title, _ in plots.all_plots([group])}


def test_without_labels_or_sizes_or_a_method_that_chooses_there_is_no_table(tmp_path):
  run_folders.write(tmp_path / "a" / "regression", "es", task=run_folders.REGRESSION)
  run_folders.write(tmp_path / "b" / "of_an_earlier_version", "es")
  _write(tmp_path / "c" / "full", "full", SIZES)
  for name in "abc":
    members = _groups(tmp_path / name)
    assert classes.table(members) is None and len(tables.all_tables(members, None)) == 5
