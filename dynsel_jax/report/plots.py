"""The report's pictures, one figure a question. Host-side: matplotlib without a display; nothing is written here.

Every picture says over how many seeds it is; a bar or a band is one standard deviation over them. Colours are those of
Okabe and Ito, which people with any colour vision can tell apart; methods carry their names where they are drawn.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dynsel_jax.report.groups import Group, reference, spread, work_seconds
from dynsel_jax.report.runs import OFFLINE, Run, num_samples
from dynsel_jax.report.tables import accuracy, kept_by_class

__all__ = ["all_plots"]

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
PHASES = {  # those that are drawn, in the order of a run
  "features": PINK,
  "factors": RED,
  "selecting": ORANGE,
  "training": BLUE,
  "scoring": SKY,
  "evaluating": GREEN,
  "checkpointing": YELLOW,
}


def _figure(height: float) -> tuple[Figure, Axes]:
  figure = Figure(figsize=(WIDTH, height), layout="constrained")
  return figure, figure.add_subplot()


def _tidy(axes: Axes) -> None:
  axes.spines[["top", "right"]].set_visible(False)
  axes.tick_params(labelsize=8)
  axes.grid(alpha=0.25, linewidth=0.6)


def _seeds(groups: Sequence[Group]) -> str:
  counts = sorted({len(group.runs) for group in groups})
  return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def _label(group: Group) -> str:
  """Returns the group's label, cut where it would take the picture's room; the tables have the whole of it."""
  return group.label if len(group.label) <= 34 else f"{group.label[:33]}…"


def _placed(heights: Sequence[float], gap: float) -> list[float]:
  """Moves heights in [0, 1] apart until they are `gap` from each other, keeping their order."""
  order = np.argsort(heights, kind="stable")
  gap = min(gap, 1.0 / max(len(heights) - 1, 1))
  moved = np.asarray(heights, float)[order]
  for _ in range(200):
    close = np.flatnonzero(np.diff(moved) < gap - 1e-9)
    if not close.size:
      break
    for i in close:
      middle = (moved[i] + moved[i + 1]) / 2
      moved[i], moved[i + 1] = middle - gap / 2, middle + gap / 2
    moved = np.clip(moved, 0, 1)
  moved = np.maximum(moved, np.arange(len(moved)) * gap)  # whatever the loop has left, evenly from below
  result = np.empty(len(moved))
  result[order] = np.minimum(moved, 1 - (len(moved) - 1 - np.arange(len(moved))) * gap)
  return result.tolist()


def _front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
  """Returns the points that no other beats in both, from the cheapest on."""
  best, front = -math.inf, []
  for i in sorted(range(len(costs)), key=lambda i: (costs[i], -gains[i])):
    if gains[i] > best:
      best = gains[i]
      front.append(i)
  return front


def _pareto(groups: Sequence[Group], cost: Callable[[Group, Run], float], words: str) -> Figure:
  """Draws accuracy against a cost, with the groups' names in a column at the right."""
  figure, axes = _figure(max(3.2, 0.19 * len(groups) + 0.8))
  gains = [spread(100 * accuracy(run) for run in group.runs) for group in groups]
  costs = [spread(cost(group, run) for run in group.runs) for group in groups]
  front = _front([c.mean for c in costs], [g.mean for g in gains])
  axes.step([costs[i].mean for i in front], [gains[i].mean for i in front], where="post", color=BLUE, lw=1, alpha=0.6)
  for i, (gain, paid) in enumerate(zip(gains, costs, strict=True)):
    colour = BLUE if i in front else GREY
    sd = [0.0 if math.isnan(s.sd) else s.sd for s in (paid, gain)]
    axes.errorbar(paid.mean, gain.mean, xerr=sd[0], yerr=sd[1], fmt="o", ms=4, color=colour, elinewidth=1)
  axes.set_xlim(left=0)
  axes.margins(y=0.08)
  low, high = axes.get_ylim()
  at = [(gain.mean - low) / (high - low) for gain in gains]
  gap = 0.135 / figure.get_figheight() / 0.8
  for i, height in enumerate(_placed(at, gap)):
    colour = "black" if i in front else "#555555"
    axes.annotate(
      _label(groups[i]),
      (costs[i].mean, gains[i].mean),
      xytext=(1.04, height),
      textcoords="axes fraction",
      fontsize=7.5,
      va="center",
      color=colour,
      arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.4, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)},
    )
  axes.set_xlabel(words, fontsize=9)
  axes.set_ylabel("final test accuracy, %", fontsize=9)
  axes.set_title(f"{_seeds(groups)}; blue: not beaten in both", fontsize=8.5, loc="left")
  _tidy(axes)
  return figure


