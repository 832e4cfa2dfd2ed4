"""Makes the cells of a sweep in several processes, each in a place of its own: the sweep's side and the worker's.

    python -m experiments.sweeps.workers FD     # the command by which the sweep starts a worker; not for users

The two sides share only a pipe. The sweep sends a `Task`, and may later send the reason to stop, a string; the worker
answers each task with an `Outcome`. When one side ends, the other finds the pipe closed: a worker then saves its run
and ends, and a sweep starts another worker.
"""

import contextlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection
from typing import Any, NamedTuple, TextIO

import jax
from absl import logging

from configs.sweeps import base
from dynsel_jax import data, options
from dynsel_jax.runs.interruption import Interrupted, stop_requests
from experiments import programs
from experiments.sweeps.progress_table import ProgressTable
from experiments.sweeps.run_cell import Outcome, Task, make, prepare_once

__all__ = ["check", "environments", "run"]

_SECONDS = 0.2  # between two checks for a signal
_MEMORY = 0.9  # fraction of a GPU's memory that its processes may take
_FRACTION, _PREALLOCATE = "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE"
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def _cores() -> list[int]:
  """Returns the cores that this process may use."""
  return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _devices() -> list[Any]:
  """Returns the devices of this process, which shall not take the memory that its workers need."""
  before = os.environ.get(_PREALLOCATE)
  os.environ[_PREALLOCATE] = "false"
  try:
    return jax.local_devices()
  finally:
    os.environ.pop(_PREALLOCATE)
    if before is not None:
      os.environ[_PREALLOCATE] = before


def environments(platform: str, num_devices: int, processes: int, given: Mapping[str, str]) -> list[dict[str, str]]:
  """Returns what each of several processes adds to its environment: nothing on CPU, on GPUs one of them and memory.

  The processes of one GPU divide nine tenths of its memory, and run at the same time if NVIDIA's MPS does.

  Args:
    platform: "cpu" or "gpu".
    num_devices: of this process.
    processes: how many.
    given: the environment of this process, whose own choices of memory and of GPUs stand.
  """
  if platform == "cpu":
    return [{}] * processes
  gpus = given.get(_VISIBLE, "").split(",") if given.get(_VISIBLE) else [str(number) for number in range(num_devices)]
  added = []
  for number in range(processes):
    gpu = number % num_devices
    sharing = len(range(gpu, processes, num_devices))
    memory = {} if _FRACTION in given else {_FRACTION: f"{_MEMORY / sharing:.3f}"}
    added.append({_VISIBLE: gpus[gpu], **memory})
  return added


def check(processes: int) -> None:
  """Raises `UserError` unless this machine can make runs in so many processes."""
  if processes < 1:
    raise options.UserError(f"processes={processes} must be at least 1")
  if processes > 1:
    if processes > (cores := len(_cores())):
      raise options.UserError(f"processes={processes} is more than there are cores to share: {cores}")
    if (platform := _devices()[0].platform) not in ("cpu", "gpu"):
      raise options.UserError(f"processes={processes} is for runs on the CPU or on GPUs, and these run on {platform}")


@contextlib.contextmanager
def _confined(cores: list[int]) -> Iterator[None]:
  """Confines this thread to `cores`, and every process that it starts meanwhile, from its first instruction."""
  if not hasattr(os, "sched_setaffinity"):
    yield
    return
  before = os.sched_getaffinity(0)
  os.sched_setaffinity(0, cores)
  try:
    yield
  finally:
    os.sched_setaffinity(0, before)


class _Place(NamedTuple):
  """Where a process runs."""

  cores: list[int]
  environment: Mapping[str, str]


class _Worker:
  """One process, as the sweep sees it. It makes one cell at a time."""

  cell: base.Cell  # the last one that it was given

  def __init__(self, place: _Place):
    """Starts the process."""
    self.place = place
    self.pipe, theirs = multiprocessing.Pipe()
    command = [sys.executable, "-m", "experiments.sweeps.workers", str(theirs.fileno())]
    with theirs, _confined(place.cores):
      # In a session of its own: Ctrl-C would reach every process of the terminal's session, but it is the sweep that
      # asks its workers to stop.
      self.process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
        env={**os.environ, **place.environment},
      )

  def send(self, message: Task | str) -> None:
    """Sends a task, or the reason to stop. If the process is gone, `receive` returns None."""
    with contextlib.suppress(OSError):
      self.pipe.send(message)

  def receive(self) -> Outcome | None:
    """Returns the outcome of the cell, or None if the process is gone."""
    try:
      return self.pipe.recv()
    except (EOFError, OSError):
      self.pipe.close()
      return None

  def end(self) -> str:
    """Waits for the process to end, and says how it ended."""
    status = self.process.wait()
    if status >= 0:
      return f"its process ended with status {status}"
    how = f"its process was ended by {signal.Signals(-status).name}"
    return f"{how}, as when memory runs out" if status == -signal.SIGKILL else how


