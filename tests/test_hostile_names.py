"""Names from outside that hold markup, formulas or terminal codes: every medium shows them escaped."""

import csv
import html.parser
import io
import json
import re
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from configs.sweeps import base
from dynsel_jax import data, offline, options
from dynsel_jax.report import escape, factor_page, page, theme
from dynsel_jax.runs import console, finished
from experiments import cli, fit_factors
from experiments.sweeps.progress_table import ProgressTable
from experiments.sweeps.run_cell import Outcome
from tests.support import ROOT, run_folders, small_runs

pytest.importorskip("jinja2", reason="the extra `report` is not installed")

NAMES = {
  "markup": "<script>alert(1)</script>",
  "an attribute": "\"'><img src=x onerror=alert(1)>",
  "pipes": "a|b||c|",
  "lines": "a\nb\r\n\n# c\u2028d\x85e\x0bf",
  "code": "a`b``c```",
  "an open formula": "$x^{2",
  "a broken formula": r"$\frac{1}{$ and \$ and $$",
  "an undefined command": r"$\notacommand$",
  "a spreadsheet's formula": "=cmd|' /C calc'!A0",
  "another": "@SUM(1+1)",
  "a third": " \t+1+1",
  "a fourth": "-1+cmd",
  "terminal codes": "\x1b[31mred\x1b]0;title\x07\x9b2J",
  "reversed": "\u202egpj.exe\u2066x",
  "zero width": "a\u200bb\ufeff\u00ad\u2060",
  "no UTF-8": "a\udcffb",
  "a null": "a\0b",
  "long": "x" * 3000,
  "wide": "犬🐶 שלום é",
  "Markdown": "[a](http://b.example) **c** _d_ ![e](f) ~~g~~ \\ http://h.example",
  "entities": "&lt;b&gt; &amp;#60;",
  "nothing": "",
  "a space": " ",
}
INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _check_text(text):
  """Asserts that a text holds no character that changes a terminal or the order of what is read."""
  wrong = {c for c in text if c != "\n" and unicodedata.category(c) in INVISIBLE}
  assert not wrong, f"{wrong!r} in {text[:200]!r}"


class _Page(html.parser.HTMLParser):
  """Collects the tags and the text of a page."""

  def __init__(self):
    super().__init__()
    self.tags, self.attributes, self.text = set(), set(), []

  def handle_starttag(self, tag, attrs):
    self.tags.add(tag)
    self.attributes |= {name for name, _ in attrs}

  def handle_data(self, data):
    self.text.append(data)


def _check_html(text):
  read = _Page()
  read.feed(text)
  read.close()
  assert not read.tags & {"script", "iframe", "b"}
  assert not {name for name in read.attributes if name.startswith("on")}
  return "".join(read.text)


def _check_markdown(text):
  _check_text(text)
  bare = re.sub(r"\\[^\w\s]", "", text)  # without what a backslash escapes
  bare = re.sub(r"(`+) .*? \1|`[^`]+`", "", bare)  # and without code
  assert not re.search(r"[<>$`*~]|\]\(http", re.sub(r"^\* |\*\*Warning\.\*\*", "", bare, flags=re.M))
  tables = re.findall(r"(?:^\|.*\n)+", bare + "\n", flags=re.M)
  for table in tables:
    assert len({line.count("|") for line in table.splitlines()}) == 1, table


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_medium_escapes_a_name(name):
  for text in (options.printable(name), escape.markdown(name), escape.markdown_code(name)):
    _check_text(text)
    assert "\n" not in text
  _check_markdown(f"| {escape.markdown(name)} |\n| --- |\n")
  ticks, *_ = re.findall("^`*", escape.markdown_code(name))
  assert ticks not in escape.markdown_code(name)[len(ticks) : -len(ticks) or None] or not name.strip()
  assert not re.match(r"\s*[=+@-]", escape.csv(name))
  assert re.fullmatch(r"\w{1,80}", escape.file_name(name))
  assert len(escape.plot(name)) <= 60 + name.count("$")


def test_an_ordinary_name_stays_as_it_is():
  for name in (
    "random_static",
    "rrd (keep=0.3, alpha=1e-05)",
    "folder /data/pets-2 & more",
    "+0.51 [0.1, 0.9]",
    "α ≥ 1",
  ):
    assert options.printable(name) == escape.markdown(name) == escape.plot(name) == name
  assert [escape.csv(value) for value in (-0.5, 3, "-", "a-b", None)] == [-0.5, 3, "-", "a-b", None]