def _panels(groups: Sequence[Group], *, sharey: bool = True) -> tuple[Figure, Iterator[tuple[Group, Axes]]]:
  """Returns a figure with a panel for each group, two a row, on a common x-axis and, with `sharey`, y-axis."""
  rows = math.ceil(len(groups) / 2)
  figure = Figure(figsize=(WIDTH, 1.25 * rows + 0.5), layout="constrained")
  grid = figure.subplots(rows, 2, sharex=True, sharey=sharey, squeeze=False)
  if len(groups) % 2:
    grid[-1, 1].set_visible(False)
    grid[max(rows - 2, 0), 1].tick_params(labelbottom=True)

  def panels() -> Iterator[tuple[Group, Axes]]:
    for group, axes in zip(groups, grid.flat, strict=False):
      axes.set_title(f"{_label(group)}, n = {len(group.runs)}", fontsize=8, loc="left", pad=3)
      _tidy(axes)
      yield group, axes

  return figure, panels()


def _over_epochs(group: Group, value: Callable[[Run, dict], float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns epochs, and mean and deviation over the seeds, up to the shortest run's end."""
  length = min(len(run.metrics) for run in group.runs)
  found = np.array([[value(run, line) for line in run.metrics[:length]] for run in group.runs])
  deviation = found.std(axis=0, ddof=1) if len(found) > 1 else np.zeros(length)
  return np.arange(1, length + 1), found.mean(axis=0), deviation


def _curves(groups: Sequence[Group]) -> Figure:
  """Draws test accuracy over epochs, each group beside full training."""
  figure, panels = _panels(groups)
  drawn = []
  for group, axes in panels:
    whole = reference(group, groups, "full")
    for other, colour in [*([(whole, GREY)] if whole else []), (group, BLUE)]:
      epochs, mean, deviation = _over_epochs(other, lambda run, line: 100 * line["test_accuracy"])
      axes.plot(epochs, mean, color=colour, lw=1.3)
      axes.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.25, lw=0)
      drawn.append(mean)
  points = np.concatenate(drawn)
  figure.axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
  figure.axes[0].set_ylim(np.percentile(points, 10) - 1, points.max() + 1)
  figure.supxlabel("epoch", fontsize=9)
  figure.supylabel("test accuracy, %", fontsize=9)
  words = (
    "blue: the method; grey: full training; band: one standard deviation.\nThe lowest tenth of the points is cut off"
  )
  figure.suptitle(words, fontsize=8.5)
  return figure


def _coverage(groups: Sequence[Group]) -> Figure:
  """Draws which share was trained on in each epoch, and which had been seen by its end."""
  figure, panels = _panels(groups)
  shares: tuple[tuple[str, str, Callable[[Run, dict], float]], ...] = (
    (BLUE, "-", lambda run, line: 100 * line["realised_keep_fraction"]),
    (ORANGE, "--", lambda run, line: 100 * line["unique_seen"] / num_samples(run)),
  )
  for group, axes in panels:
    for colour, style, share in shares:
      epochs, mean, deviation = _over_epochs(group, share)
      axes.plot(epochs, mean, style, color=colour, lw=1.3)
      axes.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.25, lw=0)
    if group.keep_fraction is not None:
      axes.axhline(100 * group.keep_fraction, color="black", lw=0.8, ls=":")
  figure.axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
  figure.axes[0].set_ylim(0, 105)
  figure.supxlabel("epoch", fontsize=9)
  figure.supylabel("share of the training set, %", fontsize=9)
  figure.suptitle("blue: trained on; orange, dashed: seen so far; dotted: nominal share", fontsize=8.5)
  return figure


def _phases(groups: Sequence[Group]) -> Figure:
  """Draws the seconds by phase."""
  figure, axes = _figure(0.24 * len(groups) + 1.3)
  left = np.zeros(len(groups))
  for name, colour in PHASES.items():
    over_seeds = np.max if name in OFFLINE else np.mean  # the offline stage is cached: one run paid for it
    taken = np.array([over_seeds([(run.summary or {})["seconds"].get(name, 0.0) for run in g.runs]) for g in groups])
    if taken.sum() > 0:
      axes.barh(range(len(groups)), taken, left=left, color=colour, label=name, height=0.7)
    left += taken
  axes.set_yticks(range(len(groups)), [_label(group) for group in groups])
  axes.invert_yaxis()
  _tidy(axes)
  axes.grid(visible=False, axis="y")
  axes.set_xlabel(f"seconds a run, {_seeds(groups)}", fontsize=9)
  figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
  return figure


