"""Stopping and continuing: the same bits as a run left alone, on the same and on other devices."""

import json
import random
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from dynsel_jax import options
from dynsel_jax.models import mlp
from dynsel_jax.runs import files
from dynsel_jax.runs.interruption import Interrupted, NonFiniteError, RunFailedError
from dynsel_jax.tasks import classification
from dynsel_jax.training import loop, trainer
from tests.support import ROOT, small_runs

# A process that trains on digits and kills itself without warning after a number of its steps.
KILLED = """
import sys, signal, pytest
from tests import conftest
from tests.support import small_runs
workdir, selector, steps = sys.argv[1:]
small_runs.interrupted_at(int(steps), pytest.MonkeyPatch(), signal.SIGKILL)
small_runs.train(small_runs.config(selector, model="resnet_patch", epochs=3, checkpoint_every_steps=4), workdir)
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  """A run left alone, three epochs of at most 12 steps."""
  workdir = tmp_path_factory.mktemp("alone")
  made = small_runs.config("infobatch", model="resnet_patch", epochs=3, checkpoint_every_steps=4)
  return workdir, made, small_runs.train(made, workdir)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
  """The same of a smaller network."""
  workdir = tmp_path_factory.mktemp("small")
  made = small_runs.config("infobatch", epochs=3, checkpoint_every_steps=4)
  return workdir, made, small_runs.train(made, workdir)


def test_killed_at_three_random_steps_gives_the_same_bits(alone, tmp_path):
  workdir, made, (summary, state) = alone
  kills = [random.SystemRandom().randrange(1, 13) for _ in range(3)]
  for steps in kills:
    done = subprocess.run(
      [sys.executable, "-c", KILLED, str(tmp_path), "infobatch", str(steps)],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
    assert done.returncode == -signal.SIGKILL, f"killed after {kills} steps: {done.stderr}"
  continued, same = small_runs.train(made, tmp_path)
  small_runs.same_state(state, same)
  assert small_runs.lines(tmp_path) == small_runs.lines(workdir), f"killed after {kills} steps"
  different = {"seconds", "ended", "resumed_from"}
  assert {k: v for k, v in continued.items() if k not in different} == {
    k: v for k, v in summary.items() if k not in different
  }
  one, other = np.load(workdir / "usage.npz"), np.load(tmp_path / "usage.npz")
  np.testing.assert_array_equal(one["visits"], other["visits"])
  np.testing.assert_array_equal(one["last_loss"], other["last_loss"])


# Three epochs of 12 steps or fewer; with es, the second one is thinned.
@pytest.mark.parametrize("selector", ["infobatch", "es", "kakurenbo"])
def test_sigterm_saves_where_it_was_and_continues(selector, tmp_path):
  made = small_runs.config(selector, epochs=3, checkpoint_every_steps=4, **ONE_EPOCH_OF_ES if selector == "es" else {})
  _, state = small_runs.train(made, tmp_path / "alone")
  lines = small_runs.lines(tmp_path / "alone")
  first_end, end = lines[0]["step"], lines[-1]["step"]
  # One run is stopped at all places: at the end of an epoch, within the next, and where nothing is left to stop.
  workdir, stops, done = tmp_path / "stopped", [first_end, first_end + 3], 0
  for step in stops:
    with pytest.MonkeyPatch.context() as patch:
      small_runs.interrupted_at(step - done, patch)
      with pytest.raises(Interrupted, match=f"SIGTERM after step {step}, and saved"):
        small_runs.train(made, workdir)
    done = step
  with pytest.MonkeyPatch.context() as patch:
    small_runs.interrupted_at(end - done, patch)
    summary, same = small_runs.train(made, workdir)
  assert summary["resumed_from"] == stops
  small_runs.same_state(state, same)
  assert small_runs.lines(workdir) == lines
  assert small_runs.train(made, workdir)[0] == summary  # finished, and left as it is


ONE_EPOCH_OF_ES = {"selector__anneal_first": 0.4, "selector__anneal_last": 0.4}


@pytest.mark.parametrize("place", ["evaluate", "write_epoch", "save", "write_usage"])
def test_a_crash_between_steps_loses_nothing_either(small, tmp_path, place):
  workdir, made, (_, state) = small
  owner = trainer.Trainer if place in ("evaluate", "save") else loop.Workdir
  original, calls = getattr(owner, place), []

  def crashing(self, *args):
    calls.append(None)
    if place == "write_epoch" and len(calls) == 2:
      original(self, *args)  # written, but not yet saved
    if len(calls) == (1 if place == "write_usage" else 2):
      raise KeyboardInterrupt
    return original(self, *args)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(owner, place, crashing)
    with pytest.raises(KeyboardInterrupt):
      small_runs.train(made, tmp_path)
  _, same = small_runs.train(made, tmp_path)
  small_runs.same_state(state, same)
  assert small_runs.lines(tmp_path) == small_runs.lines(workdir)


@pytest.mark.parametrize("module", ["classification", "mlp"])
def test_a_signal_while_a_users_functions_are_checked_is_no_mistake_of_theirs(module, tmp_path, monkeypatch):
  owner, name = {"classification": (classification, "cross_entropy"), "mlp": (mlp.MLP, "__call__")}[module]
  monkeypatch.setattr(owner, name, lambda *_, **__: signal.raise_signal(signal.SIGTERM))
  with pytest.raises(Interrupted, match="stopped by SIGTERM before the first step"):
    small_runs.train(small_runs.config("full"), tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("torn", [b"", b'{"final_test_accuracy": 0.', b"\0\0"])
def test_a_torn_summary_is_written_anew(small, tmp_path, torn):
  finished, made, (summary, state) = small
  workdir = tmp_path / "run"
  shutil.copytree(finished, workdir)
  (workdir / "summary.json").write_bytes(torn)
  again, same = small_runs.train(made, workdir)
  small_runs.same_state(state, same)
  assert small_runs.lines(workdir) == small_runs.lines(finished)
  assert files.read_json(workdir / "summary.json") == again
  assert again | {"seconds": 0, "ended": 0} == summary | {"seconds": 0, "ended": 0}


def test_the_command_says_how_to_continue_and_exits_with_zero(tmp_path):
  program = (
    "import runpy, pytest; from tests import conftest; from tests.support import small_runs; "
    "small_runs.interrupted_at(3, pytest.MonkeyPatch()); runpy.run_module('experiments.train', run_name='__main__')"
  )
  arguments = ["--config=configs/digits.py:size=smoke", f"--workdir={tmp_path}"]
  done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "stopped by SIGTERM after step 3, and saved; the same command continues it" in done.stderr


def test_saved_on_two_devices_continues_on_one_and_on_four(alone, tmp_path):
  _, made, (_, state) = alone
  with pytest.MonkeyPatch.context() as patch:
    small_runs.interrupted_at(15, patch)
    with pytest.raises(Interrupted):
      small_runs.train(made, tmp_path / "two", 2)
  for num_devices in (1, 4):
    workdir = tmp_path / str(num_devices)
    shutil.copytree(tmp_path / "two", workdir)
    summary, continued = small_runs.train(made, workdir, num_devices)
    assert summary["resumed_from"] == [15]
    _assert_close(state, continued)


def test_one_two_and_four_devices_train_alike(alone, tmp_path):
  workdir, made, (_, state) = alone
  for num_devices in (2, 4):
    _, other = small_runs.train(made, tmp_path / str(num_devices), num_devices)
    _assert_close(state, other)


def _assert_close(one, other):
  """Asserts the same run up to float rounding: parameters, statistics, and the same samples visited."""
  for name in ("params", "batch_stats"):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
      getattr(one.train, name),
      getattr(other.train, name),
    )
  np.testing.assert_array_equal(one.usage.visits, other.usage.visits)


@pytest.fixture
def _standard_promotion():
  """optax's Adam, which fits the factors, mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.mark.usefixtures("_standard_promotion")
