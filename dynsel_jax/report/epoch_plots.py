"""The report's plots over epochs, one panel per group. Host-side: matplotlib without a display; writes no files.

A line is the mean over the seeds that have the epoch, and a band is one standard deviation.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dynsel_jax.report import escape, theme
from dynsel_jax.report.groups import Group, reference
from dynsel_jax.runs import finished
from dynsel_jax.runs.finished import Metric, Run

__all__ = ["coverage", "curves", "factors", "noise", "records"]

Line = dict[str, Any]  # one epoch of a run's metrics
Value = Callable[[Run, Line], float]


def records(run: Run, name: str) -> bool:
  """Whether any epoch of the run has a value in the field `name`."""
  return any(line.get(name) is not None for line in run.metrics)


def _over_epochs(group: Group, value: Value) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns epochs, and mean and standard deviation over the seeds with a finite value; nan where there is none."""
  length = max(len(run.metrics) for run in group.runs)
  rows = [[value(run, line) for line in run.metrics] for run in group.runs]
  found = np.ma.masked_invalid([[*row, *[math.nan] * (length - len(row))] for row in rows])
  several = found.count(axis=0) > 1
  deviation = np.zeros(length)
  deviation[several] = found[:, several].std(axis=0, ddof=1)
  return np.arange(1, length + 1), found.mean(axis=0).filled(math.nan), deviation


def _draw(axes: Axes, group: Group, value: Value, colour: str, style: str = "-") -> np.ndarray:
  """Draws a line with its band, and returns the values of the line."""
  epochs, mean, deviation = _over_epochs(group, value)
  axes.plot(epochs, mean, style, color=colour, lw=1.3)
  axes.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.25, lw=0)
  return mean


def _finish(figure: Figure, quantity: str, words: str) -> Figure:
  figure.axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
  figure.supxlabel("epoch", fontsize=theme.LARGE)
  figure.supylabel(quantity, fontsize=theme.LARGE)
  figure.suptitle(words, fontsize=theme.SMALL)
  return figure


def _field(name: str, scale: float = 1.0) -> Value:
  def value(run: Run, line: Line) -> float:
    del run
    return math.nan if line.get(name) is None else scale * line[name]

  return value


def curves(groups: Sequence[Group]) -> Figure:
  """Draws the test metric over epochs, each group together with full training."""
  metric = groups[0].metric
  figure, panels = theme.panels(groups)

  def value(run: Run, line: Line) -> float:
    del run
    return metric.scale * finished.value(line)

  drawn = []
  for group, axes in panels:
    whole = reference(group, groups, "full")
    for other, colour in [*([(whole, theme.GREY)] if whole else []), (group, theme.BLUE)]:
      drawn.append(_draw(axes, other, value, colour))
  if (limits := _limits(drawn, metric)) is not None:
    figure.axes[0].set_ylim(*limits)
  several = any(len(group.runs) > 1 for group in groups)
  parts = ["blue: the method; grey: full training"] * (len(drawn) > len(groups)) + ["band: one sd"] * several
  words = "; ".join(parts)
  return _finish(figure, f"test {escape.plot(metric.title)}", words)


def _limits(drawn: Sequence[np.ndarray], metric: Metric) -> tuple[float, float] | None:
  """Returns limits of the y-axis that hold the later half of every line; None if no value is finite.

  The first epochs may begin outside, and a line far worse than all others may stay there, see `theme.far_off`.
  """
  worst = np.nanmin if metric.larger_is_better else np.nanmax
  halves = [half for line in drawn if np.isfinite(half := line[len(line) // 2 :]).any()]  # of each, however short
  if not halves:
    return None
  ends = np.array([worst(half) for half in halves])
  inside = ends[~theme.far_off(ends.tolist(), larger_is_better=metric.larger_is_better)]
  points = np.concatenate(drawn)
  low, high = (inside.min(), np.nanmax(points)) if metric.larger_is_better else (np.nanmin(points), inside.max())
  margin = 0.06 * (high - low) or 1.0
  return low - margin, high + margin


def coverage(groups: Sequence[Group]) -> Figure:
  """Draws the fraction of the training set used in each epoch, and the fraction seen by its end."""
  figure, panels = theme.panels(groups)
  for group, axes in panels:
    _draw(axes, group, _field("realised_keep_fraction", 100), theme.BLUE)
    _draw(axes, group, lambda run, line: 100 * line["unique_seen"] / finished.num_samples(run), theme.ORANGE, "--")
    if group.keep_fraction is not None:
      axes.axhline(100 * group.keep_fraction, color="black", lw=0.8, ls=":")
  figure.axes[0].set_ylim(0, 105)
  words = "blue: trained on; orange, dashed: seen so far;\ndotted: nominal keep fraction"
  return _finish(figure, "fraction of the training set, %", words)


def _alpha(run: Run, line: Line) -> float:
  """Returns the weight of representativeness in an epoch's score; nan where no score chose the samples."""
  del run
  info = line.get("selector", {})
  alpha = None if info.get("full_data") else info.get("alpha")
  return math.nan if alpha is None else alpha


def factors(groups: Sequence[Group]) -> Figure:
  """Draws the fraction of the factors that each epoch's samples cover, and the rates of rare and common factors.

  The curriculum's alpha is drawn too where the method records it.
  """
  figure, panels = theme.panels(groups)
  for group, axes in panels:
    axes.axhline(1.0, color=theme.GREY, lw=0.8)
    _draw(axes, group, _field("factors_covered"), theme.BLUE)
    _draw(axes, group, _field("rare_factor_rate"), theme.ORANGE, "--")
    _draw(axes, group, _field("common_factor_rate"), theme.GREEN, "-.")
    epochs, alpha, _ = _over_epochs(group, _alpha)
    axes.plot(epochs, alpha, ":", color="black", lw=1)
  figure.axes[0].set_ylim(bottom=0)
  words = (
    "blue: fraction of the factors covered; dotted: alpha\n"
    "firings per visit / firings per sample of the whole set:\n"
    "orange, dashed: rare factors; green, dash-dotted: common ones"
  )
  return _finish(figure, "fraction, or rate", words)


def noise(groups: Sequence[Group]) -> Figure:
  """Draws the fraction of each epoch's samples with a wrong label, each group together with full training."""
  figure, panels = theme.panels(groups)
  for group, axes in panels:
    if (whole := reference(group, groups, "full")) is not None:
      _draw(axes, whole, _field("noisy_fraction_kept", 100), theme.GREY)
    _draw(axes, group, _field("noisy_fraction_kept", 100), theme.BLUE)
  figure.axes[0].set_ylim(bottom=0)
  return _finish(figure, "wrong labels, %", "blue: the method; grey: full training")