def _usage(groups: Sequence[Group]) -> Figure:
  """Draws how often samples were trained on, over all seeds."""
  known = [group for group in groups if any(run.visits is not None for run in group.runs)]
  figure, panels = _panels(known, sharey=False)
  most = max(int(v.max()) for v in itertools.chain.from_iterable(map(_visits, known)))
  bins = np.linspace(-0.5, most + 0.5, min(most + 2, 42)).tolist()
  for group, axes in panels:
    visits = np.concatenate(_visits(group))
    axes.hist(visits, bins, weights=np.full(visits.size, 100 / visits.size), color=BLUE)
  figure.supxlabel("times trained on", fontsize=9)
  figure.supylabel("samples, %", fontsize=9)
  return figure


def _visits(group: Group) -> list[np.ndarray]:
  return [run.visits for run in group.runs if run.visits is not None]


def _lorenz(groups: Sequence[Group]) -> Figure:
  """Draws which share of the visits went to the least used share of the samples."""
  known = [group for group in groups if _visits(group)]
  figure, panels = _panels(known)
  for group, axes in panels:
    axes.plot([0, 100], [0, 100], color=GREY, lw=0.8)
    for visits in _visits(group):
      total = np.concatenate([[0.0], np.cumsum(np.sort(visits).astype(float))])
      axes.plot(np.linspace(0, 100, total.size), 100 * total / total[-1], color=BLUE, lw=1, alpha=0.8)
  figure.supxlabel("samples, the least used first, %", fontsize=9)
  figure.supylabel("share of the visits, %", fontsize=9)
  figure.suptitle("a line a seed; grey: all samples used alike", fontsize=8.5)
  return figure


def _classes(groups: Sequence[Group]) -> Figure | None:
  """Draws each class's share of the visits over its share of the training set; None if that is nowhere to be read."""
  sizes = _class_sizes(groups)
  if sizes is None:
    return None
  figure, axes = _figure(0.24 * len(groups) + 1.1)
  for row, group in enumerate(groups):
    visits = np.mean([kept_by_class(run) for run in group.runs], axis=0)
    ratio = np.sort((visits / visits.sum()) / (sizes / sizes.sum()))
    axes.plot(ratio[[0, -1]], [row, row], color=GREY, lw=1)
    axes.plot(ratio, np.full(ratio.size, row), "|", color=BLUE, ms=8, mew=1.1)
  axes.axvline(1.0, color="black", lw=0.8, ls=":")
  axes.set_yticks(range(len(groups)), [_label(group) for group in groups])
  axes.invert_yaxis()
  _tidy(axes)
  axes.grid(visible=False, axis="y")
  axes.set_xlabel("a class's share of the visits / its share of the samples", fontsize=9)
  axes.set_title(f"a mark a class, mean over seeds, {_seeds(groups)}", fontsize=8.5, loc="left")
  return figure


def _class_sizes(groups: Sequence[Group]) -> np.ndarray | None:
  """Returns the samples of each class, from an epoch that trained on all of them."""
  for group in groups:
    for run in group.runs:
      for line in run.metrics:
        if line["realised_keep_fraction"] == 1.0:
          return np.asarray(line["kept_by_class"], float)
  return None


def all_plots(groups: Sequence[Group]) -> Iterator[tuple[str, str, Figure]]:
  """Yields name, heading and figure of each picture of one data set's groups."""

  def visits(group: Group, run: Run) -> float:
    del group
    return (run.summary or {})["backward_visits"] / 1e3

  followed = [g._replace(runs=runs) for g in groups if (runs := tuple(run for run in g.runs if run.metrics))]
  yield "visits", "Accuracy against backward visits", _pareto(groups, visits, "backward visits, thousands")
  yield "seconds", "Accuracy against seconds", _pareto(groups, work_seconds, "seconds a run")
  if followed:
    yield "curves", "Learning curves", _curves(followed)
    yield "coverage", "What was kept, and what had been seen", _coverage(followed)
  yield "phases", "Seconds by phase", _phases(groups)
  if any(_visits(group) for group in groups):
    yield "usage", "How often samples were trained on", _usage(groups)
    yield "lorenz", "How evenly samples were trained on", _lorenz(groups)
  if (figure := _classes(followed)) is not None:
    yield "classes", "Visits by class", figure
