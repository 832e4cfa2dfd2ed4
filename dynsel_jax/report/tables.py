"""The report's numbers: accuracy, differences, cost, time to a target, usage. Pure functions.

A table holds plain numbers for CSV, and says how its columns are shown to a person.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dynsel_jax.report.groups import Difference, Group, Spread, difference, realised, reference, spread, work_seconds
from dynsel_jax.report.runs import Run

__all__ = ["Column", "Table", "accuracy", "all_tables", "gini", "kept_by_class", "target_of", "to_target"]

Row = dict[str, Any]

FACTOR_FIELDS = {  # of a line of the metrics: title, scale and format of its mean over the epochs
  "factors_covered": ("factors covered an epoch, %", 100.0, ".1f"),
  "rare_factor_rate": ("rate of rare factors", 1.0, ".2f"),
  "common_factor_rate": ("rate of common factors", 1.0, ".2f"),
}


class Column(NamedTuple):
  """How one column is shown, given a row's numbers."""

  title: str
  show: Callable[[Row], str]


class Table(NamedTuple):
  """Rows of numbers, and the columns in which they are shown."""

  name: str
  title: str
  note: str
  columns: tuple[Column, ...]
  rows: list[Row]

  def shown(self) -> list[list[str]]:
    """Returns the text of every cell."""
    return [[column.show(row) for column in self.columns] for row in self.rows]

  def markdown(self) -> str:
    """Returns the table in Markdown, first column to the left and the others to the right."""
    head = [column.title for column in self.columns]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *self.shown()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

  def csv(self) -> str:
    """Returns every number of the table, unrounded; what is not known is left empty."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in self.rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if _unknown(value) else value for name, value in row.items()} for row in self.rows)
    return text.getvalue()


def _unknown(value: Any) -> bool:
  return value is None or (isinstance(value, float) and math.isnan(value))


def accuracy(run: Run) -> float:
  """Returns the run's final test accuracy."""
  assert run.summary is not None
  return run.summary["final_test_accuracy"]


def _summary(run: Run, name: str) -> float:
  assert run.summary is not None
  return float(run.summary[name])


def _number(row: Row, name: str, scale: float = 1.0, form: str = ".1f") -> str:
  value = row.get(name)
  return "-" if value is None or math.isnan(value) else f"{value * scale:{form}}"


def _mean_sd(name: str, scale: float = 1.0, form: str = ".1f") -> Callable[[Row], str]:
  def show(row: Row) -> str:
    mean, sd = _number(row, f"{name}_mean", scale, form), _number(row, f"{name}_sd", scale, form)
    return mean if sd == "-" else f"{mean} ± {sd}"

  return show


def _interval(name: str) -> Callable[[Row], str]:
  def show(row: Row) -> str:
    mean = _number(row, f"{name}_mean", 100, "+.2f")
    if mean == "-":
      return "-"
    low, high = (_number(row, f"{name}_{end}", 100, "+.2f") for end in ("low", "high"))
    of = f"(n = {row[f'{name}_n']}{row.get(f'{name}_kept', '')})"
    return f"{mean} {of}" if low == "-" else f"{mean} [{low}, {high}] {of}"

  return show


def _plain(name: str, scale: float = 1.0, form: str = ".1f") -> Callable[[Row], str]:
  return lambda row: _number(row, name, scale, form)


def _text(name: str) -> Callable[[Row], str]:
  return lambda row: str(row[name])


def _put(row: Row, name: str, value: Spread | Difference) -> None:
  row |= {f"{name}_{field}": part for field, part in value._asdict().items()}


METHOD = (Column("method", _text("label")), Column("n", _text("n")))


def _row(group: Group) -> Row:
  return {"dataset": group.dataset, "label": group.label, "method": group.method, "n": len(group.runs)}


