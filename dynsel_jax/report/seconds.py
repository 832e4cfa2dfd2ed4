"""Where the seconds of each group went, by phase, and whether those of several runs compare. Pure functions.

Every table and picture of the report takes its seconds from `groups.phase_seconds`: what the method costs (`COST` of
`runs.timing`), evaluation apart, and the rest of the run apart. They add up to the whole.
"""

import math
from collections.abc import Sequence

from dynsel_jax.report import columns
from dynsel_jax.report.columns import METHOD, Column, Row, Show, Table
from dynsel_jax.report.groups import Group, device, phase_seconds, spread, summary
from dynsel_jax.runs import timing
from dynsel_jax.runs.finished import Run

__all__ = ["APART", "incomparable", "means", "table"]

APART = ("evaluating", *(name for name in timing.PHASES if name not in (*timing.COST, "evaluating")), "unnamed")


def means(group: Group) -> dict[str, float]:
  """Returns the group's mean seconds by phase, in the order of the table: the method's cost first."""
  found = [phase_seconds(group, run) for run in group.runs]
  return {name: spread(seconds[name] for seconds in found).mean for name in (*timing.COST, *APART)}


def table(groups: Sequence[Group]) -> Table:
  """Returns each group's mean seconds by phase, the method's cost and the whole; printed figures add up."""
  rows = []
  for group in groups:
    row = columns.row_of(group)
    for name in (*timing.COST, *APART):
      columns.put(row, name, spread(phase_seconds(group, run)[name] for run in group.runs))
    for name, parts in (("cost", timing.COST), ("total", (*timing.COST, *APART))):
      columns.put(row, name, spread(sum(phase_seconds(group, run)[part] for part in parts) for run in group.runs))
    rows.append(row)
  unit = _unit(rows)
  drawn = {name: any(row[f"{name}_mean"] >= unit / 2 for row in rows) for name in (*timing.COST, *APART)}
  shown = (
    *METHOD,
    *(Column(timing.word(name), _shown([name], unit)) for name in timing.COST if drawn[name]),
    Column("cost of the method", _shown(timing.COST, unit)),
    *(Column(timing.word(name), _shown([name], unit)) for name in APART if drawn[name]),
    Column("whole run", _shown((*timing.COST, *APART), unit)),
  )
  note = (
    "Mean over the runs. Features and factors count in full for every run, also where it found them in the cache; what"
    " the method costs is everything up to that column, and the whole is that and everything after it."
  )
  return Table("seconds", "Seconds by phase", note, shown, rows)


def _unit(rows: Sequence[Row]) -> float:
  """Returns the unit to round to: that of the third digit of the cheapest method's cost, between 1 ms and 0.1 s."""
  least = min((row["cost_mean"] for row in rows), default=0.0)
  return 10.0 ** max(-3, min(-1, math.floor(math.log10(least)) - 2)) if least > 0 else 0.1


def _shown(names: Sequence[str], unit: float) -> Show:
  """Shows the sum of some phases, each rounded so that all of the row's add up to its whole."""

  def show(row: Row) -> str:
    rounded = timing.rounded({name: row[f"{name}_mean"] for name in (*timing.COST, *APART)}, unit)
    return f"{sum(rounded[name] for name in names):.{round(-math.log10(unit))}f}"

  return show


def incomparable(found: Sequence[Run]) -> str:
  """Returns why the seconds of the runs do not compare, as a sentence; "" where nothing speaks against it.

  They do not where machines or devices differ, where runs were made at the same time on one machine, or where runs of
  an earlier version do not say when they were made.
  """
  places = {f"{run.made.get('device')}, {run.made.get('machine')}" for run in found}
  if len(places) > 1:
    kinds = ", ".join(sorted({device(run) or "unknown device" for run in found}))
    return f"Seconds do not compare: the runs were made on {len(places)} machines or devices ({kinds})."
  if beside := _side_by_side(found):
    return f"Seconds do not compare: {beside} of the {len(found)} runs were made side by side."
  silent = sum(run.summary is not None and "ended" not in run.summary for run in found)
  if silent and len(found) > 1:
    which = "the runs" if silent == len(found) else f"{silent} of the {len(found)} runs"
    return f"Seconds may not compare: {which} do not say when they were made."
  return ""


def _side_by_side(found: Sequence[Run]) -> int:
  """Returns the number of finished runs whose time overlaps with another one's by more than a second."""
  spans = []
  for run in found:
    if run.summary is not None and "ended" in run.summary:
      ended, lasted = run.summary["ended"], summary(run)["seconds"]["total"]
      if lasted > 1:  # a shorter one overlaps with none by more than a second
        spans.append((ended - lasted, ended))
  spans.sort()
  beside, latest = 0, -math.inf  # the latest end of those that began earlier
  for (begin, end), (following, _) in zip(spans, [*spans, (math.inf, math.inf)][1:], strict=True):
    beside += latest - begin > 1 or end - following > 1
    latest = max(latest, end)
  return beside
