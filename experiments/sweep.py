"""Makes every run of a sweep, one after another, or continues: the same command on the same workdir.

    python -m experiments.sweep --sweep=configs/sweeps/digits_methods.py --workdir=runs/digits_methods

Each cell is a run in a folder of its own, WORKDIR/CELL. Finished ones are kept, an interrupted one continues from its
checkpoint, and one that fails leaves `error.txt` in its folder while the others go on; it is tried again the next time.
WORKDIR/sweep.txt always holds the table of what is done, running, to do and failed.
"""

import collections
import contextlib
import importlib.util
import json
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import ml_collections
from absl import flags

from configs.sweeps import base
from dynsel_jax import cache, data, options
from dynsel_jax.training import loop
from dynsel_jax.training.workdir import Workdir, check_writable
from experiments import cli


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
  """Returns the cells of the sweep file that `argument` names, as `--sweep` takes it."""
  path, _, arguments = argument.partition(":")
  module = _module(path)
  if not hasattr(module, "get_sweep"):
    raise options.UserError(f"sweep={path} has no get_sweep")
  return base.cells(module.get_sweep(arguments))


def config_of(cell: base.Cell) -> ml_collections.ConfigDict:
  """Returns the config of one cell's run.

  Raises:
    UserError: a variant, a field or a value of it is wrong.
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


def command(cell: base.Cell, workdir: str) -> str:
  """Returns the command that makes the cell's run alone."""
  fields = "".join(f" --config.{name}={value}" for name, value in cell.fields.items())
  return f"python -m experiments.train --config={cell.config}{fields} --workdir={workdir}"


class Board:
  """What is known of each cell, as a table: a row for each combination of the axes but the last."""

  def __init__(self, cells: Sequence[base.Cell], workdir: pathlib.Path):
    """Finds the runs that are finished already."""
    self.cells, self.workdir = cells, workdir
    self.words = {cell.name: self._found(cell) for cell in cells}
    self.failures: dict[str, str] = {}

  def _found(self, cell: base.Cell) -> str:
    folder = self.workdir / cell.name
    with contextlib.suppress(FileNotFoundError):
      return _accuracy(json.loads((folder / "summary.json").read_text()))
    return "begun" if (folder / "metrics.jsonl").exists() else "-"

  def note(self, cell: base.Cell, word: str) -> None:
    """Notes how a cell stands: its accuracy, "running", or "begun"."""
    self.words[cell.name] = word

  def failed(self, cell: base.Cell, error: BaseException) -> None:
    """Notes the error of a cell, and writes it to the cell's folder."""
    self.words[cell.name] = "failed"
    lines = str(error).strip().splitlines()
    kind = "" if isinstance(error, options.UserError) else f"{type(error).__name__}: "
    self.failures[cell.name] = kind + (lines[0] if lines else "")
    folder = self.workdir / cell.name
    with contextlib.suppress(OSError):
      folder.mkdir(parents=True, exist_ok=True)
      (folder / "error.txt").write_text("".join(traceback.format_exception(error)))

  def table(self) -> str:
    """Returns the table, the counts beneath it, and the errors."""
    columns = list(dict.fromkeys(cell.column for cell in self.cells))
    rows: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for cell in self.cells:
      rows[cell.row][cell.column] = self.words[cell.name]
    first = max(map(len, rows))
    lines = [" ".join([" " * first, *(f"{column:>9}" for column in columns)])]
    lines += [
      " ".join([f"{row:{first}}", *(f"{words.get(column, ''):>{max(9, len(column))}}" for column in columns)])
      for row, words in rows.items()
    ]
    lines += [self.counts(), *(f"failed: {name}: {text}" for name, text in self.failures.items())]
    return "\n".join(lines)

  def counts(self) -> str:
    """Returns how many cells are done, running, to do and failed."""
    counts = collections.Counter(self.words.values())
    done = len(self.cells) - sum(counts[word] for word in ("failed", "running", "begun", "-"))
    to_do = counts["-"] + counts["begun"]
    return f"{done} done, {counts['running']} running, {to_do} to do, {counts['failed']} failed"

  def show(self, *, in_place: bool) -> None:
    """Writes the table to `sweep.txt`, and draws it anew on a terminal if `in_place`."""
    self.workdir.mkdir(parents=True, exist_ok=True)
    partial = self.workdir / "sweep.txt.partial"
    partial.write_text(self.table() + "\n")
    partial.replace(self.workdir / "sweep.txt")
    if in_place:
      print(f"\x1b[2J\x1b[H{self.table()}\n", flush=True)


