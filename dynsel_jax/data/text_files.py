"""Reads texts with one label each from CSV or JSON Lines files, plain or gzipped. Host-side."""

import csv
import gzip
import io
import json
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from dynsel_jax.options import UserError

__all__ = ["Rows", "read"]

_ENDINGS = (".csv", ".jsonl", ".csv.gz", ".jsonl.gz")


class Rows(NamedTuple):
  """The rows of a file that have exactly one label."""

  texts: list[str]
  labels: list[str]
  lines: list[int]  # line numbers, counted from 1, of each row's end in the file
  left_out: int  # number of rows without a label or with several


def read(field: str, path: str, text_column: str, label_column: str) -> Rows:
  """Reads the rows of a file.

  A CSV file begins with a line of column names; each line of a JSON Lines file is one object. A label is a string or an
  integer. It may also be a list of labels; a row whose list does not have exactly one is left out.

  Args:
    field: the config's field that names the file, for the messages.
    path: of the file.
    text_column: name of the texts' column.
    label_column: name of the labels' column.

  Raises:
    UserError: the file is missing, damaged, not UTF-8 or has an unknown ending; or a row lacks a column, has an empty
      text, or a label that is neither a string nor an integer.
  """
  where = f"{field}={path}"
  text = _decoded(field, path)
  records = _csv_records if path.removesuffix(".gz").endswith(".csv") else _json_records
  rows = Rows([], [], [], 0)
  for line, record in records(where, text):
    for column in (text_column, label_column):
      if column not in record:
        raise UserError(
          f"{where}: line {line} has no column {column!r}; its columns: {', '.join(map(str, record)) or 'none'}"
        )
    value = record[text_column]
    if not isinstance(value, str) or not value.strip():
      raise UserError(f"{where}: line {line} has the text {value!r}; it must be a string that is not empty")
    label = record[label_column]
    if isinstance(label, list):
      if len(label) != 1:
        rows = rows._replace(left_out=rows.left_out + 1)
        continue
      (label,) = label
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
      raise UserError(f"{where}: line {line} has the label {label!r}; it must be a string or an integer")
    rows.texts.append(value)
    rows.labels.append(str(label))
    rows.lines.append(line)
  if not rows.texts:
    raise UserError(f"{where} has no row with exactly one label")
  return rows


def _decoded(field: str, path: str) -> str:
  if not pathlib.Path(path).is_file():
    raise UserError(f"{field}={path!r} is not a file")
  if not path.endswith(_ENDINGS):
    raise UserError(f"{field}={path} must end in one of: {', '.join(_ENDINGS)}")
  raw = pathlib.Path(path).read_bytes()
  if path.endswith(".gz"):
    try:
      raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
      raise UserError(f"{field}={path} is not a complete gzip file: {error}") from None
  try:
    return raw.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = raw.count(b"\n", 0, error.start) + 1
    raise UserError(f"{field}={path}: line {line} is not UTF-8: byte 0x{raw[error.start]:02x}") from None


def _csv_records(where: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
  reader = csv.reader(io.StringIO(text, newline=""), strict=True)
  header: list[str] | None = None
  try:
    for row in reader:
      if header is None:
        header = row
      elif len(row) == len(header):
        yield reader.line_num, dict(zip(header, row, strict=True))
      elif row:
        raise UserError(f"{where}: line {reader.line_num} has {len(row)} fields, the first line {len(header)}")
  except csv.Error as error:
    raise UserError(f"{where}: line {reader.line_num} is not valid CSV: {error}") from None


def _json_records(where: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
  for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: a JSON string may contain U+2028
    if not line.strip():
      continue
    try:
      record = json.loads(line)
    except ValueError as error:
      raise UserError(f"{where}: line {number} is not valid JSON: {error}") from None
    if not isinstance(record, dict):
      raise UserError(f"{where}: line {number} is not a JSON object: {line.strip()[:40]!r}")
    yield number, record
