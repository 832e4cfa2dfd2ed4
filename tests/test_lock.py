"""One run at a time writes a folder; the next one is refused, and a run that died leaves nothing in the way."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from dynsel_jax import options
from dynsel_jax.runs import lock
from dynsel_jax.runs.interruption import Interrupted, RunFailedError
from dynsel_jax.training import loop, setup, trainer
from tests.support import ROOT, small_runs

# A process that trains and stands still within its first epoch.
WRITING = """
import sys, signal, pytest
from tests import conftest
from tests.support import small_runs
small_runs.interrupted_at(5, pytest.MonkeyPatch(), signal.SIGSTOP)
small_runs.train(small_runs.config(checkpoint_every_steps=2), sys.argv[1])
"""


def _contents(folder):
  return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def _free(folder):
  """Whether the lock can be taken: a file of this process that were left open would hold it too."""
  trying = lock.Lock(folder)
  taken = trying.take(make=False)
  trying.release()
  return taken


def test_a_second_run_is_refused_and_goes_on_once_the_first_is_killed(tmp_path):
  _, alone = small_runs.train(small_runs.config(checkpoint_every_steps=2), tmp_path / "alone")
  workdir = tmp_path / "run"
  first = subprocess.Popen([sys.executable, "-c", WRITING, str(workdir)], cwd=ROOT)
  try:
    _, status = os.waitpid(first.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    before = _contents(workdir)
    with pytest.raises(options.UserError) as refused:
      small_runs.train(small_runs.config(checkpoint_every_steps=2), workdir)
    assert str(refused.value) == f"workdir={workdir} is being written by process {first.pid}"
    assert _contents(workdir) == before
  finally:
    first.kill()
    assert first.wait() == -signal.SIGKILL
  summary, state = small_runs.train(small_runs.config(checkpoint_every_steps=2), workdir)
  assert summary["resumed_from"]
  small_runs.same_state(state, alone)


def test_a_run_that_begins_while_another_is_built_is_not_written_over(tmp_path):
  other = lock.Lock(tmp_path)

  def overtaken(*arguments):
    assert other.take(make=True)
    return setup.build(*arguments)

  with pytest.raises(options.UserError, match=f"is being written by process {os.getpid()}"):
    loop.train_and_evaluate(small_runs.config(), tmp_path, small_runs.devices(1), build=overtaken)
  other.release()
  assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_the_lock_is_free_once_a_run_ends_however_it_does(tmp_path, monkeypatch):
  with monkeypatch.context() as patched:
    small_runs.interrupted_at(5, patched)
    with pytest.raises(Interrupted):
      small_runs.train(small_runs.config(), tmp_path)
  assert _free(tmp_path)
  with monkeypatch.context() as patched:
    patched.setattr(trainer.Trainer, "finish", None)
    with pytest.raises(RunFailedError):
      small_runs.train(small_runs.config(), tmp_path)
  assert _free(tmp_path)
  summary, _ = small_runs.train(small_runs.config(), tmp_path)
  assert small_runs.train(small_runs.config(), tmp_path)[0] == summary  # finished
  assert _free(tmp_path)


def test_a_wrong_value_leaves_no_lock_behind(tmp_path):
  with pytest.raises(options.UserError, match="keep_fraction"):
    small_runs.train(small_runs.config(selector__keep_fraction=2.0), tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_written_without_one(tmp_path, monkeypatch, caplog):
  asked = []

  def unsupported(descriptor, _):
    asked.append(descriptor)
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

  monkeypatch.setattr(fcntl, "flock", unsupported)
  assert lock.Lock(tmp_path).take(make=True)
  with pytest.raises(OSError, match="Bad file descriptor"):
    os.fstat(asked[0])  # not left open
  small_runs.train(small_runs.config(epochs=1), tmp_path)
  assert (tmp_path / "summary.json").exists()
  assert "cannot be locked (Operation not supported)" in caplog.text
