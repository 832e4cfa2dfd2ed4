"""The report's pictures of what changes from epoch to epoch, a panel for each group. Host-side, as `plots`.

A line is the mean over the seeds, up to the shortest run's end, and a band one standard deviation.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dynsel_jax.report import drawing
from dynsel_jax.report.groups import Group, reference
from dynsel_jax.report.runs import Run, num_samples

__all__ = ["coverage", "curves", "factors", "noise", "records"]

Line = dict[str, Any]  # of a run's metrics


def records(run: Run, name: str) -> bool:
  """Whether any epoch of the run has the field `name`."""
  return any(name in line for line in run.metrics)


def _over_epochs(group: Group, value: Callable[[Run, Line], float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns epochs, and mean and deviation over the seeds that have a value; nan where none has."""
  length = min(len(run.metrics) for run in group.runs)
  found = np.ma.masked_invalid([[value(run, line) for line in run.metrics[:length]] for run in group.runs])
  several = found.count(axis=0) > 1
  deviation = np.zeros(length)
  deviation[several] = found[:, several].std(axis=0, ddof=1)
  return np.arange(1, length + 1), found.mean(axis=0).filled(math.nan), deviation


def _draw(axes: Axes, group: Group, value: Callable[[Run, Line], float], colour: str, style: str = "-") -> np.ndarray:
  """Draws a line with its band, and returns the line's values."""
  epochs, mean, deviation = _over_epochs(group, value)
  axes.plot(epochs, mean, style, color=colour, lw=1.3)
  axes.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.25, lw=0)
  return mean


def _finish(figure: Figure, quantity: str, words: str) -> Figure:
  figure.axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
  figure.supxlabel("epoch", fontsize=9)
  figure.supylabel(quantity, fontsize=9)
  figure.suptitle(words, fontsize=8.5)
  return figure


def _field(name: str, scale: float = 1.0) -> Callable[[Run, Line], float]:
  def value(run: Run, line: Line) -> float:
    del run
    return math.nan if line.get(name) is None else scale * line[name]

  return value


def curves(groups: Sequence[Group]) -> Figure:
  """Draws test accuracy over epochs, each group beside full training."""
  figure, panels = drawing.panels(groups)
  drawn = []
  for group, axes in panels:
    whole = reference(group, groups, "full")
    for other, colour in [*([(whole, drawing.GREY)] if whole else []), (group, drawing.BLUE)]:
      drawn.append(_draw(axes, other, _field("test_accuracy", 100), colour))
  points = np.concatenate(drawn)
  figure.axes[0].set_ylim(np.percentile(points, 10) - 1, points.max() + 1)
  words = (
    "blue: the method; grey: full training; band: one standard deviation.\nThe lowest tenth of the points is cut off"
  )
  return _finish(figure, "test accuracy, %", words)


def coverage(groups: Sequence[Group]) -> Figure:
  """Draws which share was trained on in each epoch, and which had been seen by its end."""
  figure, panels = drawing.panels(groups)
  for group, axes in panels:
    _draw(axes, group, _field("realised_keep_fraction", 100), drawing.BLUE)
    _draw(axes, group, lambda run, line: 100 * line["unique_seen"] / num_samples(run), drawing.ORANGE, "--")
    if group.keep_fraction is not None:
      axes.axhline(100 * group.keep_fraction, color="black", lw=0.8, ls=":")
  figure.axes[0].set_ylim(0, 105)
  words = "blue: trained on; orange, dashed: seen so far; dotted: nominal share"
  return _finish(figure, "share of the training set, %", words)


def _alpha(run: Run, line: Line) -> float:
  """Returns an epoch's share of representativeness in the score, nan where no score chose its samples."""
  del run
  info = line.get("selector", {})
  alpha = None if info.get("full_data") else info.get("alpha")
  return math.nan if alpha is None else alpha


def factors(groups: Sequence[Group]) -> Figure:
  """Draws which share of the factors each epoch's samples cover, and how often rare and common ones are among them.

  The curriculum's alpha is drawn with them where a method says it.
  """
  figure, panels = drawing.panels(groups)
  for group, axes in panels:
    axes.axhline(1.0, color=drawing.GREY, lw=0.8)
    _draw(axes, group, _field("factors_covered"), drawing.BLUE)
    _draw(axes, group, _field("rare_factor_rate"), drawing.ORANGE, "--")
    _draw(axes, group, _field("common_factor_rate"), drawing.GREEN, "-.")
    epochs, alpha, _ = _over_epochs(group, _alpha)
    axes.plot(epochs, alpha, ":", color="black", lw=1)
  figure.axes[0].set_ylim(bottom=0)
  words = (
    "blue: share of the factors covered; firings a visit over those a sample of the whole set:\n"
    "orange, dashed: rare factors, green, dash-dotted: common ones; dotted: alpha"
  )
  return _finish(figure, "share, or rate", words)


def noise(groups: Sequence[Group]) -> Figure:
  """Draws which share of each epoch's samples had a wrong label, each group beside full training."""
  figure, panels = drawing.panels(groups)
  for group, axes in panels:
    if (whole := reference(group, groups, "full")) is not None:
      _draw(axes, whole, _field("noisy_share_kept", 100), drawing.GREY)
    _draw(axes, group, _field("noisy_share_kept", 100), drawing.BLUE)
  figure.axes[0].set_ylim(bottom=0)
  return _finish(figure, "wrong labels, %", "blue: the method; grey: full training, the share of the whole set")
