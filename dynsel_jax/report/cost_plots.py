"""The report's plots of the metric against a cost, each group by its label. Host-side: matplotlib; writes no files."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dynsel_jax.report import escape, frontier, theme, verdict
from dynsel_jax.report.frontier import Cost
from dynsel_jax.report.groups import Group, Spread, recipe, spread
from dynsel_jax.runs import finished

__all__ = ["overview", "pareto"]


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


def pareto(groups: Sequence[Group], cost: Cost, words: str) -> Figure | str:
  """Draws the final metric against a cost, with the groups' labels in a column at the right.

  Groups whose mean is not finite, such as those of a run that diverged, are left out.

  Args:
    groups: the groups.
    cost: gives the cost of a group's run.
    words: the label of the cost's axis.

  Returns:
    The figure, or the reason why it is not drawn.
  """
  groups = _finite(groups)
  if not groups:
    return "no group has a finite metric"
  figure, axes = _axes(groups)
  gains, costs = _gains(groups), [spread(cost(group, run) for run in group.runs) for group in groups]
  sign = 1 if groups[0].metric.larger_is_better else -1
  front: list[int] = []
  for alike in {recipe(group): None for group in groups}:
    members = [i for i, group in enumerate(groups) if recipe(group) == alike]
    best = [members[i] for i in _front([costs[i].mean for i in members], [sign * gains[i].mean for i in members])]
    steps = [(costs[i].mean, gains[i].mean) for i in best]
    axes.step(*zip(*steps, strict=True), where="post", color=theme.BLUE, lw=1, alpha=0.6)
    front += best
  for i, (gain, paid) in enumerate(zip(gains, costs, strict=True)):
    _point(axes, paid, gain, theme.BLUE if i in front else theme.GREY, "o")
  if wide := max(paid.mean for paid in costs) > 10 * np.median([paid.mean for paid in costs]) > 0:
    axes.set_xscale("log")
  else:
    axes.set_xlim(left=0)
  _label(axes, groups, [paid.mean for paid in costs], gains)
  scale = ", logarithmic" if wide else ""
  _name(axes, groups, f"{words}{scale}", f"{theme.seeds(groups)}; blue: Pareto front of each recipe")
  return figure


def overview(groups: Sequence[Group]) -> Figure | str:
  """Draws the final metric against the compute of full training, with `full`, `random` and shorter plain runs.

  The compute of a run is a third for each forward pass and two thirds for each backward pass. Where groups have no full
  training, the compute is drawn in thousands of samples. Returns the figure, or the reason why it is not drawn.
  """
  groups = _finite(groups)
  if not groups:
    return "no group has a finite metric"
  figure, axes = _axes(groups)
  wholes = [verdict.whole_of(g, groups) or (g if g.method == frontier.PLAIN else None) for g in groups]
  relative = all(whole is not None for whole in wholes)
  compute = frontier.COSTS["compute"]
  units = [_mean(whole, compute) / 100 if relative and whole is not None else 1e3 for whole in wholes]
  costs = [spread(compute(g, run) / unit for run in g.runs) for g, unit in zip(groups, units, strict=True)]
  gains = _gains(groups)
  if (curve := _curve(groups)) is not None:
    scale = groups[0].metric.scale
    axes.plot(curve.costs / units[0], scale * curve.means, "--", color=theme.BLACK, lw=1, label="shorter plain runs")
  looks = {frontier.PLAIN: (theme.BLACK, "s"), "random": (theme.ORANGE, "D")}
  for group, gain, paid in zip(groups, gains, costs, strict=True):
    _point(axes, paid, gain, *looks.get(group.method, (theme.BLUE, "o")))
  axes.set_xlim(left=0)
  _label(axes, groups, [paid.mean for paid in costs], gains)
  words = "compute, % of full training" if relative else "compute, thousands of samples"
  bar = "; bar: one standard deviation" if any(gain.n > 1 for gain in gains) else ""
  dashed = "; dashed: shorter plain runs" if curve is not None else ""
  _name(axes, groups, words, f"{theme.seeds(groups)}{bar}{dashed}")
  return figure


def _curve(groups: Sequence[Group]) -> frontier.Curve | None:
  """Returns the frontier of shorter plain runs, if the groups have a single one."""
  if not frontier.comparable(groups):
    return None
  return frontier.curve_of(groups[0], groups, frontier.COSTS["compute"])


def _finite(groups: Sequence[Group]) -> list[Group]:
  return [group for group in groups if math.isfinite(spread(map(finished.final, group.runs)).mean)]


def _gains(groups: Sequence[Group]) -> list[Spread]:
  return [spread(group.metric.scale * finished.final(run) for run in group.runs) for group in groups]


def _mean(group: Group, cost: Cost) -> float:
  return spread(cost(group, run) for run in group.runs).mean


def _axes(groups: Sequence[Group]) -> tuple[Figure, Axes]:
  return theme.figure(max(2.6, 0.17 * len(groups) + 0.8))


def _point(axes: Axes, paid: Spread, gain: Spread, colour: str, marker: str) -> None:
  """Draws a group with its standard deviations."""
  sd = [0.0 if math.isnan(s.sd) else s.sd for s in (paid, gain)]
  axes.errorbar(paid.mean, gain.mean, xerr=sd[0], yerr=sd[1], fmt=marker, ms=4, color=colour, elinewidth=1)


def _label(axes: Axes, groups: Sequence[Group], costs: Sequence[float], gains: Sequence[Spread]) -> None:
  """Writes the groups' labels in a column at the right, each with a line to its point.

  Groups that are far worse than all others lie outside the axes, beyond the end of their line; their label says where.
  """
  metric, means = groups[0].metric, [gain.mean for gain in gains]
  far = theme.far_off(means, larger_is_better=metric.larger_is_better)
  ends = [gain.mean + sign * (0.0 if math.isnan(gain.sd) else gain.sd) for gain in gains for sign in (-1, 1)]
  inside = [end for end, off in zip(ends, np.repeat(far, 2), strict=True) if not off]
  margin = 0.08 * (max(inside) - min(inside)) or 1.0
  axes.set_ylim(low := min(inside) - margin, high := max(inside) + margin)
  heights = np.clip([(mean - low) / (high - low) for mean in means], 0, 1)
  gap = 0.15 / axes.get_figure().get_figheight() / 0.8  # type: ignore[union-attr]
  for group, cost, mean, off, height in zip(groups, costs, means, far, _placed(heights.tolist(), gap), strict=True):
    axes.annotate(
      f"{theme.label(group, 14)}: {mean:.3g}" if off else theme.label(group, 22),
      (cost, np.clip(mean, low, high)),
      xytext=(1.04, height),
      textcoords="axes fraction",
      fontsize=theme.SMALL,
      va="center",
      arrowprops={"arrowstyle": "-", "color": theme.GREY, "lw": 0.4, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)},
    )


def _name(axes: Axes, groups: Sequence[Group], words: str, title: str) -> None:
  axes.set_xlabel(words, fontsize=theme.LARGE)
  axes.set_ylabel(f"final test {escape.plot(groups[0].metric.title)}", fontsize=theme.LARGE)
  axes.set_title(title, fontsize=theme.SMALL, loc="left")
  theme.tidy(axes)
