"""Runs that differ by their seed alone, and what is taken over them. Pure functions over what `runs` reads.

A group's value is the mean over its seeds, with the sample standard deviation (n - 1). A difference between two groups
is taken seed by seed, over the seeds that both have, with Student's t for its 95 % interval.
"""

import collections
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from dynsel_jax import options
from dynsel_jax.report import runs as runs_lib
from dynsel_jax.report.runs import Run

__all__ = [
  "Difference",
  "Group",
  "Spread",
  "collect",
  "difference",
  "realised",
  "recipe",
  "reference",
  "spread",
  "work_seconds",
]

# What may differ between runs that are compared: where things lie, and how often a run is saved.
_IGNORED = (
  "seed",
  "cache_dir",
  "checkpoint_every_steps",
  "eval_batch_size",
  "dataset.data_dir",  # of a folder of images it is part of the data set's name
  "scores.path",  # often a file for each seed
  "selector.name",
)
_LENGTH = ("epochs", "match_steps")  # fields that may differ between a group and its reference
_OF_METHOD = ("selector", "wrappers", "features", "factors", "scores")  # sections that belong to the method


class Spread(NamedTuple):
  """Mean and sample standard deviation over `n` seeds; the latter is nan for one, both for none."""

  mean: float
  sd: float
  n: int


class Difference(NamedTuple):
  """The mean of paired differences, and its 95 % interval, which is nan for one pair."""

  mean: float
  low: float
  high: float
  n: int


class Group(NamedTuple):
  """The finished runs of one method with one setting on one data set, one for each seed."""

  dataset: str
  method: str  # with its wrappers
  own: tuple[tuple[str, Any], ...]  # options of the method that set the group apart from others of it
  shared: tuple[tuple[str, Any], ...]  # fields of the recipe that are not the same in all groups of the data set
  runs: tuple[Run, ...]  # by seed
  offline_seconds: float  # of the offline stage, as if nothing of it had been cached
  cell: str = ""  # the runs' name in their sweep, where it is to stand for the group

  @property
  def label(self) -> str:
    """The method with what sets the group apart, or the name that a sweep has given it."""
    if self.cell:
      return self.cell
    set_apart = [
      (name.rpartition(".")[2].removesuffix("_fraction"), value) for name, value in (*self.own, *self.shared)
    ]
    words = [f"{name}={_word(value)}" for name, value in set_apart]
    return f"{self.method} ({', '.join(words)})" if words else self.method

  @property
  def keep_fraction(self) -> float | None:
    """The nominal keep fraction, None where the method has none."""
    return 1.0 if self.method == "full" else self.runs[0].config["selector"].get("keep_fraction")


def _word(value: Any) -> str:
  return f"{value:g}" if isinstance(value, float) else str(value)


def _summary(run: Run) -> dict[str, Any]:
  assert run.summary is not None
  return run.summary


def collect(found: Iterable[Run]) -> tuple[list[Group], list[str]]:
  """Groups the finished runs; returns the groups and, as sentences, what was left out and which groups lack seeds."""
  left_out: list[str] = []
  few: list[str] = []
  by_dataset: dict[str, list[Run]] = collections.defaultdict(list)
  for run in found:
    if run.summary is None:
      left_out.append(f"{run.path.name}: not finished ({', '.join(run.missing)})")
    else:
      by_dataset[_dataset(run)].append(run)
  groups = []
  for name, members in by_dataset.items():
    of_dataset = _named_by_sweep(_of_dataset(name, members, left_out))
    most = max(len(group.runs) for group in of_dataset)
    if fewer := [f"{g.label} ({len(g.runs)} of {most})" for g in of_dataset if len(g.runs) < most]:
      few.append(f"Fewer seeds on {name}: {', '.join(fewer)}.")
    groups += of_dataset
  return sorted(groups, key=_order), [*(f"Left out: {line}." for line in left_out), *few]


def _dataset(run: Run) -> str:
  """Names the data set; two folders of images are two."""
  dataset = run.config["dataset"]
  return f"folder {dataset.get('data_dir')}" if dataset["name"] == "folder" else dataset["name"]


def _named_by_sweep(groups: list[Group]) -> list[Group]:
  """Names groups as their sweep did, where that tells them apart and one has more than one setting to its name."""
  cells = [
    {re.sub(r"-seed\d+$", "", run.path.name) for run in group.runs if "-seed" in run.path.name} for group in groups
  ]
  names = [next(iter(cell)) if len(cell) == 1 else "" for cell in cells]
  if "" in names or len(set(names)) < len(names) or all(len((*g.own, *g.shared)) < 2 for g in groups):
    return groups
  return [group._replace(cell=name) for group, name in zip(groups, names, strict=True)]


def _order(group: Group) -> tuple[Any, ...]:
  """Sorts `full` and `random` first, then by method and share kept."""
  first = {"full": 0, "random": 1}.get(group.method, 2)
  return group.dataset, first, group.method, group.keep_fraction or 0.0, group.label


