"""Tables as rows of numbers, with columns that format them for a reader. Pure functions.

A row maps names to numbers and goes unrounded into CSV. A statistic `name` is stored under `name_mean`, `name_sd`,
`name_n`, a paired difference under `name_mean`, `name_low`, `name_high`, `name_n`.
"""

import csv
import io
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from dynsel_jax.options import printable
from dynsel_jax.report import escape
from dynsel_jax.report.groups import Difference, Group, Spread
from dynsel_jax.runs.finished import Metric

__all__ = [
  "METHOD",
  "Column",
  "Row",
  "Table",
  "interval",
  "mean_sd",
  "metric_format",
  "plain",
  "put",
  "row_of",
  "text",
]

_LONGEST = 300  # characters of a cell

Row = dict[str, Any]
Show = Callable[[Row], str]  # formats the cell of a row


class Column(NamedTuple):
  """One column as it is shown."""

  title: str
  show: Show


class Table(NamedTuple):
  """Rows of numbers, and the columns that show them."""

  name: str  # of its CSV file, without the extension
  title: str
  note: str  # explains the columns, printed below the table
  columns: tuple[Column, ...]
  rows: list[Row]

  def shown(self) -> list[list[str]]:
    """Returns the text of every cell, row by row; a very long one without its middle."""
    return [[printable(column.show(row), _LONGEST) for column in self.columns] for row in self.rows]

  def telling(self) -> "Table":
    """Returns the table without the columns whose every cell is "-", as those about factors where no run has any."""
    told = (column for column in self.columns if not self.rows or any(column.show(row) != "-" for row in self.rows))
    return self._replace(columns=tuple(told))

  def markdown(self) -> str:
    """Returns the table in Markdown; the first column is aligned left, the others right."""
    head = [column.title for column in self.columns]
    rule = "| --- |" + " ---: |" * (len(head) - 1)
    ruled = [head, *self.shown()]
    rows = ["| " + " | ".join(map(escape.markdown, line)) + " |" for line in ruled]
    return "\n".join([rows[0], rule, *rows[1:]])

  def csv(self) -> str:
    """Returns every number of the table, unrounded; an unknown one is left empty."""
    lines = io.StringIO()
    names = list(dict.fromkeys(name for row in self.rows for name in row))
    writer = csv.DictWriter(lines, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
      {name: "" if _unknown(value) else escape.csv(value) for name, value in row.items()} for row in self.rows
    )
    return lines.getvalue()


def _unknown(value: Any) -> bool:
  return value is None or (isinstance(value, float) and math.isnan(value))


def row_of(group: Group) -> Row:
  """Returns the first entries of a group's row: what `METHOD` shows."""
  return {"dataset": group.dataset, "label": group.label, "method": group.method, "n": len(group.runs)}


def put(row: Row, name: str, value: Spread | Difference) -> None:
  """Stores a statistic in a row, each field under its own name."""
  row |= {f"{name}_{field}": part for field, part in value._asdict().items()}


def metric_format(metric: Metric) -> tuple[float, str]:
  """Returns scale and format of a metric: two decimals for a percentage, else four significant digits."""
  return metric.scale, ".2f" if metric.unit == "%" else ".4g"


def _number(row: Row, name: str, scale: float, form: str) -> str:
  value = row.get(name)
  return "-" if value is None or math.isnan(value) else f"{value * scale:{form}}"


def plain(name: str, scale: float = 1.0, form: str = ".1f") -> Show:
  """Shows a number times `scale`; "-" if it is unknown."""
  return lambda row: _number(row, name, scale, form)


def text(name: str) -> Show:
  """Shows an entry as it is."""
  return lambda row: str(row[name])


def mean_sd(name: str, scale: float = 1.0, form: str = ".1f") -> Show:
  """Shows a statistic as "mean ± sd", or only the mean of one seed."""

  def show(row: Row) -> str:
    mean, sd = _number(row, f"{name}_mean", scale, form), _number(row, f"{name}_sd", scale, form)
    return mean if sd == "-" else f"{mean} ± {sd}"

  return show


def interval(name: str, scale: float, form: str) -> Show:
  """Shows a paired difference as "mean [low, high] (n = 3)"; `name_kept`, if any, is added to the parenthesis."""

  def show(row: Row) -> str:
    mean = _number(row, f"{name}_mean", scale, f"+{form}")
    if mean == "-":
      return "-"
    low, high = (_number(row, f"{name}_{end}", scale, f"+{form}") for end in ("low", "high"))
    pairs = f"(n = {row[f'{name}_n']}{row.get(f'{name}_kept', '')})"
    return f"{mean} {pairs}" if low == "-" else f"{mean} [{low}, {high}] {pairs}"

  return show


METHOD = (Column("method", text("label")), Column("n", text("n")))