def _folder_name(name):
  return re.sub(r"[/\0]", "_", name)[:100] or "empty"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
  """A report on runs whose every name is hostile."""
  root, every = tmp_path_factory.mktemp("runs"), "".join(NAMES.values())
  metric = {"name": every, "unit": every, "larger_is_better": True}
  for number, name in enumerate(NAMES.values()):
    folder = root / f"{number}" / _folder_name(name)
    run_folders.write(folder, name, dataset=name)
    (folder / "summary.json").unlink()  # not finished: in the tables and the notes alone
    failed = root / f"{number}" / f"failed{_folder_name(name)}"
    failed.mkdir()
    (failed / "error.txt").write_text(f"Error: {name}", errors="surrogatepass")
  for number, (dataset, label) in enumerate(
    ((every, every), (every, NAMES["a broken formula"]), ("a b", ""), ("a_b", ""))
  ):
    task = {"task": {"name": every, "metric": metric}} if dataset == every else {}
    path, kept = root / "finished" / str(number), list(range(1, len(NAMES) + 1))
    run_folders.write(path, label, dataset=dataset, optimizer={"name": label}, **task)
    run_folders.give_classes(path, kept, kept[::-1], list(NAMES.values()))
  found = finished.find([str(root)])
  notes = page.write(found, str(root / "out"), None, finished.lost([str(root)])).notes
  return root / "out", notes


def test_a_report_shows_every_name_and_breaks_at_none(report):
  out, notes = report
  shown = _check_html((out / "report.html").read_text("utf-8"))
  for name in NAMES.values():
    if len(name) < 100:
      assert options.printable(name) in shown
  _check_text(re.sub(r"data:image/svg\+xml;base64,[\w+/=]+", "", (out / "report.html").read_text("utf-8")))
  _check_markdown((out / "report.md").read_text("utf-8"))
  for note in notes:
    assert "\n" not in options.printable(f"note: {note}")


def test_the_files_of_a_report_are_whole(report):
  out, _ = report
  tables = sorted((out / "tables").iterdir())
  plots = sorted((out / "plots").glob("*.svg"))
  assert len(tables) == 3 * 6 + 3 and len(plots) >= 3 * 6
  for path in tables:
    rows = list(csv.reader(io.StringIO(path.read_text("utf-8"))))
    assert len({len(row) for row in rows}) == 1
    for cell in (cell for row in rows for cell in row):
      _check_text(cell)
      numeric = re.fullmatch(r"-?[\d.]+(e[+-]\d+)?|-?inf", cell)
      assert cell == "-" or numeric or not re.match(r"\s*[=+@-]", cell), (path, cell)
  for path in plots:
    assert path.with_suffix(".png").stat().st_size > 1000
    tree = xml.etree.ElementTree.fromstring(path.read_text("utf-8"))
    assert not [one for one in tree.iter() if one.tag.endswith("script")]


def test_a_plot_shows_every_name(tmp_path):
  figure = Figure(figsize=(6, 9))
  axes = figure.add_subplot()
  for place, name in enumerate(NAMES.values()):
    axes.text(0, place / len(NAMES), escape.plot(name))
  axes.set(xlabel=escape.plot("".join(NAMES.values())), title=escape.plot(NAMES["a broken formula"]))
  axes.set_yticks(range(len(NAMES)), map(escape.plot, NAMES.values()))
  for ending in ("png", "svg"):  # without a warning, which would be an error here
    theme.save(figure, tmp_path / f"plot.{ending}")
  xml.etree.ElementTree.parse(tmp_path / "plot.svg")


@pytest.mark.parametrize("damage", [{"seed": "0"}, {"seed": [0]}, {"epochs": "4"}, {"wrappers": []}, {"selector": 3}])
def test_a_config_with_fields_of_other_types_is_no_run(tmp_path, damage):
  run_folders.write(tmp_path / "good")
  run_folders.write(tmp_path / "bad")
  made = json.loads((tmp_path / "bad" / "config.json").read_text())
  made["config"].update(damage)
  (tmp_path / "bad" / "config.json").write_text(json.dumps(made))
  assert [run.path.name for run in finished.find([str(tmp_path)])] == ["good"]
  assert finished.lost([str(tmp_path)]) == ["bad: config.json is damaged, or was not written by dynsel_jax"]


