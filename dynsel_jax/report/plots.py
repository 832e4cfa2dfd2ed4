"""The report's plots, one figure per question. Host-side: matplotlib without a display; writes no files.

Every plot states its number of seeds; a bar or band is one standard deviation over them. Methods are labelled where
they are drawn. `epoch_plots` draws what changes from epoch to epoch.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dynsel_jax.report import epoch_plots, escape, seconds, theme
from dynsel_jax.report.groups import Group, recipe, spread, summary, work_seconds
from dynsel_jax.report.tables import kept_by_class
from dynsel_jax.runs import finished, timing
from dynsel_jax.runs.finished import Run

__all__ = ["all_plots"]

PHASE_COLOURS = {  # in the order of the table
  "features": theme.PINK,
  "factors": theme.RED,
  "selecting": theme.ORANGE,
  "training": theme.BLUE,
  "scoring": theme.SKY,
  "evaluating": theme.GREEN,
  "loading": theme.GREY,
  "setting_up": theme.BLACK,
  "compiling": theme.YELLOW,
  "checkpointing": theme.SKY,
  "recording": theme.PINK,
  "unnamed": theme.GREY,
}


def _placed(heights: Sequence[float], gap: float) -> list[float]:
  """Returns the heights, in [0, 1], moved apart until neighbours differ by `gap`; their order is kept."""
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
  moved = np.maximum(moved, np.arange(len(moved)) * gap)  # overlaps that the loop has left
  result = np.empty(len(moved))
  result[order] = np.minimum(moved, 1 - (len(moved) - 1 - np.arange(len(moved))) * gap)
  return result.tolist()


def _front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
  """Returns the Pareto front, from the cheapest point on: the points that no other beats in both cost and gain."""
  best, front = -math.inf, []
  for i in sorted(range(len(costs)), key=lambda i: (costs[i], -gains[i])):
    if gains[i] > best:
      best = gains[i]
      front.append(i)
  return front


def _pareto(groups: Sequence[Group], cost: Callable[[Group, Run], float], words: str) -> Figure | str:
  """Draws the final metric against a cost, with the groups' labels in a column at the right.

  Groups whose mean is not finite, such as those of a run that diverged, are left out.

  Args:
    groups: the groups.
    cost: gives the cost of a group's run.
    words: the label of the cost's axis.

  Returns:
    The figure, or the reason why it is not drawn.
  """
  metric = groups[0].metric
  groups = [group for group in groups if math.isfinite(spread(map(finished.final, group.runs)).mean)]
  if not groups:
    return f"no group has a finite {metric.words}"
  figure, axes = theme.figure(max(3.2, 0.19 * len(groups) + 0.8))
  gains = [spread(metric.scale * finished.final(run) for run in group.runs) for group in groups]
  costs = [spread(cost(group, run) for run in group.runs) for group in groups]
  sign = 1 if metric.larger_is_better else -1
  front: list[int] = []
  for alike in {recipe(group): None for group in groups}:
    members = [i for i, group in enumerate(groups) if recipe(group) == alike]
    best = [members[i] for i in _front([costs[i].mean for i in members], [sign * gains[i].mean for i in members])]
    steps = [(costs[i].mean, gains[i].mean) for i in best]
    axes.step(*zip(*steps, strict=True), where="post", color=theme.BLUE, lw=1, alpha=0.6)
    front += best
  for i, (gain, paid) in enumerate(zip(gains, costs, strict=True)):
    colour = theme.BLUE if i in front else theme.GREY
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
      theme.label(groups[i]),
      (costs[i].mean, gains[i].mean),
      xytext=(1.04, height),
      textcoords="axes fraction",
      fontsize=7.5,
      va="center",
      color=colour,
      arrowprops={"arrowstyle": "-", "color": theme.GREY, "lw": 0.4, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)},
    )
  axes.set_xlabel(words, fontsize=9)
  axes.set_ylabel(f"final test {escape.plot(metric.title)}", fontsize=9)
  axes.set_title(f"{theme.seeds(groups)}; blue: Pareto front of each recipe", fontsize=8.5, loc="left")
  theme.tidy(axes)
  return figure


def _phases(groups: Sequence[Group]) -> Figure:
  """Draws the seconds of each group by phase, those of the table."""
  figure, axes = theme.figure(0.24 * len(groups) + 1.3)
  taken = list(map(seconds.means, groups))
  left = np.zeros(len(groups))
  for name, colour in PHASE_COLOURS.items():
    width = np.array([of_group[name] for of_group in taken])
    if width.sum() > 0:
      bars = axes.barh(range(len(groups)), width, left=left, label=timing.word(name), height=0.7, color=colour)
      if name not in timing.COST:
        for bar in bars:
          bar.set(facecolor="white", edgecolor=colour, hatch="////")
    left += width
  axes.set_yticks(range(len(groups)), [theme.label(group) for group in groups])
  axes.invert_yaxis()
  theme.tidy(axes)
  axes.grid(visible=False, axis="y")
  axes.set_xlabel(f"seconds a run, {theme.seeds(groups)}; hatched: not counted as the method's cost", fontsize=9)
  figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
  return figure


def _usage(groups: Sequence[Group]) -> Figure:
  """Draws the distribution of the visits to a sample, over all seeds."""
  figure, panels = theme.panels(groups, sharey=False)
  most = max(int(v.max()) for v in itertools.chain.from_iterable(map(_visits, groups)))
  bins = np.linspace(-0.5, most + 0.5, min(most + 2, 42)).tolist()
  for group, axes in panels:
    visits = np.concatenate(_visits(group))
    axes.hist(visits, bins, weights=np.full(visits.size, 100 / visits.size), color=theme.BLUE)
  figure.supxlabel("times trained on", fontsize=9)
  figure.supylabel("samples, %", fontsize=9)
  return figure


def _visits(group: Group) -> list[np.ndarray]:
  return [run.visits for run in group.runs if run.visits is not None]


def _lorenz(groups: Sequence[Group]) -> Figure:
  """Draws the Lorenz curve: the fraction of the visits that went to the least used samples, by their fraction."""
  figure, panels = theme.panels(groups)
  for group, axes in panels:
    axes.plot([0, 100], [0, 100], color=theme.GREY, lw=0.8)
    for visits in _visits(group):
      total = np.concatenate([[0.0], np.cumsum(np.sort(visits).astype(float))])
      axes.plot(np.linspace(0, 100, total.size), 100 * total / total[-1], color=theme.BLUE, lw=1, alpha=0.8)
  figure.supxlabel("samples, the least used first, %", fontsize=9)
  figure.supylabel("fraction of the visits, %", fontsize=9)
  figure.suptitle("one line per seed; grey: all samples used equally often", fontsize=8.5)
  return figure


def _classes(groups: Sequence[Group]) -> Figure | str:
  """Draws each class's fraction of the visits over its fraction of the training set.

  Returns:
    The figure, or the reason why it is not drawn.
  """
  sizes = _class_sizes(groups)
  if sizes is None:
    return "the class sizes are unknown, because no epoch of these runs trained on all samples"
  figure, axes = theme.figure(0.24 * len(groups) + 1.1)
  for row, group in enumerate(groups):
    visits = np.mean([kept_by_class(run) for run in group.runs], axis=0)
    ratio = np.sort((visits / visits.sum()) / (sizes / sizes.sum()))
    axes.plot(ratio[[0, -1]], [row, row], color=theme.GREY, lw=1)
    axes.plot(ratio, np.full(ratio.size, row), "|", color=theme.BLUE, ms=8, mew=1.1)
  axes.axvline(1.0, color="black", lw=0.8, ls=":")
  axes.set_yticks(range(len(groups)), [theme.label(group) for group in groups])
  axes.invert_yaxis()
  theme.tidy(axes)
  axes.grid(visible=False, axis="y")
  axes.set_xlabel("a class's fraction of the visits / its fraction of the samples", fontsize=9)
  axes.set_title(f"one mark per class, mean over seeds, {theme.seeds(groups)}", fontsize=8.5, loc="left")
  return figure


def _class_sizes(groups: Sequence[Group]) -> np.ndarray | None:
  """Returns the number of samples of each class, from an epoch that trained on all of them; None if none did."""
  for group in groups:
    for run in group.runs:
      for line in run.metrics:
        if line["realised_keep_fraction"] == 1.0:
          return np.asarray(line["kept_by_class"], float)
  return None


def _where(groups: Sequence[Group], holds: Callable[[Run], Any]) -> list[Group]:
  """Returns the groups with only the runs for which `holds` is true, without the groups that have none."""
  return [group._replace(runs=found) for group in groups if (found := tuple(filter(holds, group.runs)))]


def _records_classes(run: Run) -> bool:
  """Whether every epoch counts the visits by class, over two classes or more."""
  return all(len(line.get("kept_by_class") or ()) > 1 for line in run.metrics)


def all_plots(groups: Sequence[Group]) -> Iterator[tuple[str, str, Figure | str]]:
  """Draws the groups of one data set, task and metric.

  Yields:
    Name, heading, and the figure or the reason why it is not drawn. A plot of something that the runs do not record,
    such as factors, is skipped.
  """

  def visits(group: Group, run: Run) -> float:
    del group
    return summary(run)["backward_visits"] / 1e3

  metric = groups[0].metric.words
  metric = metric[:1].upper() + metric[1:]
  followed = _where(groups, lambda run: run.metrics)
  yield "visits", f"{metric} against backward visits", _pareto(groups, visits, "backward visits, thousands")
  yield "seconds", f"{metric} against seconds", _pareto(groups, work_seconds, "seconds a run")
  unfollowed = "" if followed else "no run has a readable metrics.jsonl"
  yield "curves", "Learning curves", unfollowed or epoch_plots.curves(followed)
  yield "coverage", "Samples kept in each epoch, and seen so far", unfollowed or epoch_plots.coverage(followed)
  if members := _where(followed, lambda run: epoch_plots.records(run, "factors_covered")):
    yield "factors", "Factors covered by the samples of an epoch", epoch_plots.factors(members)
  if members := _where(followed, lambda run: epoch_plots.records(run, "noisy_fraction_kept")):
    yield "noise", "Wrong labels among the samples of an epoch", epoch_plots.noise(members)
  yield "phases", "Seconds by phase", _phases(groups)
  used = _where(groups, lambda run: run.visits is not None)
  unused = "" if used else "no run has a readable usage.npz"
  yield "usage", "Visits to a sample", unused or _usage(used)
  yield "lorenz", "Inequality of the visits", unused or _lorenz(used)
  if members := _where(followed, _records_classes):
    yield "classes", "Visits by class", _classes(members)
