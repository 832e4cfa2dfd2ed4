"""Reads JSON Lines files of texts, plain or gzipped, whose rows are checked one by one. Host-side."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dynsel_jax.data import text_files
from dynsel_jax.data.summary import shown
from dynsel_jax.options import UserError, printable

__all__ = ["Row", "domain", "read", "string"]

_SHOWN = 60  # characters of a value that a message shows


class Row(NamedTuple):
  """An object of a JSON Lines file."""

  at: str  # field, file and line, for messages
  held: Mapping[str, Any]

  def wrong(self, what: str) -> UserError:
    """Returns the error that says of this row what is wrong."""
    return UserError(f"{self.at} {what}")


def read(field: str, path: str) -> Iterator[Row]:
  """Yields the rows of a file that ends in `.jsonl` or `.jsonl.gz`; blank lines are none.

  Args:
    field: the config's field that names the file, for the messages.
    path: of the file.

  Raises:
    UserError: the file is missing, damaged, not UTF-8 or has no row, or a line is not a JSON object. The message names
      the file and the line.
  """
  where = f"{field}={shown(path)}"
  if not path.lower().endswith((".jsonl", ".jsonl.gz")):
    raise UserError(f"{where} must end in .jsonl or .jsonl.gz" if path else f"{field} names no file; give one")
  empty = True
  for number, line in enumerate(text_files.lines_of(field, path), 1):
    if not line.strip():
      continue
    at = f"{where}: line {number}"
    try:
      held = json.loads(line)
    except (ValueError, RecursionError) as error:
      raise UserError(f"{at} is not valid JSON: {error}") from None
    if not isinstance(held, dict):
      raise UserError(f"{at} is not a JSON object: {_short(line.strip())}")
    empty = False
    yield Row(at, held)
  if empty:
    raise UserError(f"{where} has no row")


def string(row: Row, column: str) -> str:
  """Returns the text of a row's column.

  Raises:
    UserError: it is missing, not a string, empty, or no text.
  """
  if column not in row.held:
    raise row.wrong(f"has no {column!r}; its columns: {_short(', '.join(row.held)) or 'none'}")
  value = row.held[column]
  if not isinstance(value, str) or not value.strip():
    raise row.wrong(f"has the {column} {_short(repr(value))}; it must be a string that is not empty")
  try:
    value.encode()
  except UnicodeEncodeError:
    raise row.wrong(f"has the {column} {_short(repr(value))}, with half of a surrogate pair in it") from None
  return value


def domain(row: Row, column: str) -> str:
  """Returns the domain of a row, a string or an integer in its file; "" if `column` is ""."""
  if not column:
    return ""
  if column not in row.held:
    raise row.wrong(f"has no {column!r}; set dataset.domain_column='' if the rows have no domains")
  value = row.held[column]
  if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
    raise row.wrong(f"has the {column} {_short(repr(value))}; it must be a string or an integer")
  return str(value).strip()


def _short(text: str) -> str:
  return printable(text, _SHOWN)
