"""The report's pictures, one figure a question. Host-side: matplotlib without a display; nothing is written here.

Every picture says over how many seeds it is; a bar or a band is one standard deviation over them. Methods carry their
names where they are drawn. `epoch_plots` draws what is followed from epoch to epoch.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dynsel_jax.report import drawing, epoch_plots
from dynsel_jax.report.groups import Group, recipe, spread, work_seconds
from dynsel_jax.report.runs import OFFLINE, Run
from dynsel_jax.report.tables import accuracy, kept_by_class

__all__ = ["all_plots"]

PHASES = {  # those that are drawn, in the order of a run
  "features": drawing.PINK,
  "factors": drawing.RED,
  "selecting": drawing.ORANGE,
  "training": drawing.BLUE,
  "scoring": drawing.SKY,
  "evaluating": drawing.GREEN,
  "checkpointing": drawing.YELLOW,
}


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
  figure, axes = drawing.figure(max(3.2, 0.19 * len(groups) + 0.8))
  gains = [spread(100 * accuracy(run) for run in group.runs) for group in groups]
  costs = [spread(cost(group, run) for run in group.runs) for group in groups]
  front: list[int] = []
  for alike in {recipe(group): None for group in groups}:
    members = [i for i, group in enumerate(groups) if recipe(group) == alike]
    best = [members[i] for i in _front([costs[i].mean for i in members], [gains[i].mean for i in members])]
    steps = [(costs[i].mean, gains[i].mean) for i in best]
    axes.step(*zip(*steps, strict=True), where="post", color=drawing.BLUE, lw=1, alpha=0.6)
    front += best
  for i, (gain, paid) in enumerate(zip(gains, costs, strict=True)):
    colour = drawing.BLUE if i in front else drawing.GREY
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
      drawing.label(groups[i]),
      (costs[i].mean, gains[i].mean),
      xytext=(1.04, height),
      textcoords="axes fraction",
      fontsize=7.5,
      va="center",
      color=colour,
      arrowprops={"arrowstyle": "-", "color": drawing.GREY, "lw": 0.4, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)},
    )
  axes.set_xlabel(words, fontsize=9)
  axes.set_ylabel("final test accuracy, %", fontsize=9)
  axes.set_title(f"{drawing.seeds(groups)}; blue: not beaten in both in its recipe", fontsize=8.5, loc="left")
  drawing.tidy(axes)
  return figure


def _phases(groups: Sequence[Group]) -> Figure:
  """Draws the seconds by phase."""
  figure, axes = drawing.figure(0.24 * len(groups) + 1.3)
  left = np.zeros(len(groups))
  for name, colour in PHASES.items():
    over_seeds = np.max if name in OFFLINE else np.mean  # the offline stage is cached: one run paid for it
    taken = np.array([over_seeds([(run.summary or {})["seconds"].get(name, 0.0) for run in g.runs]) for g in groups])
    if taken.sum() > 0:
      axes.barh(range(len(groups)), taken, left=left, color=colour, label=name, height=0.7)
    left += taken
  axes.set_yticks(range(len(groups)), [drawing.label(group) for group in groups])
  axes.invert_yaxis()
  drawing.tidy(axes)
  axes.grid(visible=False, axis="y")
  axes.set_xlabel(f"seconds a run, {drawing.seeds(groups)}", fontsize=9)
  figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
  return figure


def _usage(groups: Sequence[Group]) -> Figure:
  """Draws how often samples were trained on, over all seeds."""
  figure, panels = drawing.panels(groups, sharey=False)
  most = max(int(v.max()) for v in itertools.chain.from_iterable(map(_visits, groups)))
  bins = np.linspace(-0.5, most + 0.5, min(most + 2, 42)).tolist()
  for group, axes in panels:
    visits = np.concatenate(_visits(group))
    axes.hist(visits, bins, weights=np.full(visits.size, 100 / visits.size), color=drawing.BLUE)
  figure.supxlabel("times trained on", fontsize=9)
  figure.supylabel("samples, %", fontsize=9)
  return figure


def _visits(group: Group) -> list[np.ndarray]:
  return [run.visits for run in group.runs if run.visits is not None]


def _lorenz(groups: Sequence[Group]) -> Figure:
  """Draws which share of the visits went to the least used share of the samples."""
  figure, panels = drawing.panels(groups)
  for group, axes in panels:
    axes.plot([0, 100], [0, 100], color=drawing.GREY, lw=0.8)
    for visits in _visits(group):
      total = np.concatenate([[0.0], np.cumsum(np.sort(visits).astype(float))])
      axes.plot(np.linspace(0, 100, total.size), 100 * total / total[-1], color=drawing.BLUE, lw=1, alpha=0.8)
  figure.supxlabel("samples, the least used first, %", fontsize=9)
  figure.supylabel("share of the visits, %", fontsize=9)
  figure.suptitle("a line a seed; grey: all samples used alike", fontsize=8.5)
  return figure


def _classes(groups: Sequence[Group]) -> Figure | None:
  """Draws each class's share of the visits over its share of the training set; None if that is nowhere to be read."""
  sizes = _class_sizes(groups)
  if sizes is None:
    return None
  figure, axes = drawing.figure(0.24 * len(groups) + 1.1)
  for row, group in enumerate(groups):
    visits = np.mean([kept_by_class(run) for run in group.runs], axis=0)
    ratio = np.sort((visits / visits.sum()) / (sizes / sizes.sum()))
    axes.plot(ratio[[0, -1]], [row, row], color=drawing.GREY, lw=1)
    axes.plot(ratio, np.full(ratio.size, row), "|", color=drawing.BLUE, ms=8, mew=1.1)
  axes.axvline(1.0, color="black", lw=0.8, ls=":")
  axes.set_yticks(range(len(groups)), [drawing.label(group) for group in groups])
  axes.invert_yaxis()
  drawing.tidy(axes)
  axes.grid(visible=False, axis="y")
  axes.set_xlabel("a class's share of the visits / its share of the samples", fontsize=9)
  axes.set_title(f"a mark a class, mean over seeds, {drawing.seeds(groups)}", fontsize=8.5, loc="left")
  return figure


