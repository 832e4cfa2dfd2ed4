"""The cost of reaching a target value of the metric. Pure functions."""

import math
from collections.abc import Sequence

from dynsel_jax import options
from dynsel_jax.report import columns
from dynsel_jax.report.columns import METHOD, Column, Row, Table
from dynsel_jax.report.groups import Group, by_metric, reference, spread, work_seconds
from dynsel_jax.runs import finished
from dynsel_jax.runs.finished import Metric, Run

__all__ = ["check_target", "table", "target_of", "to_target"]


def check_target(target: float, found: Sequence[Run]) -> None:
  """Checks a target that a user set, in the unit in which the metric of the runs `found` is stored.

  Raises:
    UserError: the runs have several metrics, or the target is not a number that their metric can have.
  """
  parts = by_metric(found)
  if len(parts) > 1:
    raise options.UserError(
      f"target={target} needs runs with one metric, but there are several ({'; '.join(parts)}); report them one by one"
    )
  metric = found[0].metric
  if metric.unit == "%":
    options.check_fraction("target", target)
  elif not math.isfinite(target):
    raise options.UserError(f"target={target} must be finite")


def _one_percent_worse(number: float, metric: Metric) -> float:
  """Returns 99 % of `number`, or `number` / 0.99 where that is the worse one: for a loss, or below 0."""
  return 0.99 * number if metric.larger_is_better == (number > 0) else number / 0.99


def target_of(group: Group, groups: Sequence[Group], target: float | None) -> float:
  """Returns a group's target, in the unit in which the metric is stored.

  Args:
    group: the group.
    groups: all groups of its data set, task and metric.
    target: the target that the user set. By default it is 99 % of the mean of `full` in the same recipe, or of the best
      group's mean if the recipe has no `full`; where smaller is better, that mean is divided by 0.99.
  """
  if target is not None:
    return target
  whole = group if group.method == "full" else reference(group, groups, "full")
  alike = [whole] if whole else [other for other in groups if other.shared == group.shared]
  means = (spread(map(finished.final, other.runs)).mean for other in alike)
  return _one_percent_worse(group.metric.best(means), group.metric)


def to_target(group: Group, run: Run, target: float) -> tuple[float, float, float] | None:
  """Returns epochs, backward visits and seconds until the metric first reached `target`; None if it never did.

  The metric is measured at the end of each epoch. Seconds are those of `groups.work_seconds`.
  """
  for line in run.metrics:
    if run.metric.reaches(finished.value(line), target):
      spent = work_seconds(group, run._replace(summary=line))
      return float(line["epoch"]), float(line["backward_visits"]), spent
  return None


def table(groups: Sequence[Group], target: float | None) -> Table:
  """Returns the cost at which each group reached its target; see `target_of`."""
  metric = groups[0].metric
  rows = []
  for group in groups:
    followed = [run for run in group.runs if run.metrics]
    row: Row = {**columns.row_of(group), "metric": metric.name, "n": len(followed)}
    row["target"] = target_of(group, groups, target)
    reached = [found for run in followed if (found := to_target(group, run, row["target"])) is not None]
    row["reached"] = len(reached)
    for place, name in enumerate(("epochs", "backward_visits", "seconds")):
      columns.put(row, name, spread(found[place] for found in reached))
    rows.append(row)
  title = f"target, {metric.unit}" if metric.unit else "target"
  shown = (
    METHOD[0],
    Column(title, columns.plain("target", *columns.metric_format(metric))),
    Column("reached by", lambda row: f"{row['reached']} of {row['n']}"),
    Column("epochs", columns.mean_sd("epochs")),
    Column("backward visits, thousands", columns.mean_sd("backward_visits", 1e-3)),
    Column("seconds", columns.mean_sd("seconds")),
  )
  bound = "least" if metric.larger_is_better else "most"
  note = (
    f"Cost up to the end of the first epoch whose test {metric.words} was at {bound} the target; means are over the"
    " runs that reached it."
  )
  if target is None:
    base = "full training's mean in the same recipe (the best method's where the recipe has no full training)"
    note += f" The target is 99 % of {base}." if metric.larger_is_better else f" The target is {base} divided by 0.99."
  return Table("target", f"To the target {metric.words}", note, shown, rows)
