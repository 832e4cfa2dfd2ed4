"""Running sweeps: stopping and continuing, failures, several processes, and the table."""

import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from dynsel_jax import data, offline, options
from dynsel_jax.report import groups, tables
from dynsel_jax.runs import console, finished, interruption, lock
from experiments import sweep
from experiments.sweeps import workers
from tests.support import ROOT, small_runs

# Two epochs of digits for three cells, the last of which has a value that is refused once its run begins.
FILE = """
from configs.sweeps import base

def get_sweep(arguments=""):
  chosen = base.parse(arguments, seeds=1, wrong=False)
  few = base.methods(("full", "random"), keep_fraction=0.5)
  few += [base.Point("wrong", {"selector": "random"}, {"selector.keep_fraction": 1.5})] if chosen["wrong"] else []
  return base.Sweep("configs/digits.py:size=smoke", [few, base.seeds(chosen["seeds"])], {"batch_size": 128})
"""

# Four cells whose selector's module, lab.py, obeys a file in $ORDERS called for example SIGKILL-worker: the process
# that takes it sends the signal at a step of its run, to itself or to the sweep, and trains no further until told so.
LAB_FILE = """
from configs.sweeps import base

def get_sweep(arguments=""):
  shares = [base.Point(f"keep{share}", {}, {"selector.keep_fraction": share}) for share in (0.5, 0.7)]
  return base.Sweep("configs/digits.py:size=smoke,selector=lab:random", [shares, base.seeds(2)], {"batch_size": 128})
"""
LAB = """
import itertools, os, pathlib, select, signal, sys

from dynsel_jax import selectors
from dynsel_jax.runs import console

random, steps, due = selectors.METHODS["random"].factory, itertools.count(1), console.Console.due
print("cores", sorted(os.sched_getaffinity(0)), flush=True)

def obeying(self):
  if next(steps) == 3:
    for order in pathlib.Path(os.environ["ORDERS"]).iterdir():
      try:
        order.unlink()
      except FileNotFoundError:
        continue  # the other worker's
      kind, whom = order.name.split("-")
      os.kill(os.getppid() if whom == "sweep" else os.getpid(), signal.Signals[kind])
      if whom == "sweep":
        select.select([int(sys.argv[1])], [], [])  # the pipe to the sweep: a word comes through it, or it ends
  return due(self)

console.Console.due = obeying
"""

two_cores = pytest.mark.skipif(len(workers._cores()) < 2, reason="two processes need two cores")


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "few.py"
  path.write_text(FILE)
  return path


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
  monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
  """A sweep of two cells and one that fails: its folder, its table, what it said, and the data sets that it read."""
  folder, said, read, prepare = tmp_path_factory.mktemp("one"), io.StringIO(), [], data.prepare
  (folder / "few.py").write_text(FILE)
  with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
    patch.chdir(ROOT)
    patch.setattr(data, "prepare", lambda section, place: read.append(section["name"]) or prepare(section, place))
    table = sweep.sweep(f"{folder / 'few.py'}:wrong=1", str(folder / "out"))
  return types.SimpleNamespace(folder=folder / "out", table=table, said=said.getvalue(), read=read)


@pytest.fixture
def finished_cells(one, file, tmp_path):
  """A copy of the two finished cells for a sweep of the same without the third; returns their words in the table."""
  shutil.copytree(one.folder, tmp_path / "out", ignore=shutil.ignore_patterns("wrong-seed0", "sweep.txt"))
  return {name: words for name, words in one.table.words.items() if name not in one.table.failures}


