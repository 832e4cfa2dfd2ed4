"""Text files of any content: either every row as it stands there, or one line that names the file."""

import contextlib
import csv
import gzip
import io
import json
import pathlib
import tempfile

import hypothesis
from hypothesis import strategies

from dynsel_jax.data import text, text_files
from dynsel_jax.options import UserError

# Without half surrogate pairs and NUL, which are refused, and byte order marks, which are taken off lines.
_LETTERS = strategies.characters(blacklist_categories=("Cs",), blacklist_characters="\0\ufeff")
_TEXTS = strategies.text(_LETTERS | strategies.sampled_from(",;\t|\"\n\r' "), min_size=1).filter(str.strip)
_LABELS = strategies.text(
  strategies.characters(categories=("L", "N", "S", "Zs"), exclude_characters="\u2028\u2029"), min_size=1, max_size=5
).filter(lambda label: label.strip() and label.strip().casefold() != "nan")
_ROWS = strategies.lists(strategies.tuples(_TEXTS, _LABELS), min_size=1, max_size=6)
_ENDS = strategies.sampled_from(["\n", "\r\n", "\r"])


@strategies.composite
def _csv_files(draw, rows):
  """The content of a CSV file with these rows, and how often its line of column names comes again."""
  stream = io.StringIO(newline="")
  separator, end = draw(strategies.sampled_from(",;\t|")), draw(_ENDS)
  quoting = draw(strategies.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
  if any({"\r", "\n"} & set(value) for value, _ in rows):  # Python 3.11 quotes the one that ends its lines alone
    quoting = csv.QUOTE_ALL
  writer = csv.writer(stream, delimiter=separator, lineterminator=end, quoting=quoting)
  order = draw(strategies.permutations(range(4)))
  mark = draw(strategies.sampled_from(["", "\ufeff"]))
  repeated = 0
  writer.writerow([[" text", "label ", "id", ""][place] for place in order])
  for number, (value, label) in enumerate(rows):
    if draw(strategies.integers(0, 4)) == 0:
      stream.write(draw(strategies.sampled_from([end, f"  {end}", mark])))
    if draw(strategies.integers(0, 4)) == 0:
      writer.writerow([["Text", "label", "id", ""][place] for place in order])
      repeated += 1
    writer.writerow([[value, label, number, "a,b"][place] for place in order])
  return stream.getvalue(), repeated


def _written(draw, folder, name, content):
  """Writes a file in some encoding, plain or gzipped; returns its path."""
  raw = content.encode(draw(strategies.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))
  if draw(strategies.booleans()):
    raw, name = gzip.compress(raw), name + draw(strategies.sampled_from(["", ".gz"]))
  path = pathlib.Path(folder) / name
  path.write_bytes(raw)
  return str(path)


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(rows=_ROWS, draw=strategies.data())
def test_every_row_of_a_csv_file_is_read(rows, draw):
  content, repeated = draw.draw(_csv_files(rows))
  with tempfile.TemporaryDirectory() as folder:
    path = _written(draw.draw, folder, "a.csv", content)
    found = text_files.read("dataset.train", path, "text", "label")
  assert found.texts == [value for value, _ in rows]
  assert found.labels == [label.strip() for _, label in rows]
  assert +found.left_out == ({text_files.HEADER: repeated} if repeated else {})


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(rows=_ROWS, end=_ENDS, escaped=strategies.booleans(), draw=strategies.data())
def test_every_row_of_a_json_lines_file_is_read(rows, end, escaped, draw):
  lines = [json.dumps({"id": 1.5, "text": value, "label": label}, ensure_ascii=escaped) for value, label in rows]
  with tempfile.TemporaryDirectory() as folder:
    path = _written(draw.draw, folder, "a.jsonl", end.join(lines))
    found = text_files.read("dataset.train", path, "text", "label")
  assert list(zip(found.texts, found.labels, strict=True)) == [(value, label.strip()) for value, label in rows]


_CSV = 'text,label\n"a, ""b""\n",1\nx y,2\ntext,label\n,\nz,[1]\n'.encode("utf-8-sig")
_JSONL = b'{"text": "a \\u00e9", "label": 1.0}\n{"text": "b", "label": ["2"]}\r\n\n{"label": [], "text": "c"}\n'


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(name=strategies.sampled_from(["a.csv", "a.jsonl", "a.csv.gz", "a.jsonl.gz"]), draw=strategies.data())
def test_a_damaged_file_is_read_or_named_in_one_line(name, draw):
  content = bytearray(_CSV if "csv" in name else _JSONL)
  if name.endswith(".gz") and draw.draw(strategies.booleans()):
    content = bytearray(gzip.compress(bytes(content), mtime=0))
  for place in draw.draw(strategies.lists(strategies.integers(0, len(content) - 1), max_size=4)):
    content[place : place + draw.draw(strategies.integers(0, 2))] = draw.draw(strategies.binary(max_size=2))
  with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(None):
    path = pathlib.Path(folder) / name
    path.write_bytes(bytes(content[: draw.draw(strategies.integers(0, len(content)))]))
    try:
      source = text.load("tiny", train=str(path), test=str(path))
    except UserError as error:
      assert str(error).startswith(f"dataset.train={path}") and "\n" not in str(error)
    else:
      assert source.num_classes >= 2 and len(source.text.train) == len(source.train["labels"])
