"""Text files as people have them: either the right rows, or one line that names the file and its line."""

import collections
import csv
import gzip
import io
import logging
import os
import pathlib

import numpy as np
import pytest

from dynsel_jax.data import text, text_files
from dynsel_jax.options import UserError

ROWS = [("x y", "9"), ("z", "10"), ("q", "2")]


@pytest.fixture
def said(capsys, caplog):
  """Returns the lines that were said since its last call, and which of them were warnings."""

  def lines():
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return [*warnings, *capsys.readouterr().err.splitlines()], warnings

  return lines


def _read(tmp_path, content, name="a.csv", text_column="text", label_column="label"):
  path = tmp_path / name
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  rows = text_files.read("dataset.train", str(path), text_column, label_column)
  assert len(rows.texts) == len(rows.labels) == len(rows.lines)
  return rows


def _load(tmp_path, content, name="a.csv", **options):
  paths = {"train": tmp_path / name, "test": tmp_path / f"test_{name}"}
  for path in paths.values():
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return text.load("tiny", **{split: str(path) for split, path in paths.items()}, **options)


def _pairs(rows):
  return list(zip(rows.texts, rows.labels, strict=True))


PLAIN = "text,label\nx y,9\nz,10\nq,2\n"


@pytest.mark.parametrize(
  "content",
  [
    PLAIN,
    PLAIN.replace("\n", "\r\n"),
    PLAIN.replace("\n", "\r"),
    PLAIN.removesuffix("\n"),
    PLAIN.replace("\n", "\n\n"),
    PLAIN.replace("\n", "\n  \n"),
    "\n\n" + PLAIN,
    PLAIN.replace(",", ";"),
    PLAIN.replace(",", "\t"),
    PLAIN.replace(",", "|"),
    PLAIN.replace("text,label", " text ,label "),
    PLAIN.replace("text,label", '"text","label"'),
    PLAIN.replace("text,label", "label,text").replace("x y,9", "9,x y").replace("z,10", "10,z").replace("q,2", "2,q"),
    PLAIN.replace("9", " 9 ").replace("10", '"10 "'),
    PLAIN.encode("utf-8-sig"),
    PLAIN.encode("utf-16"),
    PLAIN.encode("utf-32"),
    b"\xfe\xff" + PLAIN.replace(",", "\t").encode("utf-16-be"),  # "Unicode text" of a spreadsheet
    gzip.compress(PLAIN.encode("utf-8-sig"), mtime=0),  # a gzip file, whatever it is called
    gzip.compress(PLAIN[:20].encode(), mtime=0) + gzip.compress(PLAIN[20:].encode(), mtime=0),
    ",text,label\n0,x y,9\n1,z,10\n2,q,2\n",
    "text,label,\nx y,9,\nz,10,\nq,2,\n",
    "id;text;label\n1,5;x y;9\n2,5;z;10\n3,5;q;2\n",
  ],
)
def test_the_same_rows_in_every_spelling(tmp_path, content):
  for name in ("a.csv", "A.CSV"):
    assert _pairs(_read(tmp_path, content, name)) == ROWS


def test_a_text_of_any_length_is_read_from_csv_too(tmp_path):
  before, long = csv.field_size_limit(), "word " * 40_000
  source = _load(tmp_path, f"text,label\n{long},a\nbye,b\n")
  assert source.text.train[0] == long and source.train["inputs"].shape == (2, 128)
  assert csv.field_size_limit() == before  # the module has one limit for the whole program


@pytest.mark.parametrize(
  ("content", "header", "empty"),
  [
    ("text,label\nx y,9\nz,10\ntext,label\nq,2\n", 1, 0),
    ("text,label\nx y,9\ntext,label\ntext,label\nz,10\nText , LABEL\nq,2\ntext,label", 4, 0),
    ("text,label\nx y,9\n\ufefftext,label\nz,10\nq,2\n", 1, 0),
    ('text,label\r\nx y,9\r\n\ufeff"text","label"\r\nz,10\r\nq,2\r\n', 1, 0),
    ("id,text,label\n1,x y,9\nid,text,label\n1,z,10\n2,q,2\n", 1, 0),
    ("text,label\nx y,9\n,\nz,10\n , \nq,2\n,\n", 0, 3),
  ],
)
def test_files_that_were_joined_and_rows_without_anything(tmp_path, content, header, empty, said):
  rows = _read(tmp_path, content)
  assert _pairs(rows) == ROWS
  assert +rows.left_out == +collections.Counter({text_files.HEADER: header, text_files.EMPTY: empty})
  assert _load(tmp_path, content).class_names == ("2", "9", "10")
  (line,), warnings = said()
  assert ("repeated header rows" in line) == bool(header) and ("empty rows" in line) == bool(empty) and warnings


