"""The report's plots, one figure per question. Host-side: matplotlib without a display; writes no files.

Every plot states its number of seeds; a bar or band is one standard deviation over them. Methods are labelled where
they are drawn. `epoch_plots` draws what changes from epoch to epoch.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dynsel_jax.report import classes, cost_plots, epoch_plots, seconds, theme
from dynsel_jax.report.groups import Group, summary, work_seconds
from dynsel_jax.runs import timing
from dynsel_jax.runs.finished import Run

__all__ = ["all_plots", "curves"]

_UNFOLLOWED = "no run has a readable metrics.jsonl"

PHASE_COLOURS = {  # in the order of the table
  "features": theme.PINK,
  "factors": theme.RED,
  "proxy": theme.YELLOW,
  "selecting": theme.ORANGE,
  "training": theme.BLUE,
  "scoring": theme.SKY,
  "evaluating": theme.GREEN,
  "loading": theme.GREY,
  "setting_up": theme.BLACK,
  "compiling": theme.ORANGE,
  "checkpointing": theme.SKY,
  "recording": theme.PINK,
  "unnamed": theme.GREY,
}


def _phases(groups: Sequence[Group]) -> Figure:
  """Draws the seconds of each group by phase, those of the table."""
  figure, axes = theme.figure(0.24 * len(groups) + 1.6)
  taken = list(map(seconds.means, groups))
  left, longest = np.zeros(len(groups)), max(sum(of_group.values()) for of_group in taken)
  for name, colour in PHASE_COLOURS.items():
    width = np.array([of_group[name] for of_group in taken])
    if width.max() > 1e-3 * longest:  # others could not be seen
      bars = axes.barh(range(len(groups)), width, left=left, label=timing.word(name), height=0.7, color=colour)
      if name not in timing.COST:
        for bar in bars:
          bar.set(facecolor="white", edgecolor=colour, hatch="////")
    left += width
  axes.set_yticks(range(len(groups)), [theme.label(group) for group in groups])
  axes.invert_yaxis()
  theme.tidy(axes)
  axes.grid(visible=False, axis="y")
  axes.set_xlabel(f"seconds a run, {theme.seeds(groups)}", fontsize=theme.LARGE)
  axes.set_title("hatched: not the method's", fontsize=theme.SMALL, loc="left")
  figure.legend(loc="outside upper left", ncols=3, fontsize=theme.SMALL, frameon=False)
  return figure


def _usage(groups: Sequence[Group]) -> Figure:
  """Draws the distribution of the visits to a sample, over all seeds."""
  figure, panels = theme.panels(groups, sharey=False)
  most = max(int(v.max()) for v in itertools.chain.from_iterable(map(_visits, groups)))
  bins = np.linspace(-0.5, most + 0.5, min(most + 2, 42)).tolist()
  for group, axes in panels:
    visits = np.concatenate(_visits(group))
    axes.hist(visits, bins, weights=np.full(visits.size, 100 / visits.size), color=theme.BLUE)
  figure.supxlabel("times trained on", fontsize=theme.LARGE)
  figure.supylabel("samples, %", fontsize=theme.LARGE)
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
  figure.supxlabel("samples, the least used first, %", fontsize=theme.LARGE)
  figure.supylabel("fraction of the visits, %", fontsize=theme.LARGE)
  figure.suptitle("one line per seed; grey: all samples used equally often", fontsize=theme.SMALL)
  return figure


def _classes(groups: Sequence[Group]) -> Figure | str:
  """Draws each class's fraction of the visits over its fraction of the training set.

  Returns:
    The figure, or the reason why it is not drawn.
  """
  found = [one for one in classes.used(groups) if one is not None]
  if len(found) < len(groups):
    return "the class sizes are unknown, because no epoch of these runs trained on all samples"
  figure, axes = theme.figure(0.24 * len(groups) + 1.1)
  named = classes.word(groups)
  for row, one in enumerate(found):
    ratio = np.sort(one.ratio[np.isfinite(one.ratio)])
    axes.plot(ratio[[0, -1]], [row, row], color=theme.GREY, lw=1)
    axes.plot(ratio, np.full(ratio.size, row), "|", color=theme.BLUE, ms=8, mew=1.1)
  axes.axvline(1.0, color="black", lw=0.8, ls=":")
  axes.set_yticks(range(len(groups)), [theme.label(group) for group in groups])
  axes.invert_yaxis()
  theme.tidy(axes)
  axes.grid(visible=False, axis="y")
  axes.set_xlabel(f"a {named}'s visits / expected", fontsize=theme.LARGE)
  axes.set_title(f"one mark per {named}, mean over seeds, {theme.seeds(groups)}", fontsize=theme.SMALL, loc="left")
  return figure


def _where(groups: Sequence[Group], holds: Callable[[Run], Any]) -> list[Group]:
  """Returns the groups with only the runs for which `holds` is true, without the groups that have none."""
  return [group._replace(runs=found) for group in groups if (found := tuple(filter(holds, group.runs)))]


def curves(groups: Sequence[Group]) -> tuple[Figure | str, str]:
  """Draws the learning curves; returns the figure, or the reason why it is not drawn, and the heading."""
  followed = _followed(groups)
  return epoch_plots.curves(followed) if followed else _UNFOLLOWED, "Learning curves"


def _followed(groups: Sequence[Group]) -> list[Group]:
  return _where(groups, lambda run: run.metrics)


def all_plots(groups: Sequence[Group]) -> Iterator[tuple[str, str, Figure | str]]:
  """Draws the groups of one data set, task and metric.

  Yields:
    Name, heading, and the figure or the reason why it is not drawn. A plot of something that the runs do not record,
    such as factors, is skipped, and so is one that compares groups where there is a single one.
  """

  def visits(group: Group, run: Run) -> float:
    del group
    return summary(run)["backward_visits"] / 1e3

  metric = groups[0].metric.words
  metric = metric[:1].upper() + metric[1:]
  followed = _followed(groups)
  if len(groups) > 1:
    yield "visits", f"{metric} against backward visits", cost_plots.pareto(groups, visits, "backward visits, thousands")
    yield (
      "seconds",
      f"{metric} against seconds",
      cost_plots.pareto(groups, work_seconds, "seconds that the method cost"),
    )
  learning, title = curves(groups)
  yield "curves", title, learning
  kept = epoch_plots.coverage(followed) if followed else _UNFOLLOWED
  yield "coverage", "Samples kept in each epoch, and seen so far", kept
  if members := _where(followed, lambda run: epoch_plots.records(run, "factors_covered")):
    yield "factors", "Factors covered by the samples of an epoch", epoch_plots.factors(members)
  if members := _where(followed, lambda run: epoch_plots.records(run, "noisy_fraction_kept")):
    yield "noise", "Wrong labels among the samples of an epoch", epoch_plots.noise(members)
  yield "phases", "Seconds by phase", _phases(groups)
  used = _where(groups, lambda run: run.visits is not None)
  unused = "" if used else "no run has a readable usage.npz"
  yield "usage", "Visits to a sample", unused or _usage(used)
  yield "lorenz", "Inequality of the visits", unused or _lorenz(used)
  if members := _where(followed, classes.records_classes):
    yield "classes", f"Visits by {classes.word(members)}", _classes(members)
