"""The table of the frontier: plain runs of each length, and each method beside them at its own cost. Pure functions."""

import math
from collections.abc import Sequence

from dynsel_jax.report import columns, frontier
from dynsel_jax.report.columns import METHOD, Column, Row, Table
from dynsel_jax.report.groups import Group, spread

__all__ = ["table"]


def _name(cost: str) -> str:
  return cost.replace(" ", "_")


def _rate(row: Row) -> str:
  return "-" if row["learning_rate"] is None else f"{row['learning_rate']:g}"


def _row(group: Group, outcomes: Sequence[frontier.Outcome]) -> Row:
  """Returns the entries that plain runs and methods have: the tuned learning rate, the metric, the visits."""
  row: Row = {**columns.row_of(group), "metric": group.metric.name}
  row["learning_rate"] = group.runs[0].config.get("learning_rate")
  columns.put(row, "final", spread(one.metric for one in outcomes))
  columns.put(row, "backward_visits", spread(one.cost for one in outcomes))
  return row


def _where(name: str, scale: float, form: str) -> columns.Show:
  """Shows a distance with its word: "above, +0.5 [+0.1, +0.9] (n = 3)"."""
  distance = columns.interval(f"{name}_difference", scale, form)

  def show(row: Row) -> str:
    word = row.get(f"{name}_word")
    return "-" if word is None else word if word == "unknown" else f"{word}, {distance(row)}"

  return show


def table(groups: Sequence[Group], *, seconds: bool = True) -> Table | None:
  """Returns the table of a data set, a task and a metric; None if its runs make no frontier.

  Args:
    groups: all groups of the data set, task and metric. Of groups that differ only by their learning rate, one is
      shown: the one that is best on the validation set, as `frontier` chooses it.
    seconds: whether the seconds of the runs compare.
  """
  metric, visits = groups[0].metric, frontier.COSTS["backward visits"]
  costs = {cost: measure for cost, measure in frontier.COSTS.items() if seconds or cost != "seconds"}
  found = {
    cost: {group.label: position for group, position in frontier.positions(groups, measure)}
    for cost, measure in costs.items()
  }
  if not any(found.values()):
    return None
  rows = []
  for group, outcomes in frontier.chosen(groups, visits):
    row = _row(group, outcomes)
    for cost, positions in found.items():
      if position := positions.get(group.label):
        columns.put(row, f"{_name(cost)}_difference", position.difference)
        row |= {f"{_name(cost)}_frontier": position.frontier, f"{_name(cost)}_word": position.word}
    rows.append(row)
  rows.sort(key=lambda row: row["backward_visits_mean"] if row["method"] == frontier.PLAIN else math.inf)
  scale, form = columns.metric_format(metric)
  shown = [
    *METHOD,
    Column("learning rate", _rate),
    Column(metric.title, columns.mean_sd("final", scale, form)),
    Column("backward visits, thousands", columns.mean_sd("backward_visits", 1e-3)),
    *(Column(f"at equal {cost}", _where(_name(cost), scale, form)) for cost in costs),
  ]
  tried = {group.runs[0].config.get("learning_rate") for group in groups}
  rates = "Learning rates are the best on the validation set" if len(tried) > 1 else "One learning rate was tried"
  note = (
    "Each method against plain training at the same cost, with the 95 % interval over paired seeds; plain runs of"
    f" several lengths, between which the frontier is linear in log cost. {rates}. Compute counts a forward pass as a"
    " third of a training visit."
  )
  return Table("frontier", "Beside shorter plain runs", note, tuple(shown), rows)
