"""The frontier of plain training: what shorter runs on all data reach at each cost, and where a method lies beside it.

A method that costs half of full training has to beat plain training for half as long, at a learning rate that was tuned
for that length. Learning rates are chosen on the validation split alone, for plain runs and for methods alike. Pure
functions of the numbers of runs.

Between two lengths the frontier is linear in the logarithm of the cost: an accuracy gains about as much by each
doubling, and a straight line in the cost itself would lie below such a curve, in favour of the methods. It is not
extended beyond the shortest and the longest plain run. Whoever can train for a cost can also train for less, so a
length whose validation metric is worse than a cheaper one's takes the runs of the cheaper one. That choice, too, is
made without a look at the test set: the best of several noisy test metrics would lie above what plain runs can expect.

Each seed has a curve of its own. A method's distance is the mean over the seeds that both have, with a 95 % interval
from Student's t.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from dynsel_jax.metric import Metric
from dynsel_jax.report.groups import (
  LENGTH,
  RATE,
  Difference,
  Group,
  Spread,
  paired,
  sections,
  shared_without,
  spread,
  summary,
  work_seconds,
)
from dynsel_jax.runs.finished import Run, final

__all__ = [
  "COSTS",
  "PLAIN",
  "Cost",
  "Curve",
  "Outcome",
  "Position",
  "Word",
  "at",
  "chosen",
  "comparable",
  "curve",
  "curve_of",
  "position",
  "positions",
  "rejected",
  "tuned",
  "without_rate",
]

PLAIN = "full"  # the method that trains on everything

Word = Literal["above", "on", "below", "unknown"]


class Outcome(NamedTuple):
  """The numbers of one finished run."""

  seed: int
  cost: float  # in any unit, the same for all runs that are compared
  metric: float  # on the test set, at the end
  validation: float = math.nan  # on the validation set, at the end; nan without one


class Curve(NamedTuple):
  """The frontier of `K` lengths and `S` seeds."""

  costs: np.ndarray  # [K] float64, ascending, means over the seeds
  metrics: np.ndarray  # [S, K] float64; nan where a length lacks the seed
  seeds: tuple[int, ...]  # S of them, ascending

  @property
  def means(self) -> np.ndarray:
    """The metric at each cost, averaged over the seeds that have it, `[K]` float64."""
    return np.nanmean(self.metrics, axis=0)


class Position(NamedTuple):
  """Where a method lies beside the frontier at its own cost."""

  cost: float  # mean over the seeds
  metric: Spread  # of the method
  frontier: float  # of plain training at that cost, mean over the same seeds; nan outside the curve
  difference: Difference  # method minus frontier, paired by seed
  word: Word  # "above" is better than the frontier, whatever the metric's direction


def tuned(candidates: Sequence[Sequence[Outcome]], metric: Metric) -> int | None:
  """Chooses one of several settings by the mean validation metric over the seeds that all of them have.

  Args:
    candidates: the runs of each setting, for example of each learning rate.
    metric: says which direction is better.

  Returns:
    The place of the best, the first of equals, and 0 if there is only one; None if there is none, or no seed for which
    all have a validation metric: then nothing but the test set could tell them apart.
  """
  if len(candidates) < 2:
    return 0 if candidates and candidates[0] else None
  known = [{one.seed: one.validation for one in runs if math.isfinite(one.validation)} for runs in candidates]
  common = sorted(set.intersection(*map(set, known)))
  if not common:
    return None
  sign = 1.0 if metric.larger_is_better else -1.0
  return int(np.argmax([sign * np.mean([values[seed] for seed in common]) for values in known]))


def curve(lengths: Iterable[Sequence[Outcome]], metric: Metric) -> Curve | None:
  """Returns the frontier of plain runs.

  Args:
    lengths: the runs of each length at its tuned learning rate, in any order.
    metric: says which direction is better.

  Returns:
    The curve; None for fewer than two costs.
  """
  knots = sorted(({one.seed: one for one in runs} for runs in lengths if runs), key=_mean_cost)
  costs = np.array([_mean_cost(knot) for knot in knots], np.float64)
  if len(set(costs.tolist())) < 2:
    return None
  seeds = sorted(set().union(*knots))
  reached, best = [], knots[0]
  for knot in knots:
    if not _worse(knot, best, metric):
      best = knot
    reached.append([best[seed].metric if seed in best else math.nan for seed in seeds])
  last = np.append(np.diff(costs) > 0, True)  # of several lengths with the same cost
  return Curve(costs[last], np.array(reached, np.float64).T[:, last], tuple(seeds))


def _mean_cost(runs: Mapping[int, Outcome]) -> float:
  return float(np.mean([one.cost for one in runs.values()])) if runs else math.nan


def _worse(runs: Mapping[int, Outcome], others: Mapping[int, Outcome], metric: Metric) -> bool:
  """Whether the mean validation metric is worse than that of `others`; False if no seed tells."""
  pairs = [(one.validation, others[seed].validation) for seed, one in runs.items() if seed in others]
  ours, theirs = (spread(values).mean for values in zip(*pairs, strict=True)) if pairs else (math.nan, math.nan)
  return math.isfinite(ours) and math.isfinite(theirs) and metric.better(theirs, ours)


def at(frontier: Curve, cost: float) -> np.ndarray:
  """Returns each seed's metric at `cost`, `[S]` float64; nan outside the curve, and beside a length that lacks it."""
  low, high = frontier.costs[0], frontier.costs[-1]
  # Seconds, and visits after a rounded number of epochs, may miss an end of the curve by a trifle.
  if not low * 0.999 <= cost <= high * 1.001:
    return np.full(len(frontier.seeds), np.nan)
  place, knots = np.log(cost), np.log(frontier.costs)
  return np.array([np.interp(place, knots, values) for values in frontier.metrics])


