"""Makes the runs of a sweep over learning rates and seeds; the same command on the same workdir continues it.

    python -m experiments.frontier --sweep=configs/sweeps/frontier.py --workdir=runs/frontier/cifar10 [--processes=4]

Every length of plain training and every method at a budget is tried at each learning rate for `--tuning_seeds` seeds;
the other seeds run only at the rate that was best on the validation set. `python -m experiments.report` on the workdir
draws the frontier and says of each method where it lies.

Runs that differ only by learning rate and seed share their compiled programs, one after another in one process, so
that many short runs cost little more than their steps. With `--processes=N` so many are at work, each on other methods.
On a GPU start the daemon of MPS first, and set XLA_PYTHON_CLIENT_PREALLOCATE=false. Finished runs are kept.
"""

import contextlib
import functools
import itertools
import multiprocessing
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from absl import flags

from configs.sweeps import base
from dynsel_jax import data, options
from dynsel_jax.runs.interruption import Interrupted, stop_requests
from dynsel_jax.runs.workdir import check_writable
from experiments import cli, programs, sweep
from experiments.sweeps import arms, one_program, run_cell

_SECONDS = 0.5  # between two checks for a signal

_hooks: dict[str, Any] = {}  # what the runs of this process share: data and programs


def _prepare_process(halted: Callable[[], bool] = lambda: False) -> None:
  """Makes what the runs of this process share; `halted` says whether the sweep was asked to stop."""
  programs.keep()
  _hooks.update(halted=halted, prepare=run_cell.prepare_once(data.prepare), build=one_program.build_once())


def _note(cell: base.Cell, outcome: run_cell.Outcome) -> None:
  where = sys.stderr if outcome.state == "failed" else sys.stdout
  line = f"{cell.name}: {outcome.state}, {outcome.text} in {outcome.seconds:.1f} s"
  print(options.printable(line), file=where, flush=True)


def _make(arm: arms.Arm, workdir: pathlib.Path, tuning_seeds: int) -> str:
  """Makes the runs of an arm in this process; returns the reason if it was stopped, else ""."""
  halted = _hooks["halted"]
  if halted():
    return f"stopped before {arm.name}"
  shared = {name: hook for name, hook in _hooks.items() if name != "halted"}
  try:
    with stop_requests() as signalled:
      shared["stop"] = lambda: signalled() or ("the end of the sweep" if halted() else "")
      arms.make(arm, workdir, tuning_seeds, sweep.config_of, _note, shared)
  except Interrupted as stopped:
    return str(stopped)
  return ""


def make_all(argument: str, workdir: str, tuning_seeds: int, processes: int = 1) -> None:
  """Makes the runs of a sweep that are not finished.

  Args:
    argument: as `sweep.read_sweep` takes it; each cell sets `learning_rate` and `seed`.
    workdir: the folder that contains the runs' folders.
    tuning_seeds: the number of seeds that run at every learning rate, at least 1.
    processes: how many make runs at a time; a single one is this process.

  Raises:
    UserError: a value is wrong; no run was begun.
    Interrupted: SIGTERM or SIGINT came; the same call continues.
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
    reasons = list(itertools.islice(filter(None, map(make, found)), 1))
  else:
    reasons = _in_processes(make, found, processes)
  if reasons:
    raise Interrupted("\n".join(reasons))


def _in_processes(make: functools.partial[str], found: list[arms.Arm], processes: int) -> list[str]:
  """Makes the arms in several processes; returns why those that were stopped were."""
  spawned, reasons = multiprocessing.get_context("spawn"), list[str]()
  halt = spawned.Event()
  with stop_requests() as stop, spawned.Pool(processes, _prepare_process, (halt.is_set,)) as pool:
    coming = pool.imap_unordered(make, found)
    while len(reasons) < len(found):
      if stop():
        halt.set()  # each run saves itself, and the arms that wait are not begun
      with contextlib.suppress(multiprocessing.TimeoutError):
        reasons.append(coming.next(timeout=_SECONDS))
  return [reason for reason in reasons if reason]


def main() -> int:
  """Makes the runs."""
  make_all(flags.FLAGS.sweep, flags.FLAGS.workdir, flags.FLAGS.tuning_seeds, flags.FLAGS.processes)
  return 0


if __name__ == "__main__":
  flags.DEFINE_string("sweep", None, "A file in configs/sweeps/, with arguments after a colon.", required=True)
  flags.DEFINE_string(
    "workdir", None, "The folder that contains the runs' folders; runs in it are continued.", required=True
  )
  flags.DEFINE_integer("tuning_seeds", 2, "The number of seeds that run at every learning rate.")
  flags.DEFINE_integer("processes", 1, "The number of processes that make runs at a time.")
  cli.run(main)
