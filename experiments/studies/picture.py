"""Draws what selection saves and loses, from the tables of results on record, as one SVG for light and dark pages.

    python -m experiments.studies.picture --out=docs/images/tradeoff.svg

The cost of a run counts a forward pass of a sample as 1 and a backward pass as 2, relative to plain training of the
full length. The loss is that of the final test metric against it. Plain training for fewer epochs is drawn as a line:
a method that lies below it saves less than stopping early does.
"""

import csv
import html
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from absl import app, flags

_OUT = flags.DEFINE_string("out", "docs/images/tradeoff.svg", "The SVG to write.")

RESULTS = pathlib.Path(__file__).parent.parent / "results"
METHODS = ("eswp", "es", "infobatch", "random", "rrd", "rs2", "ucb")
LEFT, RIGHT, TOP, BOTTOM = 40, 545, 52, 392  # of the axes
LOWEST = -7.5  # percentage points
LINE = 14  # height of a line of text

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
  .small { font-size: 12px; fill: #59636e; }
  .title { font-size: 15px; font-weight: 600; }
  .grid { stroke: #8c959f; stroke-opacity: .3; }
  .plain { stroke: #1f2328; fill: none; stroke-width: 2; stroke-dasharray: 6 4; }
  .plain-mark { fill: #1f2328; stroke: none; }
  .cifar10 { fill: #0072b2; stroke: #0072b2; }
  .fashion_mnist { fill: #d55e00; stroke: #d55e00; }
  .deviation { stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small { fill: #9da7b1; }
    .plain { stroke: #e6edf3; }
    .plain-mark { fill: #e6edf3; }
    .cifar10 { fill: #56b4e9; stroke: #56b4e9; }
    .fashion_mnist { fill: #f5914b; stroke: #f5914b; }
  }
"""


class Point(NamedTuple):
  """The runs of one method at one setting."""

  label: str
  cost: float  # fraction of full training's
  loss: float  # percentage points, negative if it is worse than full training
  deviation: float  # over seeds, percentage points; 0 for one seed
  runs: int


def points(rows: Iterable[dict[str, str]]) -> list[Point]:
  """Returns the points of a table of results, plain training of the full length among them."""
  rows = list(rows)
  (full,) = (row for row in rows if row["label"] == "full")
  metric, visits = float(full["metric_mean"]), float(full["backward_visits_mean"])
  return [
    Point(
      row["label"],
      (float(row["forward_visits_mean"]) + 2 * float(row["backward_visits_mean"])) / (3 * visits),
      100 * (float(row["metric_mean"]) - metric),
      100 * float(row["metric_sd"] or 0),
      int(row["n"]),
    )
    for row in rows
  ]


def x_of(cost: float) -> float:
  """Returns the place of a cost."""
  return LEFT + (RIGHT - LEFT) * (cost - 0.27) / 0.75


def y_of(loss: float) -> float:
  """Returns the place of a loss."""
  return TOP + (BOTTOM - TOP) * (1 - loss) / (1 - LOWEST)


def spread(wanted: Sequence[float], gap: float) -> list[float]:
  """Moves ascending places apart, downwards, until each lies at least `gap` below the one before."""
  placed: list[float] = []
  for place in wanted:
    placed.append(max(place, placed[-1] + gap) if placed else place)
  return placed


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
  return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{html.escape(words)}</text>'


def _axes() -> list[str]:
  parts = []
  for loss in range(int(LOWEST), 1):
    y = y_of(loss)
    parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
    parts.append(_text(LEFT - 8, y + 4, f"{loss}".replace("-", "\N{MINUS SIGN}"), "small", "end"))
  for percent in range(30, 101, 10):
    parts.append(_text(x_of(percent / 100), BOTTOM + 18, f"{percent} %", "small", "middle"))
  parts.append(_text(LEFT, 20, "Test accuracy, in points below plain training", "title"))
  cost = "cost: forward and backward passes, of plain training for 30 epochs"
  parts.append(_text((LEFT + RIGHT) / 2, BOTTOM + 40, cost, "small", "middle"))
  return parts


def _marks(found: Sequence[Point], kind: str) -> list[str]:
  parts = []
  for point in found:
    x, low, high = x_of(point.cost), y_of(point.loss - point.deviation), y_of(point.loss + point.deviation)
    parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" class="{kind} deviation"/>')
    parts.append(f'<circle cx="{x:.1f}" cy="{y_of(point.loss):.1f}" r="4.5" class="{kind}"/>')
  return parts


def _labels(found: Sequence[Point]) -> list[str]:
  """Writes the names beside the points; those of points close together stand below each other."""
  parts, columns = [], list[list[Point]]()
  for point in sorted(found, key=lambda point: point.cost):
    if not columns or point.cost - columns[-1][0].cost > 0.03:
      columns.append([])
    columns[-1].append(point)
  for column in columns:
    column.sort(key=lambda point: -point.loss)
    places = spread([y_of(point.loss) for point in column], LINE)
    last = x_of(max(point.cost for point in column))
    others = [p for p in found if 0 < x_of(p.cost) - last < 90 and p not in column]
    crowded = any(abs(y_of(p.loss) - y) < LINE - 1 for p in others for y in places)
    x, anchor = (x_of(min(point.cost for point in column)) - 9, "end") if crowded else (last + 9, "start")
    parts += [_text(x, y + 4, name_of(p.label), "", anchor) for p, y in zip(column, places, strict=True)]
  return parts


def lost(found: Sequence[Point]) -> str:
  """Returns in words what the points lose."""
  least, most = (f"{max(-extreme(p.loss for p in found), 0):.1f}" for extreme in (max, min))
  return f"{least} to {most} points lost"


def name_of(label: str) -> str:
  """Returns "rs2 30 %" for the label rs2_keep0.3."""
  method, _, keep = label.partition("_keep")
  return f"{method} {100 * float(keep):.0f} %" if keep else method


def _plain(found: Sequence[Point], small_batches: Sequence[Point]) -> list[str]:
  places = " ".join(f"{x_of(point.cost):.1f},{y_of(point.loss):.1f}" for point in found)
  parts = [f'<polyline points="{places}" class="plain"/>']
  for point in [*found, *small_batches]:
    x, y = x_of(point.cost), y_of(point.loss)
    parts.append(f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" class="plain-mark"/>')
  shorter = found[0]
  parts.append(_text(x_of(shorter.cost) - 9, y_of(shorter.loss) - 7, "12 epochs", "", "end"))
  parts += [_text(x_of(p.cost) + 9, y_of(p.loss) + 5, "12 epochs, batch 48 (1 seed)") for p in small_batches]
  return parts


def picture(cifar10: Sequence[Point], fashion_mnist: Sequence[Point], plain: Sequence[Point]) -> str:
  """Returns the SVG.

  Args:
    cifar10: the results on CIFAR-10.
    fashion_mnist: the results on Fashion-MNIST, whose points are not labelled one by one.
    plain: plain training on CIFAR-10, also for fewer epochs.
  """
  shown = [[p for p in found if p.label.partition("_")[0] in METHODS] for found in (cifar10, fashion_mnist)]
  line = sorted((p for p in plain if p.label in ("full", "full_12_epochs")), key=lambda point: point.cost)
  parts = [
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 560 440" role="img" aria-label="Accuracy lost against cost">',
    f"<style>{STYLE}</style>",
    *_axes(),
    *_plain(line, [p for p in plain if p.label == "full_12_epochs_batch48"]),
    *_marks(shown[1], "fashion_mnist"),
    *_marks(shown[0], "cifar10"),
    *_labels(shown[0]),
    _text(x_of(1.0), y_of(0) - 10, "plain training", "", "end"),
    f'<circle cx="{LEFT + 6}" cy="36" r="4.5" class="fashion_mnist"/>',
    _text(LEFT + 16, 40, f"Fashion-MNIST: {lost(shown[1])}", "small"),
    f'<circle cx="{LEFT + 246}" cy="36" r="4.5" class="cifar10"/>',
    _text(LEFT + 256, 40, f"CIFAR-10: {lost(shown[0])}", "small"),
    "</svg>",
  ]
  return "\n".join(parts) + "\n"


def drawn(results: pathlib.Path = RESULTS) -> str:
  """Returns the SVG of the results on record."""

  def read(folder: str, dataset: str) -> list[Point]:
    with open(results / folder / "tables" / f"{dataset}_results.csv", newline="") as file:
      return points(csv.DictReader(file))

  shown = [
    [point for point in read(name, name) if "replacement" not in point.label] for name in ("cifar10", "fashion_mnist")
  ]
  return picture(*shown, read("cifar10_candidates", "cifar10"))


def main(argv: Sequence[str]) -> None:
  """Writes the picture."""
  del argv
  pathlib.Path(_OUT.value).write_text(drawn())


if __name__ == "__main__":
  app.run(main)