def _accuracy(summary: Mapping[str, Any]) -> str:
  return f"{summary['final_test_accuracy']:.2%}"


def _finished(config: ml_collections.ConfigDict, folder: pathlib.Path) -> dict[str, Any] | None:
  """Returns the summary of a finished run, without building anything; None if it is not finished.

  Raises:
    UserError: the folder holds a run of another config.
  """
  held = Workdir(str(folder))
  held.check_same_run({"config": config.to_dict()})
  return held.read_summary()


def _remembering_the_last(prepare: Callable[..., data.Source]) -> Callable[..., data.Source]:
  """Returns `data.prepare` such that runs on the same data, one after another, read it once."""
  held: dict[str, data.Source] = {}

  def remembered(section: Mapping[str, Any], cache_dir: str) -> data.Source:
    key = json.dumps([section, cache_dir], sort_keys=True)
    if key not in held:
      held.clear()
      held[key] = prepare(section, cache_dir)
    return held[key]

  return remembered


def _run(cell: base.Cell, config: ml_collections.ConfigDict, board: Board, **hooks: Any) -> None:
  """Makes or continues one run, and notes on the board what became of it.

  Raises:
    Interrupted: a signal asked to stop.
  """
  folder, start = board.workdir / cell.name, time.perf_counter()
  board.note(cell, "running")
  board.show(in_place=sys.stdout.isatty())
  print(f"{cell.name}, {board.counts()}", flush=True)
  (folder / "error.txt").unlink(missing_ok=True)
  try:
    summary = loop.train_and_evaluate(config, folder, **hooks).summary
  except (loop.Interrupted, KeyboardInterrupt) as stopped:
    board.note(cell, "begun")
    raise loop.Interrupted(f"{cell.name}: {stopped or 'stopped'}") from None
  except Exception as error:  # whatever it is, the other cells can still be run
    board.failed(cell, error)
    print(f"failed: {board.failures[cell.name]}\n  alone: {command(cell, str(folder))}", file=sys.stderr, flush=True)
  else:
    board.note(cell, _accuracy(summary))
    print(f"{cell.name}: {_accuracy(summary)} in {time.perf_counter() - start:.0f} s", flush=True)
  jax.clear_caches()  # the next cell's programs are its own; those that are alike are found in the cache on disk


def sweep(argument: str, workdir: str) -> Board:
  """Makes the runs of the sweep that are not finished; returns what became of each.

  Raises:
    UserError: the sweep or one of its configs is wrong; nothing has been run.
    Interrupted: SIGTERM or SIGINT came; the same call continues.
  """
  cells = read_sweep(argument)
  configs = {cell.name: config_of(cell) for cell in cells}
  check_writable(workdir)
  board = Board(cells, pathlib.Path(workdir))
  prepare = _remembering_the_last(data.prepare)
  with loop.stop_requests() as stop:
    try:
      for cell in cells:
        if stop():
          raise loop.Interrupted(f"stopped by {stop()} before {cell.name}")
        try:
          summary = _finished(configs[cell.name], board.workdir / cell.name)
        except options.UserError as error:
          board.failed(cell, error)
          continue
        if summary is None:
          _run(cell, configs[cell.name], board, prepare=prepare, stop=stop)
    finally:
      board.show(in_place=False)
  return board


def main() -> int:
  """Makes the runs, and prints the table."""
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir", str(cache.default_directory() / "programs"))
  try:
    board = sweep(flags.FLAGS.sweep, flags.FLAGS.workdir)
  except loop.Interrupted as stopped:
    print(f"{stopped}; the same command continues the sweep", file=sys.stderr)
    return 0
  print(board.table())
  return 1 if board.failures else 0


if __name__ == "__main__":
  flags.DEFINE_string("sweep", None, "A file of configs/sweeps/, with arguments after a colon.", required=True)
  flags.DEFINE_string("workdir", None, "The folder of the runs' folders: made, or continued.", required=True)
  cli.run(main)