def results(groups: Sequence[Group]) -> Table:
  """Returns accuracy, paired differences and cost of each group."""
  rows = []
  for group in groups:
    row = _row(group)
    _put(row, "accuracy", spread(map(accuracy, group.runs)))
    _put(row, "best_accuracy", spread(_summary(run, "best_test_accuracy") for run in group.runs))
    for method in ("full", "random"):
      if group.method != "full" and (other := reference(group, groups, method)) is not None:
        _put(row, f"less_{method}", difference(group, other, accuracy))
        if method == "random" and other.keep_fraction != group.keep_fraction:
          row["less_random_kept"] = f", random at {100 * realised(other):.0f} %"
    row["nominal_keep_fraction"] = group.keep_fraction
    for name in ("realised_keep_fraction", "backward_visits", "forward_visits"):
      _put(row, name, spread(_summary(run, name) for run in group.runs))
    _put(row, "seconds", spread(work_seconds(group, run) for run in group.runs))
    rows.append(row)
  note = (
    "Final test accuracy in %, mean ± standard deviation over n seeds. Differences are in points, paired by seed, with"
    " the 95 % interval of Student's t for this pair alone: of many intervals one in twenty misses by chance. Of"
    " several groups of random, the one that keeps the same share is taken, or else the one that kept the nearest,"
    " which is then named. Visits are samples that went forward or backward through the model in the whole run. Seconds"
    " are of the whole run with its offline stage as if nothing had been cached, without loading and compiling."
  )
  if made_before := _made_before(groups):
    note += f" Not counted, as it was made before: {made_before}."
  columns = (
    *METHOD,
    Column("accuracy", _mean_sd("accuracy", 100, ".2f")),
    Column("against full", _interval("less_full")),
    Column("against random", _interval("less_random")),
    Column("kept, nominal %", _plain("nominal_keep_fraction", 100)),
    Column("kept, realised %", _mean_sd("realised_keep_fraction", 100)),
    Column("backward visits, thousands", _mean_sd("backward_visits", 1e-3)),
    Column("forward visits, thousands", _mean_sd("forward_visits", 1e-3)),
    Column("seconds", _mean_sd("seconds")),
  )
  return Table("results", "Results", note, columns, rows)


def _made_before(groups: Sequence[Group]) -> str:
  """Says what of the groups' runs came from files that something else had made, or from the cache in every run."""
  configs = [run.config for group in groups for run in group.runs]
  files = any(config.get("features", {}).get("name") == "file" for config in configs)
  scores = any(config.get("scores", {}).get("path") for config in configs)
  cached = [group.label for group in groups if "features" in group.runs[0].config and not group.offline_seconds]
  return "; ".join(
    ["features read from a file"] * files
    + ["scores, and the proxy run behind them"] * scores
    + [f"the offline stage of {', '.join(cached)}, which every run found in the cache"] * bool(cached)
  )


def phases(groups: Sequence[Group]) -> Table:
  """Returns where each group's seconds went."""
  names = list(dict.fromkeys(name for g in groups for run in g.runs for name in (run.summary or {})["seconds"]))
  names = [name for name in names if name != "total"]
  rows = []
  for group in groups:
    row = _row(group)
    measured = [(run.summary or {})["seconds"] for run in group.runs]
    for name in names:
      _put(row, name, spread(seconds.get(name, 0.0) for seconds in measured))
    _put(row, "rest", spread(s["total"] - sum(s.get(name, 0.0) for name in names) for s in measured))
    _put(row, "total", spread(s["total"] for s in measured))
    rows.append(row)
  shown = [name for name in (*names, "rest") if any(row[f"{name}_mean"] >= 0.005 for row in rows)]
  note = (
    "Mean seconds by phase, as measured. Features and factors are 0 in a run that found them in the cache; the seconds"
    " of the other tables count the longest that any run with the same settings took. The rest is set-up and what is"
    " not timed."
  )
  columns = (*METHOD, *(Column(name, _plain(f"{name}_mean", 1, ".2f")) for name in (*shown, "total")))
  return Table("seconds", "Seconds by phase", note, columns, rows)


def target_of(group: Group, groups: Sequence[Group], target: float | None) -> float:
  """Returns a group's target accuracy: as given, or else 99 % of the mean of `full` in the same recipe.

  Without such a group it is 99 % of the best one's in the same recipe.
  """
  if target is not None:
    return target
  whole = group if group.method == "full" else reference(group, groups, "full")
  alike = [whole] if whole else [other for other in groups if other.shared == group.shared]
  return 0.99 * max(spread(map(accuracy, other.runs)).mean for other in alike)


def to_target(group: Group, run: Run, target: float) -> tuple[float, float, float] | None:
  """Returns epochs, backward visits and seconds until the test accuracy first reached `target`; None if it never did.

  Seconds count as in `groups.work_seconds`.
  """
  for line in run.metrics:
    if line["test_accuracy"] >= target:
      spent = work_seconds(group, run._replace(summary=line))
      return float(line["epoch"]), float(line["backward_visits"]), spent
  return None


def targets(groups: Sequence[Group], target: float | None) -> Table:
  """Returns what each group needed to reach its target accuracy; see `target_of`."""
  rows = []
  for group in groups:
    followed = [run for run in group.runs if run.metrics]
    row: Row = {**_row(group), "n": len(followed), "target": target_of(group, groups, target)}
    reached = [found for run in followed if (found := to_target(group, run, row["target"])) is not None]
    row["reached"] = len(reached)
    for place, name in enumerate(("epochs", "backward_visits", "seconds")):
      _put(row, name, spread(found[place] for found in reached))
    rows.append(row)
  columns = (
    METHOD[0],
    Column("target, %", _plain("target", 100, ".2f")),
    Column("reached by", lambda row: f"{row['reached']} of {row['n']}"),
    Column("epochs", _mean_sd("epochs")),
    Column("backward visits, thousands", _mean_sd("backward_visits", 1e-3)),
    Column("seconds", _mean_sd("seconds")),
  )
  note = "Until an epoch's end first had the target as its test accuracy; means are over the runs that reached it."
  if target is None:
    note += " The target is 99 % of full training's in the same recipe, or of the best method's where that is missing."
  return Table("target", "To the target accuracy", note, columns, rows)


