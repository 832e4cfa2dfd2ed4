"""Writes a report: Markdown and CSV, plots as PNG and SVG, and one self-contained HTML page. Host-side."""

import base64
import io
import pathlib
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from dynsel_jax.report import escape, plots, tables, theme
from dynsel_jax.report import groups as groups_lib
from dynsel_jax.report import notes as notes_lib
from dynsel_jax.report.columns import Table
from dynsel_jax.report.groups import Group
from dynsel_jax.runs.finished import Run

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


def _svg(figure: Figure) -> str:
  """Returns the figure as SVG that is the same for the same figure and refers to nothing outside itself."""
  svg = io.StringIO()
  with mpl.rc_context({"svg.hashsalt": "dynsel_jax"}):
    theme.save(figure, svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
  return svg.getvalue()


def _html_table(table: Table) -> str:
  def row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape.html(cell)}</{tag}>" for cell in cells) + "</tr>"

  head = row([column.title for column in table.columns], "th")
  body = "\n".join(row(cells, "td") for cells in table.shown())
  return f'<div class="table" tabindex="0"><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'


class _Report:
  """The report as far as it is written: the text so far, while tables and plots go to files at once."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.markdown = ["# Report\n"]
    self.html = ["<h1>Report</h1>"]
    self._stems: dict[str, str] = {}
    for name in ("tables", "plots"):
      (folder / name).mkdir(parents=True, exist_ok=True)

  def stem(self, name: str) -> str:
    """Returns the stem of the files about `name`, which no other name has."""
    stem = escape.file_name(name)
    taken = [other for other, of in self._stems.items() if of.partition("-")[0] == stem and other != name]
    return self._stems.setdefault(name, f"{stem}-{len(taken) + 1}" if taken else stem)

  def heading(self, text: str) -> None:
    self.markdown.append(f"\n## {escape.markdown(text)}\n")
    self.html.append(f"<h2>{escape.html(text)}</h2>")

  def note(self, text: str) -> None:
    self.markdown.append(f"* {escape.markdown(text)}")
    self.html.append(f'<p class="note">{escape.html(text)}</p>')

  def table(self, table: Table, name: str) -> None:
    """Adds a table, and writes it to `tables/NAME.csv`."""
    (self.folder / "tables" / f"{name}.csv").write_text(table.csv(), "utf-8")
    title, text = escape.markdown(table.title), escape.markdown(table.note)
    self.markdown.append(f"### {title}\n\n{table.markdown()}\n\n{text}\n")
    note = f'<p class="note">{escape.html(table.note)}</p>'
    self.html.append(f"<h3>{escape.html(table.title)}</h3>\n{_html_table(table)}\n{note}")

  def plot(self, figure: Figure | str, title: str, name: str) -> None:
    """Adds a figure, and writes it to `plots/NAME.png` and `.svg`, or adds the reason why it was not drawn."""
    escaped = escape.html(title)
    if isinstance(figure, str):
      self.markdown.append(f"### {escape.markdown(title)}\n\nNot drawn: {escape.markdown(figure)}.\n")
      self.html.append(f'<p class="note">{escaped}: not drawn, because {escape.html(figure)}.</p>')
      return
    svg = _svg(figure)
    theme.save(figure, self.folder / "plots" / f"{name}.png", dpi=200)
    (self.folder / "plots" / f"{name}.svg").write_text(svg, "utf-8")
    heading = escape.markdown(title)
    self.markdown.append(f"### {heading}\n\n![{heading}](plots/{name}.svg)\n")
    data = base64.b64encode(svg.encode()).decode()
    image = f'<img alt="{escaped}" src="data:image/svg+xml;base64,{data}">'
    self.html.append(f"<figure><figcaption>{escaped}</figcaption>{image}</figure>")

  def section(self, heading: str, members: Sequence[Group], target: float | None) -> None:
    """Adds the tables and plots of the groups of one data set, task and metric."""
    self.heading(heading)
    stem = self.stem(heading)
    for table in tables.all_tables(members, target):
      self.table(table, f"{stem}_{table.name}")
    self.html.append('<div class="pictures">')
    for name, title, figure in plots.all_plots(members):
      self.plot(figure, title, f"{stem}_{name}")
    self.html.append("</div>")

  def write(self) -> None:
    """Writes `report.md` and `report.html`."""
    (self.folder / "report.md").write_text("\n".join(self.markdown), "utf-8")
    (self.folder / "report.html").write_text(_document("\n".join(self.html)), "utf-8")


def write(found: Sequence[Run], out: str, target: float | None = None, lost: Sequence[str] = ()) -> list[str]:
  """Writes the report on the runs `found` to the folder `out`: `report.md`, `report.html`, `tables/` and `plots/`.

  Args:
    found: the runs, as `finished.find` returns them.
    out: the folder; it is made if it does not exist, and files in it are replaced.
    target: the value of the metric, in the unit in which it is stored, whose cost is reported; `targets.target_of`
      describes the default.
    lost: further descriptions of what was left out, as `finished.lost` returns them.

  Returns:
    Notes for the reader on what was left out and why.
  """
  groups, on_groups = groups_lib.collect(found)
  notes = notes_lib.all_notes(found, groups, lost, on_groups)
  report = _Report(pathlib.Path(out))
  for note in notes:
    report.note(note)
  for heading, members in groups_lib.sections(groups).items():
    report.section(heading, members, target)
  report.heading("All runs")
  for table in tables.runs_tables(found):
    report.table(table, report.stem(table.name))
  report.write()
  return notes


def _document(body: str) -> str:
  return (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><title>dynsel_jax: report</title>'
    f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
  )