def _of_dataset(dataset: str, members: Sequence[Run], left_out: list[str]) -> list[Group]:
  def section(name: str) -> bool:
    return name.partition(".")[0] in _OF_METHOD

  fields = {
    run.path: {k: _hashable(v) for k, v in options.flatten(run.config).items() if k not in _IGNORED} for run in members
  }
  recipe = _differing([{k: v for k, v in fields[run.path].items() if not section(k)} for run in members])
  own = {
    method: _differing(
      [{k: v for k, v in fields[r.path].items() if section(k)} for r in members if _method(r) == method]
    )
    for method in {_method(run) for run in members}
  }
  cells: dict[tuple[Any, ...], dict[int, Run]] = collections.defaultdict(dict)
  for run in members:
    values = fields[run.path]
    ours = tuple((name, values[name]) for name in own[_method(run)] if name in values)
    shared = tuple((name, values[name]) for name in recipe if name in values)
    cell = cells[(_method(run), ours, shared)]
    if run.seed in cell:
      left_out.append(f"{run.path.name}: the same run as {cell[run.seed].path.name}")
    cell.setdefault(run.seed, run)
  offline = _offline(members)
  return [
    Group(dataset, method, ours, shared, runs := tuple(run for _, run in sorted(cell.items())), offline(runs[0]))
    for (method, ours, shared), cell in cells.items()
  ]


def _offline(members: Sequence[Run]) -> Callable[[Run], float]:
  """Returns a function that gives the seconds of a run's offline stage, as if nothing of it had been cached.

  A phase took the longest that any run with the same settings of it took: the others may have found it made.
  """

  def keys(run: Run) -> dict[str, tuple[Any, ...]]:
    sections = {name: json.dumps(run.config.get(name), sort_keys=True) for name in (*runs_lib.OFFLINE, "model")}
    space = sections["features"]
    trained = sections["model"] if '"backbone"' in space else ""  # whose features are the model's own
    method = _method(run) if space == "null" else ""
    return {"features": (space, trained, method), "factors": (space, trained, method, sections["factors"])}

  longest: dict[tuple[Any, ...], float] = collections.defaultdict(float)
  for run in members:
    for phase, key in keys(run).items():
      longest[(phase, *key)] = max(longest[(phase, *key)], _summary(run)["seconds"].get(phase, 0.0))
  return lambda run: sum(longest[(phase, *key)] for phase, key in keys(run).items())


def _method(run: Run) -> str:
  """Names the selector with the wrappers around it, the innermost first."""
  return " + ".join((run.config["selector"]["name"], *run.config.get("wrappers", {}).get("names", ())))


def _hashable(value: Any) -> Any:
  return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _differing(fields: Sequence[dict[str, Any]]) -> list[str]:
  """Returns the names that do not have the same value in all of the dicts."""
  names = dict.fromkeys(name for field in fields for name in field)
  return [name for name in names if len({field.get(name) for field in fields}) > 1]


def reference(group: Group, groups: Iterable[Group], method: str) -> Group | None:
  """Returns the group of `method` that `group` is compared with; None if there is none, or it is of that method itself.

  It has the same recipe, or all of it but the number of epochs where only that one is there; of several it is the one
  with the same keep fraction, or else the one whose realised share is nearest.
  """
  if group.method == method:  # two of its settings are neither's reference
    return None
  candidates = [g for g in groups if g.dataset == group.dataset and g.method == method]
  alike = [g for g in candidates if g.shared == group.shared] or [g for g in candidates if recipe(g) == recipe(group)]
  same_share = [g for g in alike if g.keep_fraction == group.keep_fraction]
  if len(same_share) == 1:
    return same_share[0]
  return min(alike, key=lambda other: abs(realised(other) - realised(group)), default=None)


def recipe(group: Group) -> tuple[tuple[str, Any], ...]:
  """Returns what is shared with other groups of the data set but the length of training."""
  return tuple((name, value) for name, value in group.shared if name not in _LENGTH)


def realised(group: Group) -> float:
  """Returns the mean realised keep fraction of the group's runs."""
  return spread(_summary(run)["realised_keep_fraction"] for run in group.runs).mean


def spread(values: Iterable[float]) -> Spread:
  """Returns mean and sample standard deviation."""
  array = np.asarray(list(values), np.float64)
  mean = float(array.mean()) if array.size else math.nan
  return Spread(mean, float(array.std(ddof=1)) if array.size > 1 else math.nan, array.size)


def difference(group: Group, other: Group, value: Callable[[Run], float]) -> Difference:
  """Returns `value` of `group` less that of `other`, paired by seed."""
  ours, theirs = ({run.seed: value(run) for run in g.runs} for g in (group, other))
  paired = spread(ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys()))
  half = math.nan
  if paired.n > 1:
    half = float(stats.t.ppf(0.975, paired.n - 1)) * paired.sd / math.sqrt(paired.n)
  return Difference(paired.mean, paired.mean - half, paired.mean + half, paired.n)


def work_seconds(group: Group, run: Run) -> float:
  """Returns a run's seconds with the whole offline stage, without loading and compiling."""
  return runs_lib.seconds_without_offline(_summary(run)["seconds"]) + group.offline_seconds