def test_stopped_anywhere_and_continued_gives_the_table_of_one_left_alone(file, tmp_path):
  argument = f"{file}:seeds=2"
  alone = sweep.sweep(argument, str(tmp_path / "alone"))
  assert all(words.endswith("%") for words in alone.words.values())
  # A run has 24 steps or 12: at the end of the first cell, within the second, within the third after the second's end.
  for step, place in (
    (24, "before random"),
    (3, "random_keep0.5-seed0: .* after step 3"),
    (20, "full-seed1: .* step 11"),
  ):
    with pytest.MonkeyPatch.context() as patch:
      small_runs.interrupted_at(step, patch)
      with pytest.raises(interruption.Interrupted, match=place):
        sweep.sweep(argument, str(tmp_path / "stopped"))
  assert (tmp_path / "stopped" / "sweep.txt").read_text().endswith("2 done, 0 running, 2 to do, 0 failed\n")
  continued = sweep.sweep(argument, str(tmp_path / "stopped"))
  assert continued.table() == alone.table()
  assert (tmp_path / "stopped" / "sweep.txt").read_text() == alone.table() + "\n"
  resumed = [_summary(tmp_path / "stopped" / name)["resumed_from"] for name in alone.words]
  assert [] in resumed and any(resumed)
  _same_but_for_seconds(tmp_path / "stopped", tmp_path / "alone", alone.words)


def _summary(workdir):
  return json.loads(pathlib.Path(workdir, "summary.json").read_text())


def _same_but_for_seconds(one, other, names):
  """Asserts that two sweeps left the same behind, bit for bit, and that the report's main table says so."""
  for name in names:
    assert small_runs.lines(one / name) == small_runs.lines(other / name)
    summaries = [_summary(workdir / name) for workdir in (one, other)]
    for summary in summaries:
      for field in ("seconds", "ended", "resumed_from", "digest"):
        del summary[field]
    assert summaries[0] == summaries[1]
    np.testing.assert_equal(dict(np.load(one / name / "usage.npz")), dict(np.load(other / name / "usage.npz")))
  np.testing.assert_equal(_results(one), _results(other))


def _results(workdir):
  collected, left_out = groups.collect(finished.find([str(workdir)]))
  assert not left_out
  rows = tables.results(collected).rows
  return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in rows]


REGRESSION_FILE = """
from configs.sweeps import base

def get_sweep(arguments=""):
  fields = {"learning_rate": 0.01, "eval_batch_size": 64}
  config = "configs/digits.py:size=smoke,dataset=diabetes,task=regression"
  return base.Sweep(config, [base.methods(("full",)), base.seeds(1)], fields)
"""


def test_the_table_names_the_metric_of_the_task_with_its_direction(one, tmp_path):
  assert one.table.table().startswith("test accuracy, larger is better\n")
  (tmp_path / "regression.py").write_text(REGRESSION_FILE)
  error = sweep.sweep(str(tmp_path / "regression.py"), str(tmp_path / "regression"))
  assert error.table().startswith("test mean squared error, smaller is better\n")
  final = _summary(tmp_path / "regression" / "full-seed0")["final_test_mean_squared_error"]
  assert error.words == {"full-seed0": f"{final:.4f}"}
  # A later sweep reads both from the folders.
  assert sweep.sweep(str(tmp_path / "regression.py"), str(tmp_path / "regression")).table() == error.table()


def test_a_failed_cell_is_reported_and_the_rest_is_run_and_data_is_read_once(one):
  board = one.table
  assert board.words["wrong-seed0"] == "failed" and len(board.failures) == 1
  assert "selector.keep_fraction=1.5 must lie in (0, 1]" in board.failures["wrong-seed0"]
  assert "UserError" in (one.folder / "wrong-seed0" / "error.txt").read_text()
  assert "2 done, 0 running, 0 to do, 1 failed" in board.table()
  assert one.read == ["digits"]
  assert "--config=configs/digits.py:size=smoke,selector=random" in one.said
  assert "--config.selector.keep_fraction=1.5" in one.said


