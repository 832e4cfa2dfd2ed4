"""What the report's pictures share: colours, sizes, a panel for each group. Host-side: matplotlib without a display.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart.
"""

import math
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynsel_jax.report.groups import Group

__all__ = ["figure", "label", "panels", "seeds", "tidy"]

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
  "#000000",
  "#E69F00",
  "#56B4E9",
  "#009E73",
  "#F0E442",
  "#0072B2",
  "#D55E00",
  "#CC79A7",
)
GREY = "#9A9A9A"
WIDTH = 5.6  # inches


def figure(height: float) -> tuple[Figure, Axes]:
  """Returns a figure of `height` inches with one drawing area."""
  made = Figure(figsize=(WIDTH, height), layout="constrained")
  return made, made.add_subplot()


def tidy(axes: Axes) -> None:
  """Gives a drawing area the report's looks."""
  axes.spines[["top", "right"]].set_visible(False)
  axes.tick_params(labelsize=8)
  axes.grid(alpha=0.25, linewidth=0.6)


def seeds(groups: Sequence[Group]) -> str:
  """Returns over how many seeds the groups are, in words."""
  counts = sorted({len(group.runs) for group in groups})
  return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def label(group: Group) -> str:
  """Returns the group's label, cut where it would take the picture's room; the tables have the whole of it."""
  return group.label if len(group.label) <= 34 else f"{group.label[:33]}…"


def panels(groups: Sequence[Group], *, sharey: bool = True) -> tuple[Figure, Iterator[tuple[Group, Axes]]]:
  """Returns a figure with a panel for each group, two a row, on a common x-axis and, with `sharey`, y-axis."""
  rows = math.ceil(len(groups) / 2)
  made = Figure(figsize=(WIDTH, 1.25 * rows + 0.5), layout="constrained")
  grid = made.subplots(rows, 2, sharex=True, sharey=sharey, squeeze=False)
  if len(groups) % 2:
    grid[-1, 1].set_visible(False)
    grid[max(rows - 2, 0), 1].tick_params(labelbottom=True)

  def titled() -> Iterator[tuple[Group, Axes]]:
    for group, axes in zip(groups, grid.flat, strict=False):
      axes.set_title(f"{label(group)}, n = {len(group.runs)}", fontsize=8, loc="left", pad=3)
      tidy(axes)
      yield group, axes

  return made, titled()