def _class_sizes(groups: Sequence[Group]) -> np.ndarray | None:
  """Returns the samples of each class, from an epoch that trained on all of them."""
  for group in groups:
    for run in group.runs:
      for line in run.metrics:
        if line["realised_keep_fraction"] == 1.0:
          return np.asarray(line["kept_by_class"], float)
  return None


def _where(groups: Sequence[Group], holds: Callable[[Run], Any]) -> list[Group]:
  """Returns the groups with those of their runs for which `holds` is true; a group without any is left out."""
  return [group._replace(runs=runs) for group in groups if (runs := tuple(filter(holds, group.runs)))]


def all_plots(groups: Sequence[Group]) -> Iterator[tuple[str, str, Figure | str]]:
  """Yields name, heading and figure of each picture of one data set's groups, or the reason why it is not drawn."""

  def visits(group: Group, run: Run) -> float:
    del group
    return (run.summary or {})["backward_visits"] / 1e3

  followed = _where(groups, lambda run: run.metrics)
  yield "visits", "Accuracy against backward visits", _pareto(groups, visits, "backward visits, thousands")
  yield "seconds", "Accuracy against seconds", _pareto(groups, work_seconds, "seconds a run")
  unfollowed = "" if followed else "no run has a readable metrics.jsonl"
  yield "curves", "Learning curves", unfollowed or epoch_plots.curves(followed)
  yield "coverage", "What was kept, and what had been seen", unfollowed or epoch_plots.coverage(followed)
  if members := _where(followed, lambda run: epoch_plots.records(run, "factors_covered")):
    yield "factors", "How the samples of an epoch cover the factors", epoch_plots.factors(members)
  if members := _where(followed, lambda run: epoch_plots.records(run, "noisy_share_kept")):
    yield "noise", "Wrong labels among the samples of an epoch", epoch_plots.noise(members)
  yield "phases", "Seconds by phase", _phases(groups)
  used = _where(groups, lambda run: run.visits is not None)
  unused = "" if used else "no run has a readable usage.npz"
  yield "usage", "How often samples were trained on", unused or _usage(used)
  yield "lorenz", "How evenly samples were trained on", unused or _lorenz(used)
  sizes = "the classes' sizes are not known, as no epoch of these runs trained on all samples"
  yield "classes", "Visits by class", unfollowed or _classes(followed) or sizes