def test_a_finished_cell_is_neither_made_again_nor_taken_for_another(finished_cells, file, tmp_path, monkeypatch):
  out = tmp_path / "out"
  monkeypatch.setattr(offline, "train_and_evaluate", None)
  first = sweep.sweep(str(file), str(out))
  assert first.words == finished_cells and not first.failures
  assert sweep.sweep(str(file), str(out)).table() == first.table()
  file.write_text(FILE.replace("keep_fraction=0.5", "keep_fraction=0.50001").replace('"batch_size": 128', '"seed": 5'))
  assert "belongs to a different run" in sweep.sweep(str(file), str(out)).failures["full-seed0"]


def test_a_cell_whose_summary_is_torn_is_made_to_its_end(finished_cells, file, tmp_path):
  (tmp_path / "out" / "full-seed0" / "summary.json").write_text("")
  again = sweep.sweep(str(file), str(tmp_path / "out"))
  assert again.words == finished_cells and not again.failures
  assert f"{_summary(tmp_path / 'out' / 'full-seed0')['final_test_accuracy']:.2%}" == again.words["full-seed0"]


def test_a_cell_that_another_process_writes_is_reported_and_the_rest_is_run(file, tmp_path):
  out = tmp_path / "out"
  (out / "full-seed0").mkdir(parents=True)
  writing = lock.Lock(out / "full-seed0")  # as by a worker of a sweep that was killed
  assert writing.take(make=True)
  board = sweep.sweep(str(file), str(out))
  line = f"workdir={out / 'full-seed0'} is being written by process {os.getpid()}"
  assert board.failures == {"full-seed0": line}
  assert "1 done, 0 running, 0 to do, 1 failed" in board.table()
  assert {path.name for path in (out / "full-seed0").iterdir()} == {".lock", "error.txt"}
  writing.release()

  offline.train_and_evaluate(sweep.config_of(sweep.read_sweep(str(file))[0]), out / "full-seed0")  # it comes to its end
  assert writing.take(make=True)
  assert not sweep.sweep(str(file), str(out)).failures  # reading what is finished takes no lock
  assert not (out / "full-seed0" / "error.txt").exists()
  writing.release()


def _start(argument, workdir, *flags, **environment):
  command = [sys.executable, "-m", "experiments.sweep", f"--sweep={argument}", f"--workdir={workdir}", *flags]
  done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
  return done.returncode, done.stdout, done.stderr


def test_the_command_exits_with_one_after_a_failure_and_with_two_on_a_wrong_flag(file, tmp_path):
  status, said, errors = _start(f"{file}:wrong=1", tmp_path / "out")
  assert status == 1, errors
  assert "failed: wrong-seed0: selector.keep_fraction=1.5" in said
  with pytest.raises(options.UserError, match=r"^nowhere.py is not a file$"):
    sweep.sweep("nowhere.py", str(tmp_path / "never"))
  wrong = _start(file, tmp_path / "never", "--processes=0")
  assert wrong == (2, "", "error: processes=0 must be at least 1\n")
  assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
  ("processes", "platform", "line"),
  [
    (-1, "cpu", "processes=-1 must be at least 1"),
    (5, "cpu", "processes=5 is more than there are cores to share: 4"),
    (2, "tpu", "processes=2 is for runs on the CPU or on GPUs, and these run on tpu"),
  ],
)
def test_processes_that_there_cannot_be_are_refused(processes, platform, line, file, tmp_path, monkeypatch):
  monkeypatch.setattr(workers, "_cores", lambda: [0, 1, 2, 3])
  monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(platform=platform)])
  with pytest.raises(options.UserError, match=line):
    sweep.sweep(str(file), str(tmp_path / "out"), processes)
  assert not (tmp_path / "out").exists()


def test_processes_divide_the_gpus_and_the_memory_of_each():
  fraction, visible = "XLA_PYTHON_CLIENT_MEM_FRACTION", "CUDA_VISIBLE_DEVICES"
  assert workers.environments("cpu", 4, 2, {}) == [{}, {}]
  assert workers.environments("gpu", 1, 3, {}) == [{visible: "0", fraction: "0.300"}] * 3
  uneven = workers.environments("gpu", 2, 3, {visible: "5,7"})
  assert uneven == [{visible: "5", fraction: "0.450"}, {visible: "7", fraction: "0.900"}, uneven[0]]
  assert workers.environments("gpu", 1, 2, {fraction: "0.1"}) == [{visible: "0"}] * 2


