"""Groups of runs that differ only by their seed, and statistics over their seeds. Pure functions of runs in memory.

A group's value is the mean over its seeds, with the sample standard deviation (n - 1). Two groups are compared by the
paired differences over the seeds that both have, with a 95 % interval from Student's t.
"""

import collections
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import scipy  # imports its `stats` on use, which takes longer than JAX

from dynsel_jax import options
from dynsel_jax.report import offline_costs
from dynsel_jax.runs import timing
from dynsel_jax.runs.finished import Metric, Run

__all__ = [
  "LENGTH",
  "RATE",
  "Difference",
  "Group",
  "Spread",
  "by_metric",
  "collect",
  "device",
  "difference",
  "paired",
  "phase_seconds",
  "realised",
  "recipe",
  "reference",
  "sections",
  "shared_without",
  "spread",
  "summary",
  "work_seconds",
]

# Config fields in which the runs of a group may differ: they do not change what is learnt, or follow from the seed.
_IGNORED = (
  "seed",
  "cache_dir",
  "checkpoint_every_steps",
  "eval_batch_size",
  "dataset.data_dir",  # for a folder of images it is part of the data set's name
  "scores.path",  # often one file per seed
  "selector.name",  # part of the method's name
)
_LONGEST = 200  # characters of a label
LENGTH = ("epochs", "match_steps")  # fields for the length of training; a group and its reference may differ in them
RATE = "learning_rate"  # the field that is tuned
_METHOD_SECTIONS = ("selector", "wrappers", "scores", *timing.OFFLINE)  # the rest of the config is the recipe


class Spread(NamedTuple):
  """Mean and sample standard deviation over `n` seeds; `sd` is nan for n = 1, both are nan for n = 0."""

  mean: float
  sd: float
  n: int


class Difference(NamedTuple):
  """Mean of `n` paired differences with its 95 % interval.

  The interval is nan for n = 1, and where all differences are the same but not 0: a metric that counts a few hundred
  samples gives equal ones by chance, and an interval without width would be a certainty that nobody has.
  """

  mean: float
  low: float
  high: float
  n: int


class Group(NamedTuple):
  """The finished runs of one method with one setting on one data set and task, one run per seed."""

  dataset: str
  task: str
  metric: Metric
  method: str  # the selector with its wrappers
  own: tuple[tuple[str, Any], ...]  # options of the method that differ between its groups
  shared: tuple[tuple[str, Any], ...]  # fields of the recipe that differ between the groups of the data set
  runs: tuple[Run, ...]  # sorted by seed
  offline: Mapping[int, Mapping[str, float]]  # seconds of features and factors by seed, as if nothing had been cached
  cell: str = ""  # the runs' name in their sweep, where it serves as the label

  @property
  def label(self) -> str:
    """The name in tables and plots: the sweep's, or else the method with the settings that differ."""
    if self.cell:
      return options.printable(self.cell, _LONGEST)
    settings = [(name.rpartition(".")[2].removesuffix("_fraction"), value) for name, value in (*self.own, *self.shared)]
    words = [f"{name}={_word(value)}" for name, value in settings]
    return options.printable(f"{self.method} ({', '.join(words)})" if words else self.method, _LONGEST)

  @property
  def keep_fraction(self) -> float | None:
    """The nominal keep fraction; None for a method without one."""
    return 1.0 if self.method == "full" else self.runs[0].config["selector"].get("keep_fraction")

  @property
  def offline_seconds(self) -> float:
    """The mean seconds of the offline stage over the seeds, as if none of it had been cached."""
    return spread(sum(seconds.values()) for seconds in self.offline.values()).mean


class _Measured(Protocol):
  """A run or a group."""

  @property
  def task(self) -> str: ...

  @property
  def metric(self) -> Metric: ...


_M = TypeVar("_M", bound=_Measured)


def _word(value: Any) -> str:
  return f"{value:g}" if isinstance(value, float) else str(value)


def summary(run: Run) -> dict[str, Any]:
  """Returns the summary of a finished run."""
  assert run.summary is not None
  return run.summary


def device(run: Run) -> str:
  """Names a run's devices, as in "2 x cpu"; "" where it does not say."""
  made: Any = run.made.get("device")
  known = isinstance(made, dict) and {"count", "kind"} <= made.keys()
  return f"{made['count']} x {made['kind']}" if known else ""


