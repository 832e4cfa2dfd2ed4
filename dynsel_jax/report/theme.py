"""The common look of the report's plots: colours, sizes, one panel per group. Host-side; matplotlib without a display.

The colours are those of Okabe and Ito (jfly.uni-koeln.de/color), which readers with any colour vision can tell apart.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynsel_jax.report import escape
from dynsel_jax.report.groups import Group

__all__ = ["far_off", "figure", "label", "panels", "save", "seeds", "tidy"]

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
# Inches, and the sizes of letters: on a telephone of 390 points in width a picture is shown at 1.2 times its size.
WIDTH = 4.2
SMALL, LARGE = 8, 9


def figure(height: float) -> tuple[Figure, Axes]:
  """Returns a figure of `height` inches with one pair of axes."""
  made = Figure(figsize=(WIDTH, height), layout="constrained")
  return made, made.add_subplot()


def tidy(axes: Axes) -> None:
  """Hides the upper and right spine, and adds a light grid and small tick labels."""
  axes.spines[["top", "right"]].set_visible(False)
  axes.tick_params(labelsize=SMALL)
  axes.grid(alpha=0.25, linewidth=0.6)


def far_off(values: Sequence[float], *, larger_is_better: bool) -> np.ndarray:
  """Returns which of the values are so much worse that an axis with them would squeeze all others together, `[n]` bool.

  They are the fewest whose absence leaves under a third of the range, and at most a sixth of all.
  """
  worse = np.asarray(values, np.float64) * (-1.0 if larger_is_better else 1.0)
  order, far = np.argsort(worse), np.zeros(len(worse), bool)
  for count in range(1, len(worse) // 6 + 1):
    if worse[order[-count - 1]] - worse[order[0]] < (worse[order[-1]] - worse[order[0]]) / 3:
      far[order[-count:]] = True
      break
  return far


def seeds(groups: Sequence[Group]) -> str:
  """Returns the number of seeds per group, as in "n = 3" or "n = 1 to 3"."""
  counts = sorted({len(group.runs) for group in groups})
  return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def label(group: Group, longest: int = 28) -> str:
  """Returns the group's label, cut off where it would not fit into a plot; the tables have all of it."""
  return escape.plot(group.label, longest)


def save(figure: Figure, target: Any, **options: Any) -> None:
  """Writes a figure; a character that the font lacks becomes a box, without a warning of several lines for each."""
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Glyph .* missing from")
    figure.savefig(target, **options)


def panels(groups: Sequence[Group], *, sharey: bool = True) -> tuple[Figure, Iterator[tuple[Group, Axes]]]:
  """Returns a figure with one panel per group, two in a row, and an iterator over groups and panels.

  Args:
    groups: the groups.
    sharey: whether the panels share the y-axis; they always share the x-axis.
  """
  rows, across = math.ceil(len(groups) / 2), min(len(groups), 2)
  made = Figure(figsize=(WIDTH, max(1.25 * rows, 1.8) + 0.5), layout="constrained")
  grid = made.subplots(rows, across, sharex=True, sharey=sharey, squeeze=False)
  if len(groups) % 2 and across == 2:
    grid[-1, 1].set_visible(False)
    grid[max(rows - 2, 0), 1].tick_params(labelbottom=True)

  def titled() -> Iterator[tuple[Group, Axes]]:
    for group, axes in zip(groups, grid.flat, strict=False):
      axes.set_title(f"{label(group)}, n = {len(group.runs)}", fontsize=SMALL, loc="left", pad=3)
      tidy(axes)
      yield group, axes

  return made, titled()
