"""The report's tables: final metric and cost, usage of the training set, all runs. Pure functions.

`targets` makes the table of the cost of reaching a target, `seconds` that of the phases, `classes` that of what was
kept of each class.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from dynsel_jax.options import printable
from dynsel_jax.report import classes, columns, seconds, targets, verdict
from dynsel_jax.report.columns import METHOD, Column, Row, Show, Table
from dynsel_jax.report.groups import (
  Group,
  by_metric,
  device,
  difference,
  realised,
  reference,
  spread,
  summary,
  work_seconds,
)
from dynsel_jax.runs import finished
from dynsel_jax.runs.finished import Metric, Run

__all__ = ["all_tables", "counts", "gini", "results", "running_tables", "runs_tables", "usage"]

FACTOR_FIELDS = {  # fields of an epoch's metrics: title, scale and format of the mean over the epochs
  "factors_covered": ("factors covered an epoch, %", 100.0, ".1f"),
  "rare_factor_rate": ("rate of rare factors", 1.0, ".2f"),
  "common_factor_rate": ("rate of common factors", 1.0, ".2f"),
}


def results(groups: Sequence[Group]) -> Table:
  """Returns each group's final metric, its paired difference to `full`, and what it saved of full training's cost."""
  metric = groups[0].metric
  rows = [_result(group, groups) for group in groups]
  scale, form = columns.metric_format(metric)
  shown = [
    *METHOD,
    Column(metric.title, columns.mean_sd("metric", scale, form)),
    Column("against full", columns.interval("less_full", scale, form)),
    Column("backward passes saved, %", columns.plain("saved_backward", 100, ".0f")),
    Column("seconds", columns.mean_sd("seconds")),
  ]
  if not seconds.incomparable([run for group in groups for run in group.runs]):
    shown.append(Column("time saved, %", columns.plain("seconds_saved", 100, ".0f")))
    shown.append(Column("speed-up", columns.plain("seconds_speed_up", 1, ".2f")))
  where = verdict.beside_frontier(groups)
  if any(position.word != "unknown" for position in where.values()):
    for row in rows:
      if (position := where.get(row["label"])) is not None:
        row["beside_frontier"] = position.word
        columns.put(row, "less_frontier", position.difference)
    shown.append(Column("against shorter plain runs", columns.interval("less_frontier", scale, form)))
  return Table("results", "Results", _results_note(groups, metric, rows), tuple(shown), rows)


def _result(group: Group, groups: Sequence[Group]) -> Row:
  """Returns the row of a group: metrics, differences, costs, and the fractions of full training's costs saved."""
  row: Row = {**columns.row_of(group), "metric": group.metric.name}
  columns.put(row, "metric", spread(map(finished.final, group.runs)))
  columns.put(row, "best_metric", spread(map(finished.best, group.runs)))
  whole, random = verdict.whole_of(group, groups), reference(group, groups, "random")
  for method, other in (("full", whole), ("random", random if group.method != "full" else None)):
    if other is not None:
      columns.put(row, f"less_{method}", difference(group, other, finished.final))
      if method == "random" and other.keep_fraction != group.keep_fraction:
        row["less_random_kept"] = f", random at {100 * realised(other):.0f} %"
      if method == "full":
        row["saved_backward"] = verdict.saved(group, other, "backward_visits")
        row["seconds_speed_up"] = verdict.speed_up(group, other)
        row["seconds_saved"] = 1 - 1 / row["seconds_speed_up"] if row["seconds_speed_up"] else math.nan
  row["nominal_keep_fraction"] = group.keep_fraction
  for name in ("realised_keep_fraction", "backward_visits", "forward_visits"):
    columns.put(row, name, spread(float(summary(run)[name]) for run in group.runs))
  columns.put(row, "seconds", spread(work_seconds(group, run) for run in group.runs))
  return row


def counts(groups: Sequence[Group]) -> Table:
  """Returns what each group kept and the passes that it took, and its paired difference to `random`."""
  own = ("realised", "nominal", "backward", "forward", "less_random", *columns.row_of(groups[0]))
  rows = [{k: v for k, v in _result(group, groups).items() if k.startswith(own)} for group in groups]
  scale, form = columns.metric_format(groups[0].metric)
  shown = (
    *METHOD,
    Column("kept, nominal %", columns.plain("nominal_keep_fraction", 100)),
    Column("kept, realised %", columns.mean_sd("realised_keep_fraction", 100)),
    Column("backward passes, thousands", columns.mean_sd("backward_visits", 1e-3)),
    Column("forward passes, thousands", columns.mean_sd("forward_visits", 1e-3)),
    Column("against random", columns.interval("less_random", scale, form)),
  )
  note = "Passes count samples over the whole run. The nominal fraction is the method's option, if it has one."
  return Table("counts", "What was trained on", note, shown, rows)