def collect(found: Iterable[Run]) -> tuple[list[Group], list[str]]:
  """Groups the finished runs.

  Returns:
    The groups, `full` and `random` first within a data set; and notes, as sentences, on runs that were left out and on
    groups that have fewer seeds than others.
  """
  left_out: list[str] = []
  few: list[str] = []
  by_dataset: dict[str, list[Run]] = collections.defaultdict(list)
  for run in found:
    if run.summary is None:
      left_out.append(f"{run.path.name}: not finished ({', '.join(run.missing)})")
    else:
      by_dataset[_dataset(run)].append(run)
  groups = []
  for dataset, of_dataset in by_dataset.items():
    offline = offline_costs.offline_costs(of_dataset, _method)
    for members in by_metric(of_dataset).values():
      made = _named_by_sweep(_grouped(dataset, members, offline, left_out))
      most = max(len(group.runs) for group in made)
      if fewer := [f"{g.label} ({len(g.runs)} of {most})" for g in made if len(g.runs) < most]:
        few.append(f"Fewer seeds on {dataset}: {', '.join(fewer)}.")
      if data := sorted(set(_data_beyond_config(members).values())):
        few.append(
          f"Different data under the name {dataset}: its files were changed between runs. They are reported separately,"
          f" by the first digits of their fingerprints ({', '.join(data)})."
        )
      groups += made
  return sorted(groups, key=_order), [*(f"Left out: {line}." for line in left_out), *few]


def by_metric(items: Iterable[_M]) -> dict[str, list[_M]]:
  """Parts runs or groups by task and metric.

  Returns:
    The items by the words that tell their task and metric from the others'; "" if all have the same.
  """
  parts: dict[tuple[str, ...], list[_M]] = collections.defaultdict(list)
  for item in items:
    metric = item.metric
    direction = f"{'larger' if metric.larger_is_better else 'smaller'} is better"
    parts[(item.task, metric.words, metric.unit or "no unit", direction)].append(item)
  differing = [place for place, words in enumerate(zip(*parts, strict=True)) if len(set(words)) > 1]
  return {", ".join(words[place] for place in differing): members for words, members in parts.items()}


def sections(groups: Sequence[Group]) -> dict[str, list[Group]]:
  """Returns the groups that share tables, by their heading: the data set, and where it has several the metric."""
  found: dict[str, list[Group]] = {}
  for dataset in dict.fromkeys(group.dataset for group in groups):
    for words, members in by_metric(group for group in groups if group.dataset == dataset).items():
      found[f"{dataset}: {words}" if words else dataset] = members
  return found


def _dataset(run: Run) -> str:
  """Names the data set; two folders of images are two data sets."""
  dataset = run.config["dataset"]
  return f"folder {dataset.get('data_dir')}" if dataset["name"] == "folder" else dataset["name"]


def _named_by_sweep(groups: list[Group]) -> list[Group]:
  """Labels groups as their sweep did, if its names are unique and some label would list two settings or more."""
  cells = [
    {re.sub(r"-seed\d+$", "", run.path.name) for run in group.runs if "-seed" in run.path.name} for group in groups
  ]
  names = [next(iter(cell)) if len(cell) == 1 else "" for cell in cells]
  if "" in names or len(set(names)) < len(names) or all(len((*g.own, *g.shared)) < 2 for g in groups):
    return groups
  return [group._replace(cell=name) for group, name in zip(groups, names, strict=True)]


def _order(group: Group) -> tuple[Any, ...]:
  """Sorts `full` and `random` first, then by method and keep fraction."""
  first = {"full": 0, "random": 1}.get(group.method, 2)
  kind = (group.dataset, group.task, group.metric)
  return *kind, first, group.method, group.keep_fraction or 0.0, group.label


def _data_beyond_config(members: Sequence[Run]) -> dict[pathlib.Path, str]:
  """Returns the first digits of each run's data fingerprint if runs with the same settings have different data."""
  prints: dict[str, set[str]] = collections.defaultdict(set)
  found = {}
  for run in members:
    data = run.made.get("data_fingerprint")
    if isinstance(data, str):
      settings = {k: v for k, v in options.flatten(run.config["dataset"]).items() if f"dataset.{k}" not in _IGNORED}
      prints[json.dumps(settings, sort_keys=True)].add(data)
      found[run.path] = data[:8]
  return found if any(len(data) > 1 for data in prints.values()) else {}