def test_the_offline_stage_counts_though_a_run_was_stopped_before_it_was_ever_saved(tmp_path):
  options_of_factors = {"features__components": 16, "factors__epochs": 5, "factors__k": 4}
  made = small_runs.config("rrd", checkpoint_every_steps=0, cache_dir=str(tmp_path / "cache"), **options_of_factors)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(trainer.Trainer, "compile", lambda _: 1 / 0)
    with pytest.raises(RunFailedError, match="ZeroDivisionError: .*; no checkpoint had been saved; the same command"):
      small_runs.train(made, tmp_path / "run")
  begun = json.loads((tmp_path / "run" / "config.json").read_text())["seconds"]
  assert begun["features"] > 0 and begun["factors"] > 0
  seconds = small_runs.train(made, tmp_path / "run")[0]["seconds"]  # reads the columns and makes no factors
  assert seconds["features"] == begun["features"] and seconds["factors"] == begun["factors"]
  assert seconds["total"] > begun["total"]


def test_a_workdir_of_another_config_is_refused_with_the_fields_named(alone):
  workdir, made, _ = alone
  changed = made.copy_and_resolve_references()
  changed.learning_rate = 0.01
  changed.selector.prune_probability = 0.25
  before = sorted(path.name for path in workdir.iterdir())
  with pytest.raises(options.UserError) as refused:
    small_runs.train(changed, workdir)
  assert "learning_rate (0.1 there, 0.01 here)" in str(refused.value)
  assert "selector.prune_probability (0.5 there, 0.25 here)" in str(refused.value)
  assert "epochs" not in str(refused.value)
  assert before == sorted(path.name for path in workdir.iterdir())


def test_a_loss_that_is_not_finite_stops_with_the_step_named_and_the_last_good_checkpoint_kept(tmp_path):
  made = small_runs.config("full", checkpoint_every_steps=4, learning_rate=1e-3)
  made.schedule = {"name": "multi_step", "milestones": (0.5,), "factor": 1e30}
  with pytest.raises(NonFiniteError, match=r"step 1[3-6]: .* the checkpoint of step 12 is kept"):
    small_runs.train(made, tmp_path)
  assert not (tmp_path / "summary.json").exists()
  assert (tmp_path / "checkpoints" / "12").is_dir()
