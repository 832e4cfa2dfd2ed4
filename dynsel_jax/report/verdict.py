"""The verdict on each method, a sentence: what it lost or won, what it saved, and how sure that is. Pure functions."""

import math
from collections.abc import Sequence
from typing import Any

from dynsel_jax.report import columns, frontier
from dynsel_jax.report.frontier import COSTS, PLAIN, Position
from dynsel_jax.report.groups import (
  LENGTH,
  RATE,
  Difference,
  Group,
  difference,
  paired,
  recipe,
  reference,
  shared_without,
  spread,
  summary,
  work_seconds,
)
from dynsel_jax.runs import finished

__all__ = ["beside_frontier", "saved", "speed_up", "title", "verdicts", "whole_of"]

BELOW = "compute"  # the cost at which a method is compared with shorter plain runs


def title(groups: Sequence[Group]) -> str:
  """Returns a heading that names the data sets and models of the groups."""
  datasets = list(dict.fromkeys(group.dataset for group in groups))
  models = list(dict.fromkeys(str((run.config.get("model") or {}).get("name", "")) for g in groups for run in g.runs))
  named = [name for name in models if name]
  return f"{_words(datasets, 'data sets')} with {_words(named, 'models')}" if named else _words(datasets, "data sets")


def _words(names: Sequence[str], many: str) -> str:
  return " and ".join(names) if len(names) <= 2 else f"{len(names)} {many}"


def whole_of(group: Group, groups: Sequence[Group]) -> Group | None:
  """Returns the full training that a group is compared with: for a shorter plain run the longest of its recipe.

  None if there is none, or `group` itself is the reference.
  """
  if group.method != PLAIN:
    return reference(group, groups, PLAIN)
  free = (RATE, *LENGTH)  # the rate may have been tuned for the length
  plain = [g for g in groups if g.method == PLAIN and g.own == group.own]
  alike = [g for g in plain if shared_without(g, *free) == shared_without(group, *free)]
  if len({_length(g) for g in alike}) < len(alike):  # several learning rates at one length
    alike = [g for g in alike if recipe(g) == recipe(group)]
  longest = max(alike, key=lambda g: spread(summary(run)["backward_visits"] for run in g.runs).mean)
  return None if longest is group else longest


def _length(group: Group) -> Any:
  return dict(group.shared).get("epochs")


def saved(group: Group, whole: Group, name: str) -> float:
  """Returns the fraction of full training's `name`, "backward_visits" or "forward_visits", that a group saved."""
  ours, theirs = (spread(float(summary(run)[name]) for run in g.runs).mean for g in (group, whole))
  return 1 - ours / theirs if theirs else math.nan


def speed_up(group: Group, whole: Group) -> float:
  """Returns full training's seconds over those of a group, see `groups.work_seconds`."""
  ours, theirs = (spread(work_seconds(g, run) for run in g.runs).mean for g in (group, whole))
  return theirs / ours if ours > 0 else math.nan


def beside_frontier(groups: Sequence[Group]) -> dict[str, Position]:
  """Returns where methods lie beside the frontier of shorter plain runs at their own compute, by label."""
  return {group.label: position for group, position in frontier.positions(groups, COSTS[BELOW])}


def verdicts(groups: Sequence[Group], *, seconds: bool = True) -> list[tuple[str, str]]:
  """Returns each group's label and its verdict, in the order of the groups.

  Args:
    groups: the groups of one data set, task and metric.
    seconds: whether the seconds of the runs compare; without, none are named.
  """
  where = beside_frontier(groups)
  return [(group.label, _verdict(group, groups, where.get(group.label), seconds)) for group in groups]


