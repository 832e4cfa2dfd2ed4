"""Writes a report: Markdown and CSV, plots as PNG and SVG, and one self-contained HTML page. Host-side."""

import base64
import io
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from dynsel_jax.report import (
  cost_plots,
  escape,
  frontier,
  frontier_table,
  plots,
  render,
  seconds,
  tables,
  theme,
  verdict,
  words,
)
from dynsel_jax.report import feedback as feedback_lib
from dynsel_jax.report import groups as groups_lib
from dynsel_jax.report import notes as notes_lib
from dynsel_jax.report.columns import Table
from dynsel_jax.report.feedback import Samples
from dynsel_jax.report.groups import Group
from dynsel_jax.runs.finished import Run

__all__ = ["Picture", "Section", "Written", "write"]


class Picture(NamedTuple):
  """A picture that lies in the report's folder, or the reason why it was not drawn."""

  title: str
  file: str  # its path in the folder
  source: str  # its content, as the page holds it
  kind: str = "drawn"  # or "photo", which dark mode does not invert
  reason: str = ""


class Section(NamedTuple):
  """The runs of one data set, task and metric."""

  heading: str
  recipe: str
  verdicts: list[tuple[str, str]]
  overview: Picture
  tables: list[Table]
  pictures: list[Picture]


class Written(NamedTuple):
  """What the report says first."""

  notes: list[str]  # on what was left out and what does not compare
  verdicts: list[tuple[str, str]]  # each group's label, and its verdict


