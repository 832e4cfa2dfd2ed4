"""Makes the runs of a sweep over learning rates and seeds; the same command on the same workdir continues it.

    python -m experiments.frontier --sweep=configs/sweeps/frontier.py --workdir=runs/frontier/cifar10 [--processes=4]

Every length of plain training and every method at a budget is tried at each learning rate for `--tuning_seeds` seeds;
the other seeds run only at the rate that was best on the validation set. `python -m experiments.report` on the workdir
draws the frontier and says of each method where it lies. A run that fails leaves `error.txt` in its folder while the
others go on; the next call tries it again.

Runs that differ only by learning rate and seed share their compiled programs, one after another in one process, so
that many short runs cost little more than their steps. With `--processes=N` so many are at work, each on other methods.
On a GPU start the daemon of MPS first, and set XLA_PYTHON_CLIENT_PREALLOCATE=false. Finished runs are kept. If one of
the processes dies, the others save their runs, and the command ends with an error.
"""

import contextlib
import functools
import multiprocessing
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from absl import flags

from configs.sweeps import base
from dynsel_jax import data, options
from dynsel_jax.runs.interruption import Interrupted, RunFailedError, stop_requests
from dynsel_jax.runs.workdir import check_writable
from experiments import cli, programs, sweep
from experiments.sweeps import arms, one_program, run_cell

_SECONDS = 0.5  # between two checks for a signal

_hooks: dict[str, Any] = {}  # what the runs of this process share: data and programs


class _Made(NamedTuple):
  """What became of an arm."""

  stopped: str  # the reason if it was stopped, else ""
  failed: int  # number of its runs that failed


def _prepare_process(halted: Callable[[], bool] = lambda: False) -> None:
  """Makes what the runs of this process share; `halted` says whether the sweep was asked to stop."""
  programs.keep()
  _hooks.update(halted=halted, prepare=run_cell.prepare_once(data.prepare), build=one_program.build_once())


def _note(cell: base.Cell, outcome: run_cell.Outcome) -> None:
  where = sys.stderr if outcome.state == "failed" else sys.stdout
  line = f"{cell.name}: {outcome.state}, {outcome.text} in {outcome.seconds:.1f} s"
  print(options.printable(line), file=where, flush=True)


def _make(arm: arms.Arm, workdir: pathlib.Path, tuning_seeds: int) -> _Made:
  """Makes the runs of an arm in this process."""
  halted, failed = _hooks["halted"], list[str]()
  if halted():
    return _Made(f"stopped before {arm.name}", 0)
  shared = {name: hook for name, hook in _hooks.items() if name != "halted"}

  def note(cell: base.Cell, outcome: run_cell.Outcome) -> None:
    _note(cell, outcome)
    if outcome.state == "failed":
      run_cell.write_error(workdir / cell.name, outcome)
      failed.append(cell.name)

  try:
    with stop_requests() as signalled:
      shared["stop"] = lambda: signalled() or ("the end of the sweep" if halted() else "")
      arms.make(arm, workdir, tuning_seeds, sweep.config_of, note, shared)
  except Interrupted as stopped:
    return _Made(str(stopped), len(failed))
  return _Made("", len(failed))


def make_all(argument: str, workdir: str, tuning_seeds: int, processes: int = 1) -> int:
  """Makes the runs of a sweep that are not finished; returns how many of them failed.

  Args:
    argument: as `sweep.read_sweep` takes it; each cell sets `learning_rate` and `seed`.
    workdir: the folder that contains the runs' folders.
    tuning_seeds: the number of seeds that run at every learning rate, at least 1.
    processes: how many make runs at a time; a single one is this process.

  Raises:
    UserError: a value is wrong; no run was begun.
    Interrupted: SIGTERM or SIGINT came; the same call continues.
    RunFailedError: one of the processes died; the same call continues.
  """
  options.check_positive("tuning_seeds", tuning_seeds)
  options.check_positive("processes", processes)
  workdir = options.expand_home("workdir", workdir)
  cells = sweep.read_sweep(argument)
  for cell in cells:
    if not {"learning_rate", "seed"} <= cell.fields.keys():
      raise options.UserError(f"sweep={argument}: cell {cell.name} must set learning_rate and seed, each on an axis")
    sweep.config_of(cell)
  check_writable(workdir)
  found = arms.arms(cells)
  make = functools.partial(_make, workdir=pathlib.Path(workdir), tuning_seeds=tuning_seeds)
  if processes == 1:
    _prepare_process()
    made = list[_Made]()
    for arm in found:
      made.append(make(arm))
      if made[-1].stopped:
        break
  else:
    made = _in_processes(make, found, processes)
  if reasons := [one.stopped for one in made if one.stopped]:
    raise Interrupted("\n".join(reasons))
  return sum(one.failed for one in made)


def _in_processes(make: functools.partial[_Made], found: list[arms.Arm], processes: int) -> list[_Made]:
  """Makes the arms in several processes."""
  spawned, made, lost = multiprocessing.get_context("spawn"), list[_Made](), 0
  halt, others = spawned.Event(), set(multiprocessing.active_children())
  with stop_requests() as stop, spawned.Pool(processes, _prepare_process, (halt.is_set,)) as pool:
    begun = set(multiprocessing.active_children()) - others
    coming = pool.imap_unordered(make, found)
    while len(made) < len(found) - lost:  # a pool replaces a process that dies, and never answers for its arm
      if not stop():  # Ctrl-C ends those that wait for an arm
        lost = sum(not process.is_alive() for process in begun)
      if lost or stop():
        halt.set()  # each run saves itself, and the arms that wait are not begun
      with contextlib.suppress(multiprocessing.TimeoutError):
        made.append(coming.next(timeout=_SECONDS))
  if lost:
    raise RunFailedError(
      f"{lost} of {processes} processes died, as when memory runs out; finished runs are kept, and the same command"
      " makes the others"
    )
  return made


def main() -> int:
  """Makes the runs."""
  failed = make_all(flags.FLAGS.sweep, flags.FLAGS.workdir, flags.FLAGS.tuning_seeds, flags.FLAGS.processes)
  if failed:
    print(f"{failed} runs failed, see error.txt in the folder of each; the same command tries again", file=sys.stderr)
  return int(failed > 0)


if __name__ == "__main__":
  flags.DEFINE_string("sweep", None, "A file in configs/sweeps/, with arguments after a colon.", required=True)
  flags.DEFINE_string(
    "workdir", None, "The folder that contains the runs' folders; runs in it are continued.", required=True
  )
  flags.DEFINE_integer("tuning_seeds", 2, "The number of seeds that run at every learning rate.")
  flags.DEFINE_integer("processes", 1, "The number of processes that make runs at a time.")
  cli.run(main)