@two_cores
def test_two_processes_make_what_one_does_and_report_a_failed_cell_alike(one, file, tmp_path, capfd):
  capfd.readouterr()
  two = sweep.sweep(f"{file}:wrong=1", str(tmp_path / "two"), processes=2)
  said = capfd.readouterr()
  assert two.table() == one.table.table() == (tmp_path / "two" / "sweep.txt").read_text().rstrip("\n")
  _same_but_for_seconds(tmp_path / "two", one.folder, [name for name in two.words if name not in two.failures])
  assert "UserError" in (tmp_path / "two" / "wrong-seed0" / "error.txt").read_text()
  assert "failed: selector.keep_fraction=1.5 must lie in (0, 1]\n  alone: python -m experiments.train" in said.err
  lines = said.out.splitlines()
  assert lines[:2] == [
    "full-seed0, 0 done, 1 running, 2 to do, 0 failed",
    "random_keep0.5-seed0, 0 done, 2 running, 1 to do, 0 failed",
  ]
  assert {line.partition(": epoch")[0] for line in lines if "epoch 2/2" in line} == {
    "full-seed0",
    "random_keep0.5-seed0",
  }


@two_cores
def test_two_processes_stopped_and_killed_and_continued_leave_what_one_left_alone_does(tmp_path, monkeypatch):
  orders = tmp_path / "orders"
  orders.mkdir()
  (tmp_path / "lab.py").write_text(LAB)
  (tmp_path / "few.py").write_text(LAB_FILE)

  def start(workdir, *flags, order=""):
    if order:
      (orders / order).touch()
    # Its end is that of the workers too, since they hold the same standard output.
    return _start(tmp_path / "few.py", workdir, *flags, ORDERS=str(orders), PYTHONPATH=str(tmp_path))

  monkeypatch.setenv("ORDERS", str(orders))
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(console.Console, "due", console.Console.due)  # to be put back: lab.py changes it
  table = sweep.sweep(str(tmp_path / "few.py"), str(tmp_path / "alone")).table()
  names = [f"keep{share}-seed{seed}" for seed in (0, 1) for share in (0.5, 0.7)]

  stopped = tmp_path / "stopped"
  status, said, errors = start(stopped, "--processes=2", order="SIGTERM-sweep")
  assert status == 0, errors
  assert "stopped by SIGTERM after step 3, and saved" in errors
  assert errors.endswith("; the same command continues the sweep\n")
  shares = [set(json.loads(found)) for found in re.findall(r"^keep\S+: cores (.*)$", said, re.MULTILINE)]
  assert [len(share) for share in shares] == [len(workers._cores()) // 2] * 2 and not shares[0] & shares[1]

  assert start(stopped, "--processes=2", order="SIGKILL-sweep")[0] == -signal.SIGKILL

  status, said, errors = start(stopped, "--processes=2", order="SIGKILL-worker")
  assert status == 1
  assert "3 done, 0 running, 0 to do, 1 failed" in said, errors
  (failed,) = re.findall(r"^failed: (\S+): its process was ended by SIGKILL, as when memory runs out$", said, re.M)
  assert "SIGKILL" in (stopped / failed / "error.txt").read_text()

  status, said, errors = start(stopped, "--processes=2")
  assert status == 0, errors
  assert said.splitlines()[-4:] == table.splitlines()[-4:]
  assert not (stopped / failed / "error.txt").exists()
  _same_but_for_seconds(stopped, tmp_path / "alone", names)
  # Whoever asked for the signals had its run saved by the first two.
  assert sum(len(_summary(stopped / name)["resumed_from"]) for name in names) >= 2