def _results_note(groups: Sequence[Group], metric: Metric, rows: Sequence[Row]) -> str:
  """Explains the table of results, names its best group, and lists the costs that it does not include."""
  direction = "larger" if metric.larger_is_better else "smaller"
  unit = {"%": ", in points", "": ""}.get(metric.unit, f", in {metric.unit}")
  note = f"Mean ± standard deviation over n seeds; {direction} is better."
  best = metric.best(row["metric_mean"] for row in rows)
  if len(rows) > 1 and not math.isnan(best):
    note += f" The best mean is that of {next(row['label'] for row in rows if row['metric_mean'] == best)}."
  note += f" Differences are paired by seed{unit}."
  if any("proxy" in run.config for group in groups for run in group.runs):
    note += " Passes and compute leave out those of a proxy network; its seconds are counted in full."
  if made_before := _made_before(groups):
    note += f" Not counted, because it was made beforehand: {made_before}."
  return note


def _made_before(groups: Sequence[Group]) -> str:
  """Lists what the groups' runs read from files made elsewhere, and what every run found in the cache."""
  configs = [run.config for group in groups for run in group.runs]
  files = any(config.get("features", {}).get("name") == "file" for config in configs)
  scores = any(config.get("scores", {}).get("path") for config in configs)
  cached = [
    group.label for group in groups if {"features", "proxy"} & set(group.runs[0].config) and not group.offline_seconds
  ]
  return "; ".join(
    ["features read from a file"] * files
    + ["scores, and the proxy run that gave them"] * scores
    + [f"the offline stage of {', '.join(cached)}, which every run found in the cache"] * bool(cached)
  )


def gini(visits: np.ndarray) -> float:
  """Returns the Gini coefficient of `[N]` counts: 0 if all are equal, near 1 if one sample has them all."""
  ordered = np.sort(visits.astype(np.float64))
  ranks = np.arange(1, ordered.size + 1)
  return float(2 * (ranks * ordered).sum() / (ordered.size * ordered.sum()) - (ordered.size + 1) / ordered.size)


def _epoch_mean(run: Run, name: str) -> float:
  """Returns the mean of a field of the metrics over the epochs that record it; nan if none does."""
  return spread(line[name] for line in run.metrics if line.get(name) is not None).mean


def _usage_row(group: Group) -> Row:
  row = columns.row_of(group)
  known = [run.visits for run in group.runs if run.visits is not None]
  row["n_visits"] = len(known)
  columns.put(row, "seen", spread(np.count_nonzero(visits) / visits.size for visits in known))
  columns.put(row, "visits", spread(visits.mean() for visits in known))
  columns.put(row, "visits_deviation", spread(visits.std() for visits in known))
  columns.put(row, "gini", spread(map(gini, known)))
  noisy = (summary(run).get("noisy_fraction_kept") for run in group.runs)
  columns.put(row, "noisy_fraction_kept", spread(fraction for fraction in noisy if fraction is not None))
  for name in FACTOR_FIELDS:
    means = (_epoch_mean(run, name) for run in group.runs)
    columns.put(row, name, spread(mean for mean in means if not math.isnan(mean)))
  return row


def _class_columns(groups: Sequence[Group], rows: Sequence[Row]) -> list[Column] | None:
  """Adds to the rows the classes of which the least and the most was used; returns their columns, None without them."""
  found = [one for one in classes.used(groups) if one is not None]
  if len(found) < len(groups):
    return None
  for group, one, row in zip(groups, found, rows, strict=True):
    places = {"least": int(np.nanargmin(one.ratio)), "most": int(np.nanargmax(one.ratio))}
    for name, place in places.items():
      row[f"{name}_used_class"] = classes.class_name(group.runs[0], place)
      row[f"{name}_used_ratio"] = float(one.ratio[place])

  def shown(name: str) -> Show:
    return lambda row: f"{printable(row[f'{name}_used_class'], 24)} ({row[f'{name}_used_ratio']:.2f})"

  return [Column(f"{name} used class (visits / expected)", shown(name)) for name in ("least", "most")]


