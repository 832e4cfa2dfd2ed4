"""Reads JSON Lines files of texts, plain or gzipped, whose rows are checked one by one. Host-side."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dynsel_jax.data import text_files
from dynsel_jax.data.summary import shown
from dynsel_jax.options import UserError, printable

__all__ = ["Row", "check_text", "domains", "read", "short", "string"]

_SHOWN = 60  # characters of a value that a message shows


class Row(NamedTuple):
  """An object of a JSON Lines file."""

  at: str  # field, file and line, for messages
  held: Mapping[str, Any]

  def wrong(self, what: str) -> UserError:
    """Returns the error that says of this row what is wrong."""
    return UserError(f"{self.at} {what}")


def read(field: str, path: str) -> list[Row]:
  """Returns the rows of a file that ends in `.jsonl` or `.jsonl.gz`; blank lines are none.

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
  objects = text_files.objects_of(where, text_files.lines_of(field, path))
  rows = [Row(f"{where}: line {number}", held) for number, held in objects]
  if not rows:
    raise UserError(f"{where} has no row")
  return rows


def string(row: Row, column: str) -> str:
  """Returns the text of a row's column.

  Raises:
    UserError: it is missing, not a string, empty, or no text.
  """
  if column not in row.held:
    raise row.wrong(f"has no {column!r}; its columns: {short(', '.join(row.held)) or 'none'}")
  value = row.held[column]
  if not isinstance(value, str) or not value.strip():
    raise row.wrong(f"has the {column} {short(repr(value))}; it must be a string that is not empty")
  check_text(row, f"the {column}", value)
  return value


def check_text(row: Row, what: str, text: str) -> None:
  """Raises `UserError` if a string of a row cannot be encoded: JSON can spell half of a surrogate pair.

  Args:
    row: that has it.
    what: its name in the message.
    text: the string.
  """
  try:
    text.encode()
  except UnicodeEncodeError:
    raise row.wrong(f"has {what} {short(repr(text))}, with half of a surrogate pair in it") from None


def domains(rows: Sequence[Row], column: str) -> list[str]:
  """Returns the domain of each row, a string or an integer in its file; "" for all if no row has the column.

  Raises:
    UserError: some rows have the column and others do not, or a domain is neither text nor an integer.
  """
  if not any(column in row.held for row in rows):
    return [""] * len(rows)
  found = []
  for row in rows:
    if column not in row.held:
      raise row.wrong(f"has no {column!r}, which other rows have; set dataset.domain_column='' to read no domains")
    value = row.held[column]
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
      raise row.wrong(f"has the {column} {short(repr(value))}; it must be a string or an integer")
    check_text(row, f"the {column}", str(value))
    found.append(str(value).strip())
  return found


def short(text: str) -> str:
  """Returns a value for a message, in one line of at most 60 characters."""
  return printable(text, _SHOWN)