def _verdict(group: Group, groups: Sequence[Group], position: Position | None, seconds: bool) -> str:
  whole = whole_of(group, groups)
  if whole is None:
    kind = "the reference" if group.method == PLAIN else "no full training of this recipe to compare with"
    parts = [f"{_reached(group)}; {kind}"]
  else:
    parts = [f"{_distance(group, difference(group, whole, finished.final))}, with {_savings(group, whole, seconds)}"]
  if position is not None and position.word != "unknown":
    parts.append(_beside(group, position))
  return "; ".join([*parts, _seeds(len(group.runs))]) + "."


def _seeds(count: int) -> str:
  return "1 seed" if count == 1 else f"{count} seeds"


def _reached(group: Group) -> str:
  """Says what a group reached, without a reference."""
  scale, form = columns.metric_format(group.metric)
  reached = spread(map(finished.final, group.runs))
  if math.isnan(reached.mean):
    return f"test {group.metric.words} not finite"
  sd = "" if math.isnan(reached.sd) else f" ± {scale * reached.sd:{form}}"
  unit = f" {group.metric.unit}" if group.metric.unit else ""
  return f"test {group.metric.words} {scale * reached.mean:{form}}{sd}{unit}"


def _points(group: Group, value: float) -> str:
  scale, form = columns.metric_format(group.metric)
  return f"{scale * value:+{form}}"


def _distance(group: Group, found: Difference) -> str:
  """Says how far a group is from full training, and whether that can be told from chance."""
  unit = {"%": " points"}.get(group.metric.unit, f" {group.metric.unit}" if group.metric.unit else "")
  if math.isnan(found.mean):
    return "no seed in common with full training, or a metric that is not finite"
  far = f"{_points(group, found.mean)}{unit}"
  if math.isnan(found.low):
    why = "of one seed" if found.n == 1 else "the same with every seed"
    return f"{far} against full training, {why} and so without an interval"
  interval = f"{far} [{_points(group, found.low)}, {_points(group, found.high)}]"
  if found.low <= 0 <= found.high:
    return f"{interval}, not distinguishable from full training"
  better = (found.mean > 0) == group.metric.larger_is_better
  return f"{interval}, {'better' if better else 'worse'} than full training"


def _savings(group: Group, whole: Group, seconds: bool) -> str:
  """Says what a group saved of full training's passes and time."""
  backward, forward = saved(group, whole, "backward_visits"), saved(group, whole, "forward_visits")
  parts = [_less(backward, "fewer", "as many", "backward passes")]
  if abs(forward - backward) > 0.01:  # it scores samples that it does not train on
    parts.append(_less(forward, "fewer", "as many", "forward passes"))
  if seconds:
    spent = _less(1 - 1 / speed_up(group, whole), "less", "the same", "time")
    ratio = _log_ratio(group, whole)
    parts.append(f"{spent} (perhaps by chance)" if ratio.low <= 0 <= ratio.high else spent)
  return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]


def _log_ratio(group: Group, whole: Group) -> Difference:
  """Returns the logarithm of a group's seconds over full training's, paired by seed, see `groups.work_seconds`."""
  ours, theirs = ({run.seed: work_seconds(g, run) for run in g.runs} for g in (group, whole))
  common = [seed for seed in sorted(ours.keys() & theirs.keys()) if ours[seed] > 0 and theirs[seed] > 0]
  return paired(math.log(ours[seed] / theirs[seed]) for seed in common)


def _less(fraction: float, less: str, same: str, what: str) -> str:
  percent = round(100 * abs(fraction)) if math.isfinite(fraction) else 0
  if fraction <= -1:
    return f"{1 - fraction:.2g} times the {what}" if fraction > -98.5 else f"{1 - fraction:.0f} times the {what}"
  return f"{percent} % {less if fraction >= 0 else 'more'} {what}" if percent else f"{same} {what}"


def _beside(group: Group, position: Position) -> str:
  """Says where a group lies beside the frontier of shorter plain runs."""
  found = position.difference
  interval = f"{_points(group, found.mean)} [{_points(group, found.low)}, {_points(group, found.high)}]"
  return f"{position.word} the frontier of shorter plain runs at its own compute ({interval})"