def test_a_joined_json_lines_file(tmp_path):
  lines = [f'{{"text": "{row}", "label": "{label}"}}' for row, label in ROWS]
  for end in ("\n", "\r\n", "\r", "\n\n"):
    content = "\ufeff" + end.join([lines[0], '{"text": "text", "label": "label"}', "\ufeff" + lines[1], lines[2]])
    rows = _read(tmp_path, content, "a.jsonl")
    assert _pairs(rows) == ROWS and rows.left_out == {text_files.HEADER: 1}


@pytest.mark.parametrize(
  ("labels", "names"),
  [
    (["1.0", "2.0", "10.0"], ("1", "2", "10")),
    (["1", "2.0", "10.00"], ("1", "2", "10")),
    (["1", "1.0", "2"], ("1", "2")),
    (["-1", "1", "0"], ("-1", "0", "1")),
    (["1.5", "2.0", "10.0"], ("1.5", "10.0", "2.0")),
    (["01", "1", "2"], ("01", "1", "2")),
    (["9" * 5000, "1"], ("1", "9" * 5000)),
    (["pos ", " neg", "pos"], ("neg", "pos")),
    (["null", "None", "NA"], ("NA", "None", "null")),
    (["[1]", "[2]", "['10']"], ("1", "2", "10")),
    (["[deleted]", "[x", "a"], ("[deleted]", "[x", "a")),
  ],
)
def test_labels_are_what_they_are_meant_to_be(tmp_path, labels, names):
  for ending, content in (
    ("csv", "text,label\n" + "".join(f'x,"{label}"\n' for label in labels)),
    ("jsonl", "".join(f'{{"text": "x", "label": "{label}"}}\n' for label in labels)),
  ):
    assert _load(tmp_path, content, f"a.{ending}").class_names == names


def test_numbers_and_lists_as_labels(tmp_path):
  rows = _read(
    tmp_path,
    '{"text": "a", "label": 1.0}\n{"text": "b", "label": [2]}\n{"text": "c", "label": [1, 2]}\n'
    '{"text": "d", "label": []}\n{"text": "e", "label": ["x"], "other": NaN}\n',
    "a.jsonl",
  )
  assert _pairs(rows) == [("a", "1"), ("b", "2"), ("e", "x")]
  assert rows.left_out == {text_files.UNLABELLED: 2}
  rows = _read(tmp_path, 'text,label\na,[1]\nb,"[1, 2]"\nc,[]\nd,"[\'x\']"\ne,"[ \'x\', ""y"" ]"\n')
  assert _pairs(rows) == [("a", "1"), ("d", "x")]
  assert rows.left_out == {text_files.UNLABELLED: 3}


