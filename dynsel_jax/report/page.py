"""Writes a report: Markdown and CSV, pictures as PNG and SVG, and one HTML page that needs nothing else. Host-side."""

import base64
import html
import io
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from dynsel_jax.report import groups as groups_lib
from dynsel_jax.report import plots, tables
from dynsel_jax.report.groups import Group
from dynsel_jax.report.runs import Run

__all__ = ["write"]

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; font: 16px/1.45 system-ui, sans-serif; color: #1b1b1b; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1.05rem; margin-top: 2rem; }
p, li { max-width: 44rem; overflow-wrap: anywhere; } .note { color: #555; font-size: .9rem; }
.table { overflow-x: auto; border: 1px solid #ddd; border-radius: 4px; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #eee; }
th { vertical-align: bottom; white-space: normal; background: #f5f5f5; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
th:first-child { background: #f5f5f5; }
@media (max-width: 40rem) {
  td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 6rem; max-width: 9rem; }
}
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; } img { width: 100%; height: auto; } figcaption { font-weight: 600; margin-bottom: .3rem; }
"""


class _Picture(NamedTuple):
  name: str  # of its files, without the ending
  title: str
  svg: str  # empty if it was not drawn
  reason: str  # why it was not


def _svg(figure: Figure) -> str:
  """Returns the figure as SVG that depends on the figure alone and refers to nothing outside itself."""
  text = io.StringIO()
  with mpl.rc_context({"svg.hashsalt": "dynsel_jax"}):
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
  return text.getvalue()


def _slug(name: str) -> str:
  return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def _pictures(dataset: str, members: Sequence[Group], folder: pathlib.Path) -> Iterator[_Picture]:
  for name, title, figure in plots.all_plots(members):
    if isinstance(figure, str):
      yield _Picture(name, title, "", figure)
      continue
    picture = _Picture(f"{_slug(dataset)}_{name}", title, _svg(figure), "")
    figure.savefig(folder / f"{picture.name}.png", dpi=200)
    (folder / f"{picture.name}.svg").write_text(picture.svg)
    yield picture


def _html_table(table: tables.Table) -> str:
  def row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

  head = row([column.title for column in table.columns], "th")
  body = "\n".join(row(cells, "td") for cells in table.shown())
  return f'<div class="table" tabindex="0"><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'


def _section(table: tables.Table) -> tuple[str, str]:
  """Returns a table with its heading and note, in Markdown and in HTML."""
  markdown = f"### {table.title}\n\n{table.markdown()}\n\n{table.note}\n"
  page = f'<h3>{html.escape(table.title)}</h3>\n{_html_table(table)}\n<p class="note">{html.escape(table.note)}</p>'
  return markdown, page


def _notes(found: Sequence[Run], lost: Sequence[str], of_groups: Sequence[str]) -> list[str]:
  notes = [*(f"Left out: {line}." for line in lost), *of_groups]
  devices = {str(run.made.get("device", "not known")) for run in found}
  if len(devices) > 1:
    notes.append(f"The runs were made on different devices, so their seconds do not compare: {'; '.join(devices)}.")
  return notes


def write(found: Sequence[Run], out: str, target: float | None = None, lost: Sequence[str] = ()) -> list[str]:
  """Writes the report on the runs `found` to the folder `out`: `report.md`, `report.html`, `tables/` and `plots/`.

  Args:
    found: the runs, as `runs.find` gives them.
    out: the folder; made if need be, files in it are replaced.
    target: the test accuracy, in [0, 1], to which time is taken; see `tables.target_of` for what is taken by default.
    lost: what else is to be named as left out, as `runs.lost` gives it.

  Returns:
    Notes for the reader: what was left out, and why.
  """
  folder = pathlib.Path(out)
  for name in ("tables", "plots"):
    (folder / name).mkdir(parents=True, exist_ok=True)
  groups, of_groups = groups_lib.collect(found)
  notes = _notes(found, lost, of_groups)
  markdown, page = ["# Report\n"], ["<h1>Report</h1>"]
  for note in notes:
    markdown.append(f"* {note}")
    page.append(f'<p class="note">{html.escape(note)}</p>')

  def add(table: tables.Table, prefix: str) -> None:
    (folder / "tables" / f"{prefix}{table.name}.csv").write_text(table.csv())
    for text, part in zip((markdown, page), _section(table), strict=True):
      text.append(part)

  for dataset in dict.fromkeys(group.dataset for group in groups):
    members = [group for group in groups if group.dataset == dataset]
    markdown.append(f"\n## {dataset}\n")
    page.append(f"<h2>{html.escape(dataset)}</h2>")
    for table in tables.all_tables(members, target):
      add(table, f"{_slug(dataset)}_")
    page.append('<div class="pictures">')
    for picture in _pictures(dataset, members, folder / "plots"):
      if picture.reason:
        markdown.append(f"### {picture.title}\n\nNot drawn: {picture.reason}.\n")
        page.append(f'<p class="note">{html.escape(picture.title)}: not drawn, as {html.escape(picture.reason)}.</p>')
        continue
      markdown.append(f"### {picture.title}\n\n![{picture.title}](plots/{picture.name}.svg)\n")
      data = base64.b64encode(picture.svg.encode()).decode()
      title = html.escape(picture.title)
      image = f'<img alt="{title}" src="data:image/svg+xml;base64,{data}">'
      page.append(f"<figure><figcaption>{title}</figcaption>{image}</figure>")
    page.append("</div>")
  markdown.append("\n## All runs\n")
  page.append("<h2>All runs</h2>")
  add(tables.runs_table(found), "")
  (folder / "report.md").write_text("\n".join(markdown))
  (folder / "report.html").write_text(_document("\n".join(page)))
  return notes


def _document(body: str) -> str:
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><title>dynsel_jax: report</title>'
    f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
  )
