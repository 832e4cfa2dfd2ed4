"""Makes every run of a sweep; the same command on the same workdir continues it.

    python -m experiments.sweep --sweep=configs/sweeps/digits_methods.py --workdir=runs/digits_methods [--processes=4]

Each cell is a run in a folder of its own, WORKDIR/CELL. Finished runs are kept, and an interrupted one continues from
its checkpoint. A run that fails leaves `error.txt` in its folder while the others go on; the next call tries it again.
WORKDIR/sweep.txt holds the table of the cells, with the final metric of those that are done.

With `--processes=N`, N runs are made at a time, each by a process on an equal number of cores and, on GPUs, on one GPU
with an equal part of its memory; they use a GPU at the same time if NVIDIA's MPS daemon runs. A signal to
this process makes all of them save and stop. If one of them dies, its run counts as failed, and another process takes
its place.
"""

import importlib.util
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType

import ml_collections
from absl import flags

from configs.sweeps import base
from dynsel_jax import data, options
from dynsel_jax.runs.interruption import Interrupted, stop_requests
from dynsel_jax.runs.workdir import check_writable
from experiments import cli
from experiments.sweeps import run_cell, workers
from experiments.sweeps.progress_table import ProgressTable


def _module(path: str) -> ModuleType:
  """Imports a Python file by its path."""
  if not pathlib.Path(path).is_file():
    raise options.UserError(f"{path} is not a file")
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def read_sweep(argument: str) -> list[base.Cell]:
  """Returns the cells of a sweep; `argument` is that of `--sweep`: a file, with arguments after a colon."""
  path, _, arguments = argument.partition(":")
  module = _module(path)
  if not hasattr(module, "get_sweep"):
    raise options.UserError(f"sweep={path} has no function get_sweep; configs/sweeps/base.py says how to write one")
  return base.cells(module.get_sweep(arguments))


def config_of(cell: base.Cell) -> ml_collections.ConfigDict:
  """Returns the config of one cell's run.

  Raises:
    UserError: a variant, a field or a value is wrong.
  """
  path, _, variants = cell.config.partition(":")
  config = _module(path).get_config(variants).lock()
  for name, value in cell.fields.items():
    try:
      config.update_from_flattened_dict({name: value})
    except (KeyError, AttributeError, TypeError) as error:
      words = " ".join(str(error.args[0] if error.args else error).split())
      raise options.UserError(f"cell {cell.name}: {name}={value!r} cannot be set: {words}") from None
  return config


def _waiting(
  cells: Sequence[base.Cell], configs: Mapping[str, ml_collections.ConfigDict], table: ProgressTable
) -> Iterator[tuple[base.Cell, run_cell.Task]]:
  """Yields the cells that are not finished; one whose folder belongs to another run is noted as failed."""
  for cell in cells:
    task = run_cell.Task(cell.name, configs[cell.name], table.workdir / cell.name)
    try:
      if run_cell.finished_summary(task) is None:
        yield cell, task
      else:  # perhaps another process finished it after it had failed here
        (task.folder / "error.txt").unlink(missing_ok=True)
    except options.UserError as error:
      table.failed(cell, run_cell.failure(error))


def _one_after_another(
  waiting: Iterator[tuple[base.Cell, run_cell.Task]], table: ProgressTable, stop: Callable[[], str]
) -> None:
  """Makes the cells in this process.

  Raises:
    Interrupted: a signal asked to stop.
  """
  prepare = run_cell.prepare_once(data.prepare)
  for cell, task in waiting:
    if stop():
      raise Interrupted(f"stopped by {stop()} before {cell.name}")
    table.begin(cell)
    outcome = run_cell.make(task, prepare=prepare, stop=stop)
    table.end(cell, outcome)
    if outcome.state == "stopped":
      raise Interrupted(f"{cell.name}: {outcome.text}")


def sweep(argument: str, workdir: str, processes: int = 1) -> ProgressTable:
  """Makes the runs of the sweep that are not finished; returns the table of all.

  Args:
    argument: see `read_sweep`.
    workdir: the folder that contains the runs' folders.
    processes: how many runs are made at a time; a single one is made in this process.

  Raises:
    UserError: the sweep or one of its configs is wrong, or this machine cannot run so many processes; no run was begun.
    Interrupted: SIGTERM or SIGINT came; the same call continues.
  """
  workdir = options.expand_home("workdir", workdir)
  workers.check(processes)
  cells = read_sweep(argument)
  configs = {cell.name: config_of(cell) for cell in cells}
  check_writable(workdir)
  table = ProgressTable(cells, pathlib.Path(workdir))
  waiting = _waiting(cells, configs, table)
  with stop_requests() as stop:
    try:
      if processes == 1:
        _one_after_another(waiting, table, stop)
      else:
        workers.run(waiting, table, stop, processes)
    finally:
      table.show(in_place=False)
  return table


def main() -> int:
  """Makes the runs, and prints the table."""
  try:
    table = sweep(flags.FLAGS.sweep, flags.FLAGS.workdir, flags.FLAGS.processes)
  except Interrupted as stopped:
    said = "\n".join(map(options.printable, str(stopped).split("\n")))  # a line for each process
    print(f"{said}; the same command continues the sweep", file=sys.stderr)
    return 0
  print(table.table())
  return 1 if table.failures else 0


if __name__ == "__main__":
  flags.DEFINE_string("sweep", None, "A file in configs/sweeps/, with arguments after a colon.", required=True)
  flags.DEFINE_string(
    "workdir", None, "The folder that contains the runs' folders; runs in it are continued.", required=True
  )
  flags.DEFINE_integer("processes", 1, "The number of runs made at a time, each by a process with cores of its own.")
  cli.run(main)