@pytest.mark.parametrize(
  ("name", "content", "line"),
  [
    ("a.csv", "text,label\nx,9\nlabel,text\n10,z\n", "line 3 names the columns again, in another order"),
    ("a.csv", "id,text,label\n1,x,9\ntext,id,label\nz,2,10\n", "line 3 names the columns again, in another order"),
    ("a.csv", "text,label,text\nx,9,y\n", "line 1 has the column 'text' twice"),
    ("a.csv", "text,label ,label\nx,9,y\n", "line 1 has the column 'label' twice"),
    ("a.csv", "\n\ncomment;group\nx;9\n", "line 3 has no column 'text'; its columns: comment, group"),
    ("a.csv", "x,9\nz,10\n", "line 1 has no column 'text'; its columns: x, 9"),
    ("a.csv", 'text,label\nx,9\n"y,10\nz,1\n', "line 3 is not valid CSV: a quoted field does not end"),
    ("a.csv", 'text,label\n"x\ny" z,9\n', "line 2 is not valid CSV"),
    ("a.csv", '"text,label\nx,9\n', "line 1 is not valid CSV: a quoted field does not end"),
    ("a.csv", "text,label\nx,9,8\n", "line 2 has 3 fields, the first line 2"),
    ("a.csv", 'text,label\n"x\ny",9\nz\n', "line 4 has 1 fields, the first line 2"),
    ("a.csv", "text,label\nx,9\nz,10text,label\n", "line 3 has 3 fields, the first line 2"),
    ("a.csv", "text,label\nx,9\ny\0,9\n", "line 3 has a NUL byte"),
    ("a.csv", PLAIN.encode("utf-16-le"), "line 1 has a NUL byte: the file is damaged, or neither UTF-8 nor marked as"),
    ("a.csv", PLAIN.encode("utf-16")[:-1], "is not UTF-16: byte 0x0a"),
    ("a.csv", "text,label\ncaf\xe9,9\n".encode("latin-1"), "line 2 is not UTF-8: byte 0xe9"),
    ("a.csv", "text,label\nx,nan\n", "line 2 has the label 'nan', which stands for a missing value"),
    ("a.csv", "text,label\nx,NaN\n", "line 2 has the label 'NaN', which stands for a missing value"),
    ("a.csv", "text,label\nx,  \n", "line 2 has the label '  '; it must be a string or an integer"),
    ("a.csv", 'text,label\nx,"a\nb"\n', "line 3 has the label 'a\\nb', which is no text of one line"),
    ("a.csv", "text,label\nx,['a' 'b']\n", "line 2 has the label \"['a' 'b']\", which begins like a list and is none"),
    ("a.csv", "text,label\nx,[1 2]\n", "line 2 has the label '[1 2]', which begins like a list and is none"),
    ("a.csv", "text,label\r\n", "has no row with exactly one label"),
    ("a.csv", " \n\n", "has no row with exactly one label"),
    ("a.csv", b"PK\x03\x04\x14\0\x06\0", "has a NUL byte"),  # a spreadsheet by another name
    ("a.csv.gz", PLAIN, "is not a complete gzip file"),
    ("a.csv", gzip.compress(PLAIN.encode(), mtime=0)[:-4], "is not a complete gzip file"),
    ("a.csv.gz", gzip.compress(PLAIN.encode(), mtime=0) + b"more", "is not a complete gzip file"),
    ("a.jsonl", '{"text": "x", "label": NaN}', "line 1 has the label nan; it must be a string or an integer"),
    ("a.jsonl", '{"text": NaN, "label": 1}', "line 1 has the text nan; it must be a string that is not empty"),
    ("a.jsonl", '{"text": "x", "label": %s}' % ("9" * 5000), "line 1 is not valid JSON: Exceeds the limit"),
    ("a.jsonl", '{"text": "x", "label": 1}{"text": "y", "label": 2}', "line 1 is not valid JSON: Extra data"),
    ("a.jsonl", '{"text": "x", "label": 1, "label": 2}', "line 1 is not valid JSON: it has 'label' twice"),
    ("a.jsonl", '{"text": "x", "label": %s}' % ("[" * 100_000), "line 1 is not valid JSON"),
    ("a.jsonl", '{"text": "x\\ud800", "label": 1}', "line 1 has the text 'x\\ud800', with NUL or half of a surrogate"),
    ("a.jsonl", '{"text": "x\\u0000", "label": 1}', "line 1 has the text 'x\\x00', with NUL or half of a surrogate"),
    ("a.jsonl", '{"text": "x", "label": "\\ud800"}', "line 1 has the label '\\ud800', which is no text of one line"),
    ("a.jsonl", '{"text": "x", "label": [[1]]}', "line 1 has the label [[1]]; it must be a string or an integer"),
    ("a.jsonl", '{"text": "x", "label": {"a": 1}}', "line 1 has the label {'a': 1}; it must be a string or an integer"),
    ("a.jsonl", '[{"text": "x", "label": 1}]', "line 1 is not a JSON object"),
    ("a.jsonl", "null", "line 1 is not a JSON object: 'null'"),
    ("a.jsonl", '{\n"text": "x",\n"label": 1\n}', "line 1 is not valid JSON"),
    ("a.jsonl", '{"text": "x", "label": "%s"}' % ("[1 " * 1000), "line 1 has the label '[1 [1 "),
    ("a.txt", PLAIN, "must end in one of"),
  ],
)
def test_what_cannot_be_read_rightly_is_one_line_with_file_and_row(tmp_path, name, content, line):
  with pytest.raises(UserError) as error:
    _read(tmp_path, content, name)
  message = str(error.value)
  assert message.startswith(f"dataset.train={tmp_path / name}") and line in message
  assert "\n" not in message and len(message) < 500