@pytest.fixture(scope="module")
def source():
  """Digits with hostile names for its classes and for itself."""
  rng = np.random.default_rng(0)
  names = tuple(NAMES.values())
  labels = np.arange(8 * len(names)) % len(names)
  inputs = rng.integers(0, 256, (len(labels), 8, 8, 1), np.uint8)
  split = {"inputs": inputs, "labels": labels}
  return data.from_arrays(" ".join(names), split, split, class_names=names)


@pytest.mark.usefixtures("_standard_promotion")
def test_the_page_of_factors_shows_every_class(source, tmp_path, monkeypatch):
  monkeypatch.setattr(fit_factors.data, "prepare", lambda *_: source)
  made = small_runs.config(
    "rrd", cache_dir=str(tmp_path / "cache"), features__components=8, factors__epochs=2, factors__k=4
  )
  monkeypatch.setattr(fit_factors, "NUM_CLASSES", len(NAMES))
  summary = fit_factors.fit_factors(made, tmp_path / "report")
  text = (tmp_path / "report" / "factors.md").read_text("utf-8")
  _check_markdown(text)
  assert (tmp_path / "report" / "samples.png").exists()
  _check_text(factor_page.closing_lines(summary, str(tmp_path / NAMES["terminal codes"])))
  assert len(factor_page.closing_lines(summary, "a\nb").splitlines()) == 6


@pytest.fixture
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


def test_runs_in_such_folders_on_such_data_speak_in_plain_lines(source, tmp_path, capsys):
  runs = []
  for seed, name in enumerate(["lines", "terminal codes", "reversed", "markup", "pipes", "a broken formula"]):
    made = small_runs.config("infobatch", epochs=1, batch_size=32, seed=seed)
    made.eval_batch_size = 32
    workdir = tmp_path / _folder_name(NAMES[name])
    result = offline.train_and_evaluate(made, workdir, prepare=lambda *_: source)
    print(console.closing_lines(result.summary, result.run.recipe.task.metric, str(workdir)))
    said = capsys.readouterr().out
    _check_text(said)
    assert len(said.splitlines()) == 7, name
    assert json.loads((workdir / "config.json").read_text())["class_names"] == list(NAMES.values())
    runs.append(finished.read(workdir))
    assert not runs[-1].missing
    if not seed:  # a page of one run, and of all below
      page.write(runs, str(tmp_path / "one"))
  page.write(runs, str(tmp_path / "all"))
  for report in ("one", "all"):
    _check_markdown((tmp_path / report / "report.md").read_text("utf-8"))


def test_a_folder_whose_name_is_no_text_is_refused_or_works(tmp_path):
  workdir = tmp_path / "a\udcffb"
  command = [sys.executable, "-m", "experiments.train", "--config=configs/digits.py:size=smoke", "--config.epochs=1"]
  ended = subprocess.run([*command, f"--workdir={workdir}"], cwd=ROOT, capture_output=True, text=True)
  assert "Traceback" not in ended.stderr
  if ended.returncode:
    assert ended.stderr.startswith("error: workdir=") and ended.stderr.count("\n") == 1
  _check_text(ended.stdout + ended.stderr)


FOLDERS = {kind: name for kind, name in NAMES.items() if "\0" not in name and len(name) < 40}  # a cell is a folder


@pytest.mark.parametrize("name", FOLDERS.values(), ids=FOLDERS)
def test_a_sweeps_table_stays_a_table(name, tmp_path, capsys):
  cells = [base.Cell(row, column, "configs/digits.py", {name: name}) for row in (name, "b") for column in (name, "d")]
  table = ProgressTable(cells, tmp_path)
  table.begin(cells[0])
  table.end(cells[1], Outcome("done", "97.00%", seconds=1.0))
  table.failed(cells[2], Outcome("failed", f"ValueError: {name}", f"{name}\n"))
  table.show(in_place=False)
  text = (tmp_path / "sweep.txt").read_text("utf-8")
  _check_text(text)
  lines = text.splitlines()
  assert len(lines) == 1 + len({options.printable(name, 100), "b"}) + 2
  assert max(map(len, lines)) < 7000
  _check_text(capsys.readouterr().out)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_an_error_and_a_warning_are_one_plain_line(name, capsys):
  error = options.UserError(f"dataset.name={name} is wrong")
  assert "\n" not in str(error) and len(str(error)) <= 2000
  _check_text(str(error))
  cli._fail(f"workdir={name}")
  said = capsys.readouterr().err
  _check_text(said)
  assert said.count("\n") == 1