class _Folder:
  """The folder of a report; tables and plots are written to it at once."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    self._stems: dict[str, str] = {}
    for name in ("tables", "plots"):
      (path / name).mkdir(parents=True, exist_ok=True)

  def stem(self, name: str) -> str:
    """Returns the stem of the files about `name`, which no other name has."""
    stem = escape.file_name(name)
    taken = [other for other, of in self._stems.items() if of.partition("-")[0] == stem and other != name]
    return self._stems.setdefault(name, f"{stem}-{len(taken) + 1}" if taken else stem)

  def table(self, table: Table, name: str) -> Table:
    """Writes `tables/NAME.csv`, and returns the table without the columns that would show nothing."""
    (self.path / "tables" / f"{name}.csv").write_text(table.csv(), "utf-8")
    return table.telling()

  def plot(self, figure: Figure | str, title: str, name: str) -> Picture:
    """Writes `plots/NAME.png` and `.svg`; the figure may be the reason why it was not drawn."""
    if isinstance(figure, str):
      return Picture(title, "", "", reason=figure)
    svg, file = _svg(figure), f"plots/{name}.svg"
    theme.save(figure, self.path / "plots" / f"{name}.png", dpi=200)
    (self.path / file).write_text(svg, "utf-8")
    return Picture(title, file, f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}")

  def sheet(self, figure: Figure, title: str, name: str) -> Picture:
    """Writes `plots/NAME.png`, a sheet of images."""
    png = io.BytesIO()
    theme.save(figure, png, format="png", dpi=130)
    (self.path / "plots" / f"{name}.png").write_bytes(png.getvalue())
    source = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    return Picture(title, f"plots/{name}.png", source, "photo")

  def section(self, heading: str, members: Sequence[Group], target: float | None) -> Section:
    """Writes the tables and plots of the groups of one data set, task and metric."""
    stem = self.stem(heading)
    compare = not seconds.incomparable([run for group in members for run in group.runs])
    beside = filter(None, [frontier_table.table(members, seconds=compare)])
    overview = self.plot(*_overview(members), f"{stem}_overview")
    others = [(name, title, fig) for name, title, fig in plots.all_plots(members) if title != overview.title]
    return Section(
      heading,
      words.recipe(members),
      verdict.verdicts(members, seconds=compare),
      overview,
      [self.table(table, f"{stem}_{table.name}") for table in (*beside, *tables.all_tables(members, target))],
      [self.plot(figure, title, f"{stem}_{name}") for name, title, figure in others],
    )

  def feedback(self, members: Sequence[Group], samples: Samples, stem: str) -> tuple[Table, list[Picture]] | None:
    """Writes the lists of samples to `samples/`, and returns their table and their images; None without any."""
    found = feedback_lib.feedback(members, samples, stem)
    if found is None:
      return None
    (self.path / "samples").mkdir(exist_ok=True)
    for one in found.lists:
      (self.path / "samples" / f"{one.name}.csv").write_text(one.csv(), "utf-8")
    return self.table(found.table, found.table.name), [
      self.sheet(fig, title, name) for title, name, fig in found.sheets
    ]


def _overview(members: Sequence[Group]) -> tuple[Figure | str, str]:
  """Returns the first picture and its title: the metric against compute, or of a single group its learning curve."""
  if len(members) > 1:
    return cost_plots.overview(members), words.overview(members)
  return plots.curves(members)


def _svg(figure: Figure) -> str:
  """Returns the figure as SVG that is the same for the same figure and refers to nothing outside itself."""
  svg = io.StringIO()
  with mpl.rc_context({"svg.hashsalt": "dynsel_jax"}):
    theme.save(figure, svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
  return svg.getvalue()


def write(
  found: Sequence[Run],
  out: str,
  target: float | None = None,
  lost: Iterable[str] = (),
  *,
  samples: Callable[[Run], Samples] | None = None,
  refresh: int = 0,
) -> Written:
  """Writes the report on the runs `found` to the folder `out`: `report.md`, `report.html`, `tables/` and `plots/`.

  Args:
    found: the runs, as `finished.find` returns them.
    out: the folder; it is made if it does not exist, and files in it are replaced.
    target: the value of the metric, in the unit in which it is stored, whose cost is reported; `targets.target_of`
      describes the default.
    lost: further descriptions of what was left out, as `finished.lost` returns them.
    samples: gives the training set of a run as far as it is known, for lists of the samples to look at; without it no
      list is written.
    refresh: seconds after which a browser reads the page again; 0 for never.

  Returns:
    Notes for the reader on what was left out and why, and the verdict on each group.

  Raises:
    UserError: the library that renders the page is not installed.
  """
  groups, on_groups = groups_lib.collect(found)
  if rejected := frontier.rejected(groups):
    left_out = {run.path for group in rejected for run in group.runs}
    found = [run for run in found if run.path not in left_out]
    groups, on_groups = groups_lib.collect(found)  # without the rejected their labels and references are others
    groups = frontier.without_rate(groups)
    on_groups.append(f"Not shown: {len(rejected)} learning rates that were tried and are not the best on validation.")
  notes = notes_lib.all_notes(found, groups, list(lost), on_groups)
  folder = _Folder(pathlib.Path(out))
  sections = [folder.section(*part, target) for part in groups_lib.sections(groups).items()]
  said = {}
  if samples is not None:
    for heading, members in groups_lib.sections(groups).items():
      said[heading] = folder.feedback(members, samples(members[0].runs[0]), folder.stem(heading))
  values = {
    "title": verdict.title(groups) if groups else words.NOTHING_FINISHED,
    "notes": notes,
    "sections": sections,
    "running": [folder.table(table, folder.stem(table.name)) for table in tables.running_tables(found)],
    "feedback": {heading: one for heading, one in said.items() if one is not None},
    "runs": [folder.table(table, folder.stem(table.name)) for table in tables.runs_tables(found)],
    "words": words.WORDS,
  }
  (folder.path / "report.md").write_text(render.markdown("report.md", **values), "utf-8")
  page = folder.path / "report.html"
  partial = page.with_suffix(".html.partial")  # a browser may read the page while it is written again
  partial.write_text(render.html("report.html", refresh=refresh, **values), "utf-8")
  partial.replace(page)
  return Written(notes, [one for section in sections for one in section.verdicts])