def test_paths_that_are_no_file(tmp_path, monkeypatch):
  (tmp_path / "folder.csv").mkdir()
  (tmp_path / "link.csv").symlink_to("nowhere")
  os.mkfifo(tmp_path / "pipe.csv")
  for name in ("folder.csv", "link.csv", "pipe.csv", "none.csv"):
    with pytest.raises(UserError, match="is not a file"):
      text_files.read("dataset.train", str(tmp_path / name), "text", "label")
  with pytest.raises(UserError, match=r"a\\nb.csv: line 1 has no column 'text'") as error:
    _read(tmp_path, "x,y\n1,2\n", "a\nb.csv")
  assert "\n" not in str(error.value)

  def refused(path):
    raise PermissionError(13, "Permission denied", path)

  monkeypatch.setattr(pathlib.Path, "read_bytes", refused)
  with pytest.raises(UserError, match="a.csv cannot be read: Permission denied"):
    (tmp_path / "a.csv").touch()
    text_files.read("dataset.train", str(tmp_path / "a.csv"), "text", "label")


def test_a_home_folder_is_found(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "a.csv").write_text(PLAIN)
  assert text.load("tiny", train="~/a.csv", test="~/a.csv").num_classes == 3
  with pytest.raises(UserError, match="there is no home folder of ~nobody-of-this-name"):
    text.load("tiny", train="~nobody-of-this-name/a.csv")


def test_one_class_alone_is_refused(tmp_path):
  for labels in ("aa", ["1", "1.0"]):
    content = "text,label\n" + "".join(f"x,{label}\n" for label in labels)
    with pytest.raises(
      UserError, match=r"a.csv has one class, '[a1]'; a classifier needs two; is dataset.label_column"
    ):
      _load(tmp_path, content)
  with pytest.raises(UserError, match="dataset.text_column and dataset.label_column are both 'text'"):
    _load(tmp_path, PLAIN, label_column="text")
  with pytest.raises(UserError, match="dataset.text_column=' ' must name a column"):
    _load(tmp_path, PLAIN, text_column=" ")


def test_one_line_says_what_was_read(tmp_path, said):
  _load(tmp_path, PLAIN)
  line = "tiny: train: 3 texts of 3 classes (2 1, 9 1, 10 1); test: 3 texts of 3 classes (2 1, 9 1, 10 1)"
  assert said() == ([line], [])
  _load(tmp_path, PLAIN.replace(",", ";"))
  (line,), warnings = said()
  assert line.endswith(
    "; the columns of dataset.train are separated by ';'; the columns of dataset.test are separated by ';'"
  )
  assert not warnings
  (tmp_path / "test.csv").write_text("text,label\nx,2\n")
  text.load("tiny", train=str(tmp_path / "a.csv"), test=str(tmp_path / "test.csv"))
  assert "test: 1 text of 1 class (2 1); no test texts of: 9, 10" in said()[0][0]


def test_labels_of_a_test_file_are_spelt_like_the_classes(tmp_path):
  (tmp_path / "train.csv").write_text("text,label\nx,1.0\ny,2.0\n")
  (tmp_path / "test.csv").write_text("text,label\nx,1\ny, 2.0\n")
  source = text.load("tiny", train=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))
  np.testing.assert_array_equal(source.test["labels"], [0, 1])
  (tmp_path / "test.csv").write_text("text,label\nx,1\ny,1.5\n")
  with pytest.raises(UserError, match=r"test.csv: line 3 has the label '1.5', which does not occur in dataset.train"):
    text.load("tiny", train=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))


def test_a_spreadsheet_of_many_columns(tmp_path):
  stream = io.StringIO(newline="")
  writer = csv.writer(stream)
  writer.writerow(["id", "", "text", "", "label", "note"])
  for number, (row, label) in enumerate(ROWS):
    writer.writerow([number, "", row, "", label, 'a, "b"\nc'])
  writer.writerow([""] * 6)
  rows = _read(tmp_path, stream.getvalue())
  assert _pairs(rows) == ROWS and rows.lines == [3, 5, 7]