class _Pool:
  """The processes of a sweep, each idle or busy with one cell."""

  def __init__(self, table: ProgressTable, processes: int):
    """Divides the cores evenly, since the number of cores may change the last bits of a run; starts no process."""
    cores = _cores()
    each = len(cores) // processes
    self._table = table
    devices = _devices()
    added = environments(devices[0].platform, len(devices), processes, os.environ)
    # Places of no process.
    self._free = [_Place(cores[n * each : (n + 1) * each], added[n]) for n in range(processes)]
    self._idle: list[_Worker] = []
    self._told = False  # whether the busy processes were asked to stop
    self.busy: list[_Worker] = []
    self.stopped: list[str] = []  # descriptions of the cells that were stopped

  def has_room(self) -> bool:
    """Whether another cell can be begun."""
    return bool(self._idle or self._free)

  def begin(self, cell: base.Cell, task: Task) -> None:
    """Gives a cell to an idle process, or to a new one."""
    worker = self._idle.pop() if self._idle else _Worker(self._free.pop())
    worker.cell = cell
    self.busy.append(worker)
    self._table.begin(cell)
    worker.send(task)

  def collect(self) -> None:
    """Waits a moment for outcomes, and notes those that came."""
    ready = connection.wait([worker.pipe for worker in self.busy], _SECONDS)
    for worker in [worker for worker in self.busy if worker.pipe in ready]:
      self.busy.remove(worker)
      outcome = worker.receive()
      if outcome is None:
        self._free.append(worker.place)
        how = worker.end()
        outcome = Outcome("failed", how, f"{how}\n")
      else:
        self._idle.append(worker)
      self._table.end(worker.cell, outcome)
      if outcome.state == "stopped":
        self.stopped.append(f"{worker.cell.name}: {outcome.text}")

  def ask_to_stop(self, reason: str) -> None:
    """Asks the busy processes, once, to save their runs and stop."""
    if not self._told:
      for worker in self.busy:
        worker.send(reason)
    self._told = True

  def kill(self) -> None:
    """Ends the busy processes without waiting for anything to be saved."""
    for worker in self.busy:
      worker.process.kill()

  def close(self) -> None:
    """Closes every pipe, at which the processes end, and waits for them."""
    left = self._idle + self.busy
    for worker in left:
      worker.pipe.close()
    for worker in left:
      worker.end()


def run(
  waiting: Iterator[tuple[base.Cell, Task]], table: ProgressTable, stop: Callable[[], str], processes: int
) -> None:
  """Makes the cells in several processes; each takes the next cell when it is idle.

  Args:
    waiting: the cells to be made.
    table: receives the beginning and the outcome of each cell.
    stop: as `stop_requests` yields it.
    processes: how many; checked by `check`.

  Raises:
    Interrupted: a signal asked to stop, and the running cells have been saved.
  """
  pool, reason = _Pool(table, processes), ""
  try:
    while True:
      reason = reason or stop()
      if reason:
        pool.ask_to_stop(reason)
      while not reason and pool.has_room() and (following := next(waiting, None)):
        pool.begin(*following)
      if not pool.busy:
        break
      pool.collect()
      if pool.stopped:
        reason = reason or "a signal to another process"
  except KeyboardInterrupt:  # a second signal
    pool.kill()
    raise Interrupted("\n".join([*pool.stopped, "stopped"])) from None
  finally:
    table.left()
    pool.close()
  if pool.stopped:
    raise Interrupted("\n".join(pool.stopped))
  if following := next(waiting, None):
    raise Interrupted(f"stopped by {reason} before {following[0].name}")


class _Named(io.TextIOBase):
  """Writes lines to `stream` with a cell's name before each, since several cells write to the same terminal."""

  def __init__(self, name: str, stream: TextIO):
    self._name, self._stream, self._rest = name, stream, ""

  def write(self, text: str) -> int:
    *lines, self._rest = (self._rest + text).split("\n")
    if lines:
      with contextlib.suppress(OSError):  # the terminal may be gone with the sweep, but the run must still be saved
        self._stream.write("".join(f"{self._name}: {line}\n" for line in lines))
        self._stream.flush()
    return len(text)


def _serve(pipe: connection.Connection) -> None:
  """Makes the tasks that come through the pipe, until it is closed or a reason to stop comes."""
  prepare = prepare_once(data.prepare)
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
      if not reasons and pipe.poll():  # nothing else is sent while a cell is made
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
  programs.keep()
  with connection.Connection(int(sys.argv[1])) as inherited:
    os.set_inheritable(inherited.fileno(), False)
    _serve(inherited)