def gini(visits: np.ndarray) -> float:
  """Returns the Gini coefficient of `[N]` counts: 0 if all are equal, near 1 if one sample has them all."""
  ordered = np.sort(visits.astype(np.float64))
  shares = ordered.sum()
  ranks = np.arange(1, ordered.size + 1)
  return float(2 * (ranks * ordered).sum() / (ordered.size * shares) - (ordered.size + 1) / ordered.size)


def kept_by_class(run: Run) -> np.ndarray:
  """Returns how often each class's samples were trained on over the run, `[C]`."""
  return np.sum([line["kept_by_class"] for line in run.metrics], axis=0)


def _epoch_mean(run: Run, name: str) -> float:
  """Returns the mean of a field of the metrics over the epochs that have it; nan where none has."""
  return spread(line[name] for line in run.metrics if line.get(name) is not None).mean


def usage(groups: Sequence[Group]) -> Table:
  """Returns how evenly each group used the training set."""
  rows = []
  for group in groups:
    row = _row(group)
    known = [run.visits for run in group.runs if run.visits is not None]
    row["n_visits"] = len(known)
    _put(row, "seen", spread(np.count_nonzero(visits) / visits.size for visits in known))
    _put(row, "visits", spread(visits.mean() for visits in known))
    _put(row, "visits_deviation", spread(visits.std() for visits in known))
    _put(row, "gini", spread(map(gini, known)))
    noisy = [(run.summary or {})["noisy_share_kept"] for run in group.runs if "noisy_share_kept" in (run.summary or {})]
    _put(row, "noisy_share_kept", spread(noisy))
    for name in FACTOR_FIELDS:
      means = (_epoch_mean(run, name) for run in group.runs)
      _put(row, name, spread(mean for mean in means if not math.isnan(mean)))
    rows.append(row)
  partly = any(row["n_visits"] < row["n"] for row in rows)
  columns = [
    *METHOD,
    *([Column("n with usage.npz", _text("n_visits"))] if partly else []),
    Column("seen at least once, %", _mean_sd("seen", 100)),
    Column("visits a sample", _mean_sd("visits")),
    Column("their deviation", _mean_sd("visits_deviation")),
    Column("Gini coefficient", _mean_sd("gini", 1, ".3f")),
  ]
  if any(row["noisy_share_kept_n"] for row in rows):
    columns.append(Column("wrong labels among the visits, %", _mean_sd("noisy_share_kept", 100)))
  note = "The deviation is over the samples of a run; a Gini coefficient of 0 means that all were used alike."
  if partly:
    note += " What was seen, visits and their Gini coefficient are of the runs with a usage.npz alone."
  if any(row["factors_covered_n"] for row in rows):
    columns += [Column(title, _mean_sd(name, scale, form)) for name, (title, scale, form) in FACTOR_FIELDS.items()]
    note += (
      " Factors are covered where they fire in a sample of the epoch; a factor's rate is its firings a visit over those"
      " a sample of the whole set, 1 for samples at random. All three are means over the epochs."
    )
  return Table("usage", "Usage of the training set", note, tuple(columns), rows)


def runs_table(found: Iterable[Run]) -> Table:
  """Returns every run that was read, with what its folder lacks."""
  rows = [
    {
      "run": run.path.name,
      "dataset": run.config["dataset"]["name"],
      "method": run.config["selector"]["name"],
      "seed": run.seed,
      "epochs": len(run.metrics),
      "accuracy": run.metrics[-1]["test_accuracy"] if run.metrics else None,
      "device": f"{run.made['device']['count']} x {run.made['device']['kind']}" if "device" in run.made else "-",
      "missing": ", ".join(run.missing) or "-",
    }
    for run in found
  ]
  columns = tuple(Column(name, _text(name)) for name in ("run", "dataset", "method", "seed", "epochs"))
  columns += (Column("accuracy", _plain("accuracy", 100, ".2f")), Column("device", _text("device")))
  return Table("runs", "Runs", "Every folder that was read.", (*columns, Column("missing", _text("missing"))), rows)


def all_tables(groups: Sequence[Group], target: float | None) -> list[Table]:
  """Returns the tables of one data set's groups."""
  return [results(groups), targets(groups, target), phases(groups), usage(groups)]
