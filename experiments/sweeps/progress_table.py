"""The table of a sweep's cells, on the terminal and in `sweep.txt`, and a line whenever a cell begins or ends."""

import collections
import pathlib
import shlex
import sys
from collections.abc import Sequence

from configs.sweeps import base
from dynsel_jax.metric import Metric
from dynsel_jax.options import printable
from experiments.sweeps import run_cell
from experiments.sweeps.run_cell import Outcome

__all__ = ["ProgressTable"]

_LONGEST = 100  # characters of a name in the table


def _command(cell: base.Cell, workdir: pathlib.Path) -> str:
  """Returns the command that makes the cell's run alone."""
  fields = [f"--config.{name}={value}" for name, value in cell.fields.items()]
  return shlex.join(["python", "-m", "experiments.train", f"--config={cell.config}", *fields, f"--workdir={workdir}"])


def _described(metric: Metric) -> str:
  return printable(f"test {metric.words}, {'larger' if metric.larger_is_better else 'smaller'} is better")


class ProgressTable:
  """The state of each cell: its final metric, or "running", "begun", "failed" or "-".

  The table has a row for each combination of the axes but the last, and a column for each point of the last.
  """

  def __init__(self, cells: Sequence[base.Cell], workdir: pathlib.Path):
    """Finds the runs that are finished already."""
    self.cells, self.workdir = cells, workdir
    self.metrics: dict[str, Metric] = {}  # of the finished cells
    self.words = {cell.name: self._found(cell) for cell in cells}
    self.failures: dict[str, str] = {}

  def _found(self, cell: base.Cell) -> str:
    folder = self.workdir / cell.name
    if run := run_cell.finished_run(folder):
      self.metrics[cell.name] = run.metric
      return run_cell.final_metric(run)
    return "begun" if (folder / "metrics.jsonl").exists() else "-"

  def begin(self, cell: base.Cell) -> None:
    """Notes and prints that a cell is running."""
    self.words[cell.name] = "running"
    self.show(in_place=sys.stdout.isatty())
    print(f"{printable(cell.name)}, {self.counts()}", flush=True)

  def end(self, cell: base.Cell, outcome: Outcome) -> None:
    """Notes and prints the outcome of a cell; the caller reports one that was stopped."""
    if outcome.state == "failed":
      self.failed(cell, outcome)
    else:
      self.words[cell.name] = self._found(cell) if outcome.state == "done" else "begun"
    self.show(in_place=sys.stdout.isatty())
    if outcome.state == "failed":
      alone = _command(cell, self.workdir / cell.name)
      print(f"failed: {printable(outcome.text)}\n  alone: {printable(alone)}", file=sys.stderr, flush=True)
    elif outcome.state == "done":
      print(f"{printable(cell.name)}: {printable(outcome.text)} in {outcome.seconds:.0f} s", flush=True)

  def failed(self, cell: base.Cell, outcome: Outcome) -> None:
    """Notes the error of a cell, and writes it to the cell's folder."""
    self.words[cell.name], self.failures[cell.name] = "failed", outcome.text
    run_cell.write_error(self.workdir / cell.name, outcome)

  def left(self) -> None:
    """Notes that the cells which were running no longer are."""
    self.words = {name: "begun" if word == "running" else word for name, word in self.words.items()}

  def table(self) -> str:
    """Returns the metric in words, the table, the counts, and the errors."""
    shown = {cell.name: tuple(printable(name, _LONGEST) for name in (cell.row, cell.column)) for cell in self.cells}
    columns = list(dict.fromkeys(column for _, column in shown.values()))
    rows: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for name, (row, column) in shown.items():
      rows[row][column] = printable(self.words[name], _LONGEST)
    first = max(map(len, rows))
    metrics = (self.metrics[cell.name] for cell in self.cells if cell.name in self.metrics)
    lines = list(dict.fromkeys(map(_described, metrics)))
    lines.append(" ".join([" " * first, *(f"{column:>9}" for column in columns)]))
    lines += [
      " ".join([f"{row:{first}}", *(f"{words.get(column, ''):>{max(9, len(column))}}" for column in columns)])
      for row, words in rows.items()
    ]
    lines += [self.counts(), *(printable(f"failed: {name}: {text}") for name, text in self.failures.items())]
    return "\n".join(lines)

  def counts(self) -> str:
    """Returns the numbers of cells that are done, running, to do and failed."""
    counts = collections.Counter(self.words.values())
    done = len(self.cells) - sum(counts[word] for word in ("failed", "running", "begun", "-"))
    to_do = counts["-"] + counts["begun"]
    return f"{done} done, {counts['running']} running, {to_do} to do, {counts['failed']} failed"

  def show(self, *, in_place: bool) -> None:
    """Writes the table to `sweep.txt`, and redraws it on a terminal if `in_place`."""
    self.workdir.mkdir(parents=True, exist_ok=True)
    partial = self.workdir / "sweep.txt.partial"
    partial.write_text(self.table() + "\n")
    partial.replace(self.workdir / "sweep.txt")
    if in_place:
      print(f"\x1b[2J\x1b[H{self.table()}\n", flush=True)
