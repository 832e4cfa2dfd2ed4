"""Reads texts, or pairs of them, with one label or number each from CSV, TSV or JSON Lines files. Host-side."""

import ast
import codecs
import collections
import contextlib
import csv
import gzip
import io
import json
import math
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from dynsel_jax import options
from dynsel_jax.data.summary import shown
from dynsel_jax.options import UserError, printable

__all__ = ["Rows", "column_names", "lines_of", "number_of", "objects_of", "read"]

_ENDINGS = (".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz")
_GZIP = b"\x1f\x8b"
_MARKS = {  # of encodings at the begin of a file; UTF-32 begins like UTF-16
  codecs.BOM_UTF8: "utf-8",
  codecs.BOM_UTF32_LE: "utf-32",
  codecs.BOM_UTF32_BE: "utf-32",
  codecs.BOM_UTF16_LE: "utf-16",
  codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATORS = (",", ";", "\t", "|")
_UNQUOTED = "\t unquoted"  # stands for a tab in a file in which a quotation mark is a character like others
_LONGEST_FIELD = 2**31 - 1  # what the module csv takes on every system; by default it refuses more than 131,072
_MOST_UNZIPPED, _LEAST_BOMB = 200, 2**26  # a gzip file may unpack to so many times its size, and to 64 MiB anyway
_LARGEST = 2**53  # up to here a floating-point number that is whole is one integer
_LARGEST_TARGET = 3.4e38  # targets are float32
_SHOWN = 60  # characters of a value that a message shows

_ELEMENT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?[0-9]{1,18}(?:\.0)?)"""
_LIST = re.compile(rf"\s*\[\s*(?:{_ELEMENT}\s*(?:,\s*{_ELEMENT}\s*)*)?\]\s*")  # 'a' 'b', as NumPy prints, is no list
_LIST_BEGINS = re.compile(r"""\s*\[\s*(?:['"\]]|-?[0-9])""")

HEADER, EMPTY, UNLABELLED = "repeated header rows", "empty rows", "rows without a label or with several"


class Rows(NamedTuple):
  """The rows of a file that have exactly one label."""

  texts: list[str]
  labels: list[str]  # without spaces around
  lines: list[int]  # line numbers, counted from 1, of each row's end in the file
  seconds: list[str]  # the second text of each row; empty without a column of them
  left_out: collections.Counter[str]  # number of other rows by reason
  separator: str  # of the columns of a CSV file


class _Columns(NamedTuple):
  text: str
  label: str  # "" if the labels are not read
  second: str = ""  # "" if a row has one text

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(name for name in self if name)


class _Record(NamedTuple):
  line: int
  text: Any
  label: Any
  fields: Sequence[str]  # all of the row, in a CSV file
  second: Any = ""


def read(
  field: str, path: str, text_column: str, label_column: str, pair_column: str = "", *, numbers: bool = False
) -> Rows:
  """Reads the rows of a file.

  A CSV file begins with a line of column names, separated by a comma, semicolon, tab or "|"; a TSV file likewise, where
  a tab always separates and a quotation mark is part of the text, as in GLUE; each line of a JSON Lines file is one
  object. The encoding is UTF-8, or UTF-16 with its byte order mark. A label is a string or an integer. It may also be a
  list of labels; a row whose list does not have exactly one is left out, and so are empty rows and the line of column
  names where it comes again, as in files that were joined.

  Args:
    field: the config's field that names the file, for the messages.
    path: of the file.
    text_column: name of the texts' column.
    label_column: name of the labels' column; "" reads the texts alone, each with the label "".
    pair_column: name of the column of second texts; "" if each row has one text.
    numbers: whether the labels are numbers, whole or not, which come as Python writes them.

  Raises:
    UserError: the file is missing, damaged, in another encoding or has an unknown ending; or a row lacks a column, has
      more or fewer fields than the first, an empty text, or a label that is neither a string nor an integer, or no
      number. The message names the file and the line.
  """
  columns = _Columns(text_column.strip(), label_column.strip(), pair_column.strip())
  where, read_label = f"{field}={shown(path)}", number_of if numbers else _label
  text = _decoded(field, path)
  rows = Rows([], [], [], [], collections.Counter(), ",")
  with _fields_of_any_length():
    if not _is_json(path):
      rows = rows._replace(separator=_separator(where, text, columns, _separators(path)))
      records = _csv_records(where, text, columns, rows)
    else:
      records = _json_records(where, text, columns)
    repeats_header = _header_test(columns) if columns.label else lambda *_: False
    for record in records:
      at = f"{where}: line {record.line}"
      if repeats_header(at, record):
        rows.left_out[HEADER] += 1
        continue
      value, label = _text(at, record.text), read_label(at, record.label) if columns.label else ""
      if label is None:
        rows.left_out[UNLABELLED] += 1
        continue
      if columns.second:
        rows.seconds.append(_text(at, record.second))
      rows.texts.append(value)
      rows.labels.append(label)
      rows.lines.append(record.line)
  if not rows.texts:
    raise UserError(f"{where} has no row with exactly one label")
  return rows._replace(separator=rows.separator[0])


def lines_of(field: str, path: str) -> list[str]:
  """Returns the lines of a file that has one of the known endings; errors as in `read`."""
  return _lines(_decoded(field, path))


def objects_of(where: str, lines: Iterable[str], hook: Any = None) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields number and JSON object of each line that is not blank; `hook` is the `object_pairs_hook` of `json.loads`.

  Raises:
    UserError: a line is not a JSON object; the message begins with `where`.
  """
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      held = json.loads(line, object_pairs_hook=hook)
    except (ValueError, RecursionError) as error:
      raise UserError(f"{where}: line {number} is not valid JSON: {error}") from None
    if not isinstance(held, dict):
      raise UserError(f"{where}: line {number} is not a JSON object: {line.strip()[:40]!r}")
    yield number, held


def column_names(field: str, path: str) -> list[str]:
  """Returns the names of a file's columns, or [] if the file is empty; errors as in `read`."""
  text = _decoded(field, path)
  if not _is_json(path):
    with _fields_of_any_length():
      found: list[list[str]] = []
      for separator in _separators(path):
        with contextlib.suppress(csv.Error):
          found.append(_header(text, separator)[1])
    return max(found, key=len, default=[])
  first = next((line for line in _lines(text) if line.strip()), "{}")
  with contextlib.suppress(ValueError, RecursionError, AttributeError):
    return [name.strip() for name in json.loads(first)]
  return []


def _ending(path: str) -> str:
  """Returns which of `_ENDINGS` a path has, in any case; "" if none."""
  return next((ending for ending in _ENDINGS if path.lower().endswith(ending)), "")


def _is_json(path: str) -> bool:
  return _ending(path).startswith(".jsonl")


def _separators(path: str) -> Sequence[str]:
  return (_UNQUOTED,) if _ending(path).startswith(".tsv") else _SEPARATORS


def _decoded(field: str, path: str) -> str:
  where = f"{field}={shown(path)}"
  path = options.expand_home(field, path)
  if not os.path.isfile(path):
    raise UserError(f"{field}={path!r} is not a file")
  if not _ending(path):
    raise UserError(f"{where} must end in one of: {', '.join(_ENDINGS)}")
  try:
    raw = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise UserError(f"{where} cannot be read: {error.strerror}") from None
  if _ending(path).endswith(".gz") or raw.startswith(_GZIP):
    raw = _unzipped(where, raw)
  encoding = next((encoding for mark, encoding in _MARKS.items() if raw.startswith(mark)), "utf-8")
  try:
    text = raw.decode(encoding)
  except UnicodeDecodeError as error:
    line = raw.count(b"\n", 0, error.start) + 1
    name = encoding.upper()
    raise UserError(f"{where}: line {line} is not {name}: byte 0x{raw[error.start]:02x}") from None
  if (position := text.find("\0")) >= 0:
    line = len(_lines(text[:position]))
    raise UserError(f"{where}: line {line} has a NUL byte: the file is damaged, or neither UTF-8 nor marked as UTF-16")
  # A mark also stands in front of the second of two files that were joined.
  return re.sub(r"(^|[\r\n])\ufeff+", r"\1", text) if "\ufeff" in text else text


def _unzipped(where: str, raw: bytes) -> bytes:
  most = max(_LEAST_BOMB, _MOST_UNZIPPED * len(raw))
  try:
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
      unzipped = file.read(most + 1)
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(f"{where} is not a complete gzip file: {error}") from None
  if len(unzipped) > most:
    raise UserError(
      f"{where} unpacks to over {_MOST_UNZIPPED} times its size, as no text does; if it is meant, unpack it first"
    )
  return unzipped


def _lines(text: str) -> list[str]:
  return re.split(r"\r\n|\n|\r", text)  # not splitlines: a JSON string may contain U+2028


@contextlib.contextmanager
def _fields_of_any_length() -> Iterator[None]:
  before = csv.field_size_limit(_LONGEST_FIELD)
  try:
    yield
  finally:
    csv.field_size_limit(before)


def _reader(text: str, separator: str) -> Any:
  lines = io.StringIO(text, newline="")
  if separator == _UNQUOTED:
    return csv.reader(lines, delimiter=separator[0], strict=True, quoting=csv.QUOTE_NONE)
  return csv.reader(lines, delimiter=separator, strict=True)


def _separator(where: str, text: str, columns: _Columns, separators: Sequence[str]) -> str:
  """Returns the first of the separators with which the line of column names has all columns."""
  found: list[tuple[int, list[str]]] = []
  for separator in separators:
    with contextlib.suppress(csv.Error):
      line, names = _header(text, separator)
      if set(columns.names) <= set(names):
        for column in columns.names:
          if names.count(column) > 1:
            raise UserError(f"{where}: line {line} has the column {column!r} twice")
        return separator
      found.append((line, names))
  if not found:
    raise UserError(f"{where}: line 1 is not valid CSV: a quoted field does not end")
  line, names = max(found, key=lambda header: len(header[1]))
  if not names:
    raise UserError(f"{where} has no row with exactly one label")
  raise UserError(f"{where}: line {line} {_lacks(columns, names)}")


def _header(text: str, separator: str) -> tuple[int, list[str]]:
  """Returns the line number and the fields of the first line that is not blank."""
  reader = _reader(text, separator)
  return next(((reader.line_num, names) for row in reader if any(names := _names(row))), (1, []))


def _names(row: Sequence[str]) -> list[str]:
  return [name.strip() for name in row]


def _lacks(columns: _Columns, names: Sequence[str]) -> str:
  missing = next(column for column in columns.names if column not in names)
  return f"has no column {missing!r}; its columns: {printable(', '.join(map(str, names)), 200) or 'none'}"


def _csv_records(where: str, text: str, columns: _Columns, rows: Rows) -> Iterator[_Record]:
  """Yields the rows of a CSV file; counts empty ones in `rows`."""
  names: list[str] = []
  places: list[int] = []
  reader, start = _reader(text, rows.separator), 1
  try:
    for row in reader:
      blank = not any(field.strip() for field in row)
      if not names:
        if not blank:
          names = _names(row)
          places = [names.index(name or columns.text) for name in columns]
      elif blank:
        rows.left_out[EMPTY] += len(row) > 1  # an empty line says nothing; commas alone come from spreadsheets
      elif len(row) != len(names):
        raise UserError(f"{where}: line {start} has {len(row)} fields, the first line {len(names)}")
      else:
        value, label, second = (row[place] for place in places)
        yield _Record(reader.line_num, value, label, row, second)
      start = reader.line_num + 1
  except csv.Error as error:
    reason = "a quoted field does not end" if "unexpected end" in str(error) else str(error)
    raise UserError(f"{where}: line {start} is not valid CSV: {reason}") from None


def _json_records(where: str, text: str, columns: _Columns) -> Iterator[_Record]:
  def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name.strip() for name, _ in items]
    for column in columns.names:
      if names.count(column) > 1:
        raise ValueError(f"it has {column!r} twice")
    return dict(zip(names, (value for _, value in items), strict=True))

  for number, record in objects_of(where, _lines(text), pairs):
    if not set(columns.names) <= record.keys():
      raise UserError(f"{where}: line {number} {_lacks(columns, list(record))}")
    value, label, second = (record[name or columns.text] for name in columns)
    yield _Record(number, value, label, (), second)


def _header_test(columns: _Columns) -> Callable[[str, _Record], bool]:
  """Returns whether a row has the columns' names for values, as where two files with a header each were joined."""
  names = [column.casefold() for column in columns.names]
  text, label = names[:2]
  spelt = {*columns.names, *names}
  longest = max(map(len, columns.names)) + 20  # with spaces around

  def plain(value: Any) -> str:
    return value.strip().casefold() if isinstance(value, str) and len(value) <= longest else ""

  def repeats_header(at: str, record: _Record) -> bool:
    if plain(record.label) == label and plain(record.text) == text:
      return True
    if not spelt.isdisjoint(record.fields) and {*names} <= {*map(plain, record.fields)}:
      raise UserError(f"{at} names the columns again, in another order than the first line")
    return False

  return repeats_header


def _text(at: str, value: Any) -> str:
  if not isinstance(value, str) or not value.strip():
    raise UserError(f"{at} has the text {printable(repr(value), _SHOWN)}; it must be a string that is not empty")
  if not _is_clean(value):
    raise UserError(f"{at} has the text {printable(repr(value), _SHOWN)}, with NUL or half of a surrogate pair in it")
  return value


def _label(at: str, label: Any) -> str | None:
  """Returns the label of a row; None if it is a list that does not have exactly one."""
  given = label

  def wrong(reason: str) -> UserError:
    return UserError(f"{at} has the label {printable(repr(given), _SHOWN)}{reason}")

  if isinstance(label, str) and _LIST_BEGINS.match(label):
    label = _spelled_list(label)
    if label is None:
      raise wrong(", which begins like a list and is none; write ['a', 'b']")
  if isinstance(label, list):
    if len(label) != 1:
      return None
    (label,) = label
  if isinstance(label, float) and label.is_integer() and abs(label) < _LARGEST:
    label = int(label)  # as libraries write a column of integers in which one is missing
  if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
    raise wrong("; it must be a string or an integer")
  label = str(label).strip()
  if label.casefold() == "nan":
    raise wrong(", which stands for a missing value; leave the row out")
  if not label.isprintable() and (not _is_clean(label) or len(label.splitlines()) > 1):
    raise wrong(", which is no text of one line")
  return label


def number_of(at: str, label: Any) -> str:
  """Returns the number of a row, as Python writes a float; raises `UserError`, with `at` in front, if it is none."""
  try:
    number = math.nan if isinstance(label, bool) else float(label)
  except (TypeError, ValueError, OverflowError):
    number = math.nan
  if not abs(number) <= _LARGEST_TARGET:  # also refuses NaN
    raise UserError(f"{at} has the target {printable(repr(label), _SHOWN)}; it must be a number up to 3.4e38")
  return repr(number)


def _spelled_list(label: str) -> list[Any] | None:
  """Returns the list that the label of a CSV file spells, as JSON or Python does; None if it spells none."""
  if _LIST.fullmatch(label):
    with contextlib.suppress(ValueError, SyntaxError):
      return ast.literal_eval(label.strip())
  return None


def _is_clean(value: str) -> bool:
  try:
    value.encode()
  except UnicodeEncodeError:
    return False
  return "\0" not in value