def _grouped(
  dataset: str, members: Sequence[Run], offline: Callable[[Run], Mapping[str, float]], left_out: list[str]
) -> list[Group]:
  """Groups the runs of one data set, task and metric; a second run with the same seed is noted in `left_out`."""

  def of_method(name: str) -> bool:
    return name.partition(".")[0] in _METHOD_SECTIONS

  fields = {
    run.path: {k: _hashable(v) for k, v in options.flatten(run.config).items() if k not in _IGNORED} for run in members
  }
  for path, data in _data_beyond_config(members).items():
    fields[path]["data"] = data
  _drop_seeds_of_factors(members, fields)
  recipe = _differing([{k: v for k, v in fields[run.path].items() if not of_method(k)} for run in members])
  own = {
    method: _differing(
      [{k: v for k, v in fields[r.path].items() if of_method(k)} for r in members if _method(r) == method]
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
      left_out.append(f"{run.path.name}: same config and seed as {cell[run.seed].path.name}")
    cell.setdefault(run.seed, run)
  groups = []
  for (method, ours, shared), cell in cells.items():
    runs = tuple(run for _, run in sorted(cell.items()))
    paid = {run.seed: offline(run) for run in runs}
    groups.append(Group(dataset, runs[0].task, runs[0].metric, method, ours, shared, runs, paid))
  return groups


def _drop_seeds_of_factors(members: Sequence[Run], fields: Mapping[pathlib.Path, dict[str, Any]]) -> None:
  """Drops `factors.seed`, which may follow the run's seed, unless two runs of one seed differ in it."""
  seeds: dict[int, set[Any]] = collections.defaultdict(set)
  for run in members:
    if "factors.seed" in fields[run.path]:
      seeds[run.seed].add(fields[run.path]["factors.seed"])
  if all(len(found) == 1 for found in seeds.values()):
    for run in members:
      fields[run.path].pop("factors.seed", None)


def _method(run: Run) -> str:
  """Names the selector with its wrappers, the innermost first."""
  return " + ".join((run.config["selector"]["name"], *run.config.get("wrappers", {}).get("names", ())))


def _hashable(value: Any) -> Any:
  return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _differing(fields: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns the names that do not have the same value in all of the mappings."""
  names = dict.fromkeys(name for field in fields for name in field)
  return [name for name in names if len({field.get(name) for field in fields}) > 1]


def reference(group: Group, groups: Iterable[Group], method: str) -> Group | None:
  """Returns the group of `method` that `group` is compared with.

  It has the same data set, task, metric and recipe; if there is none, the recipe may differ in the number of epochs,
  and in the learning rate where no two of them or of the method's groups differ by it alone, as when it was tuned. Of
  several the one with the same keep fraction is taken, or else the nearest realised one, the longest of equals.

  Returns:
    The reference; None if there is none, or if `group` is itself of `method`.
  """
  if group.method == method:  # two settings of one method are not each other's reference
    return None
  kind = (group.dataset, group.task, group.metric)
  all_alike = [g for g in groups if (g.dataset, g.task, g.metric) == kind]
  candidates = [g for g in all_alike if g.method == method]
  siblings = [g for g in all_alike if (g.method, g.own) == (group.method, group.own)]
  alike = [g for g in candidates if g.shared == group.shared] or _alike(group, candidates, siblings)
  same_fraction = [g for g in alike if g.keep_fraction == group.keep_fraction]
  if len(same_fraction) == 1:
    return same_fraction[0]

  def distance(other: Group) -> tuple[float, int]:
    return abs(realised(other) - realised(group)), -int(other.runs[0].config.get("epochs", 0))

  return min(alike, key=distance, default=None)


def _alike(group: Group, candidates: Sequence[Group], siblings: Sequence[Group]) -> list[Group]:
  """Returns the candidates that differ from `group` by the length alone, or by a tuned learning rate too.

  It counts as tuned where neither they nor the `siblings`, of the same method and options, differ by it alone.
  """
  free = (RATE, *LENGTH)
  tuned = [g for g in candidates if shared_without(g, *free) == shared_without(group, *free)]
  if all(len({(g.own, shared_without(g, RATE)) for g in some}) == len(some) for some in (tuned, siblings)):
    return tuned
  return [g for g in candidates if recipe(g) == recipe(group)]


def recipe(group: Group) -> tuple[tuple[str, Any], ...]:
  """Returns the fields of `group.shared` without those for the length of training."""
  return shared_without(group, *LENGTH)


def shared_without(group: Group, *names: str) -> tuple[tuple[str, Any], ...]:
  """Returns the fields of `group.shared` but for those called `names`."""
  return tuple((name, value) for name, value in group.shared if name not in names)


def realised(group: Group) -> float:
  """Returns the mean realised keep fraction of the group's runs."""
  return spread(summary(run)["realised_keep_fraction"] for run in group.runs).mean


def spread(values: Iterable[float]) -> Spread:
  """Returns mean and sample standard deviation."""
  array = np.asarray(list(values), np.float64)
  mean = float(array.mean()) if array.size else math.nan
  return Spread(mean, float(array.std(ddof=1)) if array.size > 1 else math.nan, array.size)


def difference(group: Group, other: Group, value: Callable[[Run], float]) -> Difference:
  """Returns `value` of `group` minus that of `other`, paired by seed."""
  ours, theirs = ({run.seed: value(run) for run in g.runs} for g in (group, other))
  return paired(ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys()))


def paired(differences: Iterable[float]) -> Difference:
  """Returns the mean of paired differences with its interval."""
  mean, sd, n = spread(differences)
  unknown = n < 2 or sd < 1e-9 * abs(mean)
  half = math.nan if unknown else float(scipy.stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
  return Difference(mean, mean - half, mean + half, n)


def phase_seconds(group: Group, run: Run) -> dict[str, float]:
  """Returns a run's seconds by phase, the offline ones as if nothing had been cached.

  What runs of earlier versions spent in no phase is "unnamed".
  """
  measured = summary(run)["seconds"]
  named = {name: measured.get(name, 0.0) for name in timing.PHASES}
  return {**named, **group.offline[run.seed], "unnamed": max(measured["total"] - sum(named.values()), 0.0)}


def work_seconds(group: Group, run: Run) -> float:
  """Returns the seconds that the method cost: those of the phases `timing.COST`."""
  seconds = phase_seconds(group, run)
  return sum(seconds[name] for name in timing.COST)
