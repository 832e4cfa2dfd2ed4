"""Cells made by several processes at a time, each on cores of its own: the sweep's side, and that of a worker.

    python -m experiments.sweeps.workers FD     # as the sweep starts a worker, never by hand

The two ends of a pipe are all that they share. The sweep sends a `Task` and later, perhaps, the reason to stop, a
string; the worker answers each task with an `Outcome`. The end of the one is the end of the pipe for the other: a
worker whose sweep is gone saves its run and ends, and a sweep whose worker is gone puts another in its place.
"""

import contextlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import connection
from typing import TextIO

import jax
from absl import logging

from configs.sweeps import base
from dynsel_jax import data, options
from dynsel_jax.runs.interruption import Interrupted, stop_requests
from experiments.sweeps.progress_table import ProgressTable
from experiments.sweeps.run_cell import Outcome, Task, keep_programs, make, remembering_the_last

__all__ = ["check", "run"]

_SECONDS = 0.2  # between two looks at whether a signal came


def _cores() -> list[int]:
  """Returns the cores that this process may use."""
  return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def check(processes: int) -> None:
  """Raises `UserError` unless the machine has what so many processes need."""
  if processes < 1:
    raise options.UserError(f"processes={processes} must be at least 1")
  if processes > 1:
    if processes > (cores := len(_cores())):
      raise options.UserError(f"processes={processes} is more than there are cores to share: {cores}")
    if (platform := jax.default_backend()) != "cpu":
      raise options.UserError(f"processes={processes} is for runs on the CPU, and these run on {platform}")


@contextlib.contextmanager
def _confined(cores: list[int]) -> Iterator[None]:
  """Confines this thread, and so what it starts: a process that is born confined cannot count other cores first."""
  if not hasattr(os, "sched_setaffinity"):
    yield
    return
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, cores)
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


class _Worker:
  """The sweep's view of one process, which makes a cell at a time."""

  cell: base.Cell  # the one that it was given last

  def __init__(self, cores: list[int]):
    """Starts the process."""
    self.cores = cores
    self.pipe, theirs = multiprocessing.Pipe()
    command = [sys.executable, "-m", "experiments.sweeps.workers", str(theirs.fileno())]
    with theirs, _confined(cores):
      # In a session of its own, since Ctrl-C goes to every process of the terminal's: the sweep alone passes it on.
      self.process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
      )

  def send(self, message: Task | str) -> None:
    """Sends a task, or the reason to stop. If the process is gone, `receive` will say so."""
    with contextlib.suppress(OSError):
      self.pipe.send(message)

  def receive(self) -> Outcome | None:
    """Returns what became of the cell, or None if the process is gone."""
    try:
      return self.pipe.recv()
    except (EOFError, OSError):
      self.pipe.close()
      return None

  def end(self) -> str:
    """Waits for the process to end, and returns how it did."""
    status = self.process.wait()
    if status >= 0:
      return f"its process ended with status {status}"
    how = f"its process was ended by {signal.Signals(-status).name}"
    return f"{how}, as when memory runs out" if status == -signal.SIGKILL else how


def run(
  waiting: Iterator[tuple[base.Cell, Task]], table: ProgressTable, stop: Callable[[], str], processes: int
) -> None:
  """Makes the cells in so many processes, a free one taking the next.

  Args:
    waiting: what is to be made.
    table: is told what begins and ends.
    stop: as `stop_requests` yields it.
    processes: how many; `check` has allowed it.

  Raises:
    Interrupted: a signal asked to stop, and the running cells have been saved.
  """
  cores = _cores()
  each = len(cores) // processes  # as many for all: what a run computes may depend on it, in its last bits
  shares = [cores[number * each : (number + 1) * each] for number in range(processes)]  # of no worker yet
  idle: list[_Worker] = []
  busy: list[_Worker] = []
  stopped: list[str] = []
  reason, passed_on = "", False
  try:
    while True:
      reason = reason or stop()
      if reason and not passed_on:
        for worker in busy:
          worker.send(reason)
        passed_on = True
      while not reason and (idle or shares) and (following := next(waiting, None)):
        worker = idle.pop() if idle else _Worker(shares.pop())
        worker.cell, task = following
        busy.append(worker)
        table.begin(worker.cell)
        worker.send(task)
      if not busy:
        break
      ready = connection.wait([worker.pipe for worker in busy], _SECONDS)
      for worker in [worker for worker in busy if worker.pipe in ready]:
        busy.remove(worker)
        outcome = worker.receive()
        if outcome is None:
          shares.append(worker.cores)
          how = worker.end()
          outcome = Outcome("failed", how, f"{how}\n")
        else:
          idle.append(worker)
        table.end(worker.cell, outcome)
        if outcome.state == "stopped":
          stopped.append(f"{worker.cell.name}: {outcome.text}")
          reason = reason or "a signal to another process"
  except KeyboardInterrupt:  # a second signal, which does not wait for anything to be saved
    for worker in busy:
      worker.process.kill()
    raise Interrupted("\n".join([*stopped, "stopped"])) from None
  finally:
    table.left()
    left = idle + busy
    for worker in left:
      worker.pipe.close()
    for worker in left:
      worker.end()
  if stopped:
    raise Interrupted("\n".join(stopped))
  if following := next(waiting, None):
    raise Interrupted(f"stopped by {reason} before {following[0].name}")


class _Named(io.TextIOBase):
  """Puts a cell's name before each line of `stream`, where the lines of several cells meet."""

  def __init__(self, name: str, stream: TextIO):
    self._name, self._stream, self._rest = name, stream, ""

  def write(self, text: str) -> int:
    *lines, self._rest = (self._rest + text).split("\n")
    if lines:
      with contextlib.suppress(OSError):  # the terminal may be gone with the sweep, and the run is still to be saved
        self._stream.write("".join(f"{self._name}: {line}\n" for line in lines))
        self._stream.flush()
    return len(text)


def _serve(pipe: connection.Connection) -> None:
  """Makes what comes through the pipe, until it ends or a reason to stop comes."""
  prepare = remembering_the_last(data.prepare)
  reasons: list[str] = []

  def receive() -> Task | None:
    try:
      message = pipe.recv()
    except (EOFError, OSError):
      message = "the end of the sweep"
    if isinstance(message, str):
      reasons.append(message)
      return None
    return message

  with stop_requests() as signalled:

    def stop() -> str:
      if not reasons and pipe.poll():  # while a cell is made nothing comes but a reason to stop
        receive()
      return reasons[0] if reasons else signalled()

    while not reasons and (task := receive()):
      out, err = _Named(task.name, sys.stdout), _Named(task.name, sys.stderr)
      with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        outcome = make(task, prepare=prepare, stop=stop)
      with contextlib.suppress(OSError):
        pipe.send(outcome)


if __name__ == "__main__":
  logging.set_verbosity(logging.WARNING)
  keep_programs()
  with connection.Connection(int(sys.argv[1])) as inherited:
    os.set_inheritable(inherited.fileno(), False)
    _serve(inherited)