def usage(groups: Sequence[Group]) -> Table:
  """Returns how evenly each group used the training set."""
  rows = list(map(_usage_row, groups))
  partly = any(row["n_visits"] < row["n"] for row in rows)
  shown = [
    *METHOD,
    *([Column("n with usage.npz", columns.text("n_visits"))] if partly else []),
    Column("seen at least once, %", columns.mean_sd("seen", 100)),
    Column("visits a sample", columns.mean_sd("visits")),
    Column("their deviation", columns.mean_sd("visits_deviation")),
    Column("Gini coefficient", columns.mean_sd("gini", 1, ".3f")),
  ]
  if any(row["noisy_fraction_kept_n"] for row in rows):
    shown.append(Column("wrong labels among the visits, %", columns.mean_sd("noisy_fraction_kept", 100)))
  if (of_classes := _class_columns(groups, rows)) is not None:
    shown += of_classes
  note = "The deviation is over the samples of a run; a Gini coefficient of 0 means that all were used equally often."
  if partly:
    note += " Samples seen, visits and the Gini coefficient come only from the runs with a usage.npz."
  if any(row["factors_covered_n"] for row in rows):
    shown += [Column(title, columns.mean_sd(name, scale, form)) for name, (title, scale, form) in FACTOR_FIELDS.items()]
  return Table("usage", "Usage of the training set", note, tuple(shown), rows)


def runs_tables(found: Iterable[Run]) -> list[Table]:
  """Returns one table for each task and metric: every run that was read, with the files that its folder lacks."""
  tables = []
  for words, members in by_metric(found).items():
    metric = members[0].metric
    rows = [
      {
        "run": run.path.name,
        "dataset": run.config["dataset"]["name"],
        "method": run.config["selector"]["name"],
        "seed": run.seed,
        "epochs": len(run.metrics),
        "metric": metric.name,
        "value": finished.value(run.metrics[-1]) if run.metrics else None,
        "device": device(run) or "-",
        "missing": ", ".join(run.missing) or "-",
      }
      for run in members
    ]
    shown = [Column(name, columns.text(name)) for name in ("run", "dataset", "method", "seed", "epochs")]
    shown.append(Column(metric.title, columns.plain("value", *columns.metric_format(metric))))
    shown += [Column(name, columns.text(name)) for name in ("device", "missing")]
    name, title = ("runs", "Runs") if not words else (f"runs_{words}", f"Runs: {words}")
    tables.append(Table(name, title, "All run folders that were read.", tuple(shown), rows))
  return tables


def running_tables(found: Iterable[Run]) -> list[Table]:
  """Returns one table for each task and metric: the runs that are not finished, and how far they are."""
  tables = []
  for words, members in by_metric(run for run in found if run.summary is None).items():
    metric, rows = members[0].metric, []
    for run in members:
      last = run.metrics[-1] if run.metrics else {}
      done, epochs = len(run.metrics), run.config.get("epochs") or 0
      total = (last.get("seconds") or {}).get("total")
      left = total / done * (epochs - done) if total and done and epochs >= done else None
      epoch = f"{min(done + 1, epochs)} of {epochs}" if epochs else str(done + 1)
      rows.append({"run": run.path.name, "epoch": epoch, "value": finished.value(last), "seconds": total, "left": left})
    shown = (
      Column("run", columns.text("run")),
      Column("running epoch", columns.text("epoch")),
      Column(metric.title, columns.plain("value", *columns.metric_format(metric))),
      Column("seconds so far", columns.plain("seconds")),
      Column("seconds left, about", columns.plain("left", 1, ".0f")),
    )
    name, title = ("running", "Running or stopped") if not words else (f"running_{words}", f"Not finished: {words}")
    note = "The metric is that of the last epoch that ended. The time left supposes that the other epochs take as long."
    tables.append(Table(name, title, note, shown, rows))
  return tables


def all_tables(groups: Sequence[Group], target: float | None) -> list[Table]:
  """Returns the tables of the groups of one data set, task and metric; `target` as in `targets.target_of`."""
  by_class = classes.table(groups)
  tables = [results(groups), counts(groups), targets.table(groups, target), seconds.table(groups), usage(groups)]
  return tables if by_class is None else [*tables, by_class]
