"""The comparison of two folders of runs: equal runs, a changed field, a changed array, and runs that only one has."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from experiments.studies import same_bits
from tests.support import ROOT, run_folders


@pytest.fixture
def folders(tmp_path):
  """Two folders with the same two runs."""
  before, after = tmp_path / "before", tmp_path / "after"
  for method in ("full", "random"):
    run_folders.write(before / method, method)
  shutil.copytree(before, after)
  return before, after


def _compare(*folders):
  flags = [f"--{name}={folder}" for name, folder in zip(("before", "after"), folders, strict=True)]
  command = [sys.executable, "-m", "experiments.studies.same_bits", *flags]
  ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  return ended.returncode, ended.stdout.splitlines(), ended.stderr


def _change(path, **fields):
  path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_equal_runs_are_the_same_whatever_they_took(folders):
  before, after = folders
  _change(after / "full" / "summary.json", seconds={"total": 1e9}, resumed_from=[3], a_field_of_a_later_version=1)
  assert not list(same_bits.differences(before / "full", after / "full"))
  lines = ["full: the same bits", "random: the same bits", "2 of 2 runs are the same"]
  assert _compare(before, after) == (0, lines, "")


def test_a_changed_field_and_a_changed_array_are_named_with_their_place(folders):
  before, after = folders
  lines = (after / "full" / "metrics.jsonl").read_text().splitlines()
  value = json.loads(lines[1])["test_accuracy"]
  changed = value + 1e-12
  lines[1] = json.dumps(json.loads(lines[1]) | {"test_accuracy": changed})
  (after / "full" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
  _change(after / "full" / "summary.json", epochs=5)
  with np.load(after / "full" / "usage.npz") as file:
    arrays = dict(file)
  arrays["visits"][7] += 1
  arrays["last_loss"][:3] = np.nan
  np.savez(after / "full" / "usage.npz", **arrays)
  assert list(same_bits.differences(before / "full", after / "full")) == [
    f"epoch 2 test_accuracy: {value!r} before, {changed!r} after",
    "summary epochs: 4 before, 5 after",
    "usage.npz visits: 1 samples differ",
    "usage.npz last_loss: 3 samples differ",
  ]
  assert not list(same_bits.differences(after / "full", after / "full"))  # two NaN are the same
  status, said, _ = _compare(before, after)
  assert status == 1
  assert said[0].startswith("full: 4 fields differ, first epoch 2 test_accuracy: ")
  assert said[1:] == ["random: the same bits", "1 of 2 runs are the same"]


def test_a_shorter_run_differs_and_runs_that_one_folder_lacks_are_named(folders):
  before, after = folders
  lines = (after / "full" / "metrics.jsonl").read_text().splitlines()
  (after / "full" / "metrics.jsonl").write_text("\n".join(lines[:-1]) + "\n")
  assert list(same_bits.differences(before / "full", after / "full")) == ["epochs: 4 before, 3 after"]
  shutil.rmtree(after / "random")
  status, said, _ = _compare(before, after)
  assert (status, said[1]) == (1, f"not compared, since {after} lacks them: random")
  status, _, errors = _compare(before / "random", after)
  assert status == 2
  assert errors == f"error: before={before / 'random'} and after={after} contain no finished runs of the same name\n"