def position(frontier: Curve, runs: Sequence[Outcome], metric: Metric) -> Position:
  """Compares a method's runs, one per seed, with the frontier at their mean cost.

  The word is "on" if the interval contains 0, and "unknown" without an interval: for one common seed, or outside the
  costs of the curve.
  """
  cost = spread(one.cost for one in runs).mean
  ours = {one.seed: one.metric for one in runs}
  theirs = dict(zip(frontier.seeds, at(frontier, cost).tolist(), strict=True))
  common = [seed for seed in sorted(ours.keys() & theirs.keys()) if math.isfinite(theirs[seed])]
  difference = paired(ours[seed] - theirs[seed] for seed in common)
  beside = spread(theirs[seed] for seed in common).mean
  return Position(cost, spread(ours.values()), beside, difference, _word(difference, metric))


def _word(difference: Difference, metric: Metric) -> Word:
  if math.isnan(difference.low):
    return "unknown"
  if difference.low <= 0 <= difference.high:
    return "on"
  return "above" if (difference.mean > 0) == metric.larger_is_better else "below"


Cost = Callable[[Group, Run], float]


def _backward_visits(group: Group, run: Run) -> float:
  del group
  return float(summary(run)["backward_visits"])


def _compute(group: Group, run: Run) -> float:
  del group
  made = summary(run)
  return (made["forward_visits"] + 2 * made["backward_visits"]) / 3


# The cost of a run, by its name. A sample of plain training costs 1 in the first two: its backward pass is taken to
# cost twice its forward pass, so that a forward pass alone, which only chooses samples, costs a third.
COSTS: dict[str, Cost] = {"backward visits": _backward_visits, "compute": _compute, "seconds": work_seconds}


def _outcome(group: Group, run: Run, cost: Cost) -> Outcome:
  """Returns the numbers of a run; the validation metric is that of the last epoch, as the test metric is."""
  last = run.metrics[-1].get(f"validation_{run.metric.name}") if run.metrics else None
  return Outcome(run.seed, cost(group, run), final(run), math.nan if last is None else float(last))


def chosen(groups: Iterable[Group], cost: Cost) -> list[tuple[Group, list[Outcome]]]:
  """Chooses one of all groups that differ only by their learning rate.

  Args:
    groups: groups of one data set, task and metric.
    cost: one of `COSTS`.

  Returns:
    The chosen groups with the numbers of their runs, in the order of `groups`. Where the choice would need the test
    set, see `tuned`, none is chosen.
  """
  found = []
  for alike in _by_learning_rate(groups):
    candidates = [[_outcome(group, run, cost) for run in group.runs] for group in alike]
    place = tuned(candidates, alike[0].metric)
    if place is not None:
      found.append((alike[place], candidates[place]))
  return found


def _by_learning_rate(groups: Iterable[Group]) -> list[list[Group]]:
  """Puts together the groups that differ only by their learning rate."""
  found: dict[object, list[Group]] = {}
  for group in groups:
    found.setdefault((group.method, group.own, shared_without(group, RATE)), []).append(group)
  return list(found.values())


def rejected(groups: Sequence[Group]) -> list[Group]:
  """Returns the groups whose learning rate was tried and is not the best on the validation set."""
  found = []
  for members in sections(groups).values():
    taken = {id(group) for group, _ in chosen(members, COSTS["backward visits"])}
    tried = [alike for alike in _by_learning_rate(members) if any(id(group) in taken for group in alike)]
    found += [group for alike in tried for group in alike if id(group) not in taken]
  return found


def without_rate(groups: Sequence[Group]) -> list[Group]:
  """Returns tuned groups under their sweep's names without the learning rate, as far as these tell them apart."""
  names = [re.sub(rf"-{RATE}[^-]*$", "", group.cell) for group in groups]
  unique = len(set(names)) == len(names)
  return [group._replace(cell=name) for group, name in zip(groups, names, strict=True)] if unique else list(groups)


def comparable(groups: Sequence[Group]) -> bool:
  """Whether all groups have one frontier: their recipes differ by length and learning rate at most."""
  return len({shared_without(group, RATE, *LENGTH) for group in groups}) <= 1


def curve_of(group: Group, groups: Iterable[Group], cost: Cost) -> Curve | None:
  """Returns the frontier that `group` is compared with: plain runs of its recipe but for length and learning rate.

  Args:
    group: the group.
    groups: all groups of its data set, task and metric.
    cost: one of `COSTS`.

  Returns:
    The curve; None without two lengths whose learning rate needed no choice or was chosen on a validation set.
  """
  free = (RATE, *LENGTH)
  plain = [g for g in groups if g.method == PLAIN and shared_without(g, *free) == shared_without(group, *free)]
  return curve((runs for _, runs in chosen(plain, cost)), group.metric)


def positions(groups: Sequence[Group], cost: Cost) -> list[tuple[Group, Position]]:
  """Returns where each method lies beside the frontier, at its tuned learning rate, in the order of `groups`.

  Args:
    groups: all groups of a data set, task and metric.
    cost: one of `COSTS`.

  Returns:
    The group with the chosen learning rate, and its position. Methods for which there is no frontier, or whose learning
    rate only the test set could tell, are left out.
  """
  found = []
  for group, runs in chosen((group for group in groups if group.method != PLAIN), cost):
    frontier = curve_of(group, groups, cost)
    if frontier is not None:
      found.append((group, position(frontier, runs, group.metric)))
  return found
