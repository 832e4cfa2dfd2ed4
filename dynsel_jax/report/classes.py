"""What was kept of each class or domain, beside its fraction of the training set. Pure functions.

Losses differ between classes, and tenfold between the domains of texts, so that a method that reads losses also chooses
among them. `C` is the number of classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dynsel_jax.options import printable
from dynsel_jax.report import columns
from dynsel_jax.report.columns import Column, Row, Show, Table
from dynsel_jax.report.groups import Group, summary
from dynsel_jax.runs.finished import Run

__all__ = ["Used", "class_name", "records_classes", "table", "used", "word"]

_MOST = 12  # rows of the table, beside that of all other classes
_LONGEST = 40  # characters of a name


class Used(NamedTuple):
  """How a group used the classes, each `[C]` float64 and a mean over the seeds; the ratio of an empty class is nan."""

  of_set: np.ndarray  # fraction of the training set
  of_visits: np.ndarray  # fraction of the visits
  ratio: np.ndarray  # of the latter to the former


def records_classes(run: Run) -> bool:
  """Whether every epoch counts the visits by class, over two classes or more."""
  return bool(run.metrics) and all(len(line.get("kept_by_class") or ()) > 1 for line in run.metrics)


def _sizes(run: Run) -> np.ndarray | None:
  """Returns the number of samples of each class, from the summary, or of an earlier version's run from an epoch that
  trained on all of them; None where neither says so."""
  if not records_classes(run):
    return None
  whole = (line["kept_by_class"] for line in run.metrics if line["realised_keep_fraction"] == 1.0)
  found = summary(run).get("class_sizes") or next(whole, None)
  return np.asarray(found, np.float64) if found and len(found) == len(run.metrics[0]["kept_by_class"]) else None


def used(groups: Sequence[Group]) -> list[Used | None]:
  """Returns how each group of a data set used the classes; None for one without counts, or if no run knows the sizes.

  A run that does not know the sizes itself has those of another one.
  """
  runs = [run for group in groups for run in group.runs]
  known = next((sizes for run in runs if (sizes := _sizes(run)) is not None), None)
  return [None if known is None else _used(group, known) for group in groups]


def _used(group: Group, known: np.ndarray) -> Used | None:
  of_set, of_visits = [], []
  for run in filter(records_classes, group.runs):
    kept = np.sum([line["kept_by_class"] for line in run.metrics], axis=0)
    sizes = own if (own := _sizes(run)) is not None else known
    if kept.shape == known.shape and kept.sum():
      of_set.append(sizes / sizes.sum())
      of_visits.append(kept / kept.sum())
  if not of_set:
    return None
  ratios = np.divide(of_visits, of_set, out=np.full_like(of_set, np.nan), where=np.asarray(of_set) > 0)
  return Used(np.mean(of_set, axis=0), np.mean(of_visits, axis=0), np.mean(ratios, axis=0))


def class_name(run: Run, label: int) -> str:
  """Returns the name of a class, or its number where the run does not say."""
  names = run.made.get("class_names")
  return str(names[label]) if isinstance(names, list) and label < len(names) else str(label)


def word(groups: Sequence[Group]) -> str:
  """Returns what the labels are: domains, where the data set reads a column of them, or classes."""
  return "domain" if any("domain_column" in group.runs[0].config["dataset"] for group in groups) else "class"


def table(groups: Sequence[Group]) -> Table | None:
  """Returns the fraction of each class in the training set and in each group's visits; None where nobody chose or the
  runs do not tell.

  The classes farthest from their fraction `q` of the set come first, by the largest `|p - q| / sqrt(q)` over the groups
  with the fraction `p` of the visits; after `_MOST` of them the others are one row.
  """
  pairs = [(group, one) for group, one in zip(groups, used(groups), strict=True) if one and group.method != "full"]
  if not pairs:
    return None
  of_set = np.mean([one.of_set for _, one in pairs], axis=0)
  (present,) = np.nonzero(of_set)
  moved = np.max([np.abs(one.of_visits - of_set) for _, one in pairs], axis=0)[present] / np.sqrt(of_set[present])
  order = present[np.argsort(-moved, kind="stable")]
  named, run = word(groups), pairs[0][0].runs[0]
  rows = [_row(named, class_name(run, label), of_set, pairs, [label]) for label in order[:_MOST].tolist()]
  if others := order[_MOST:].tolist():
    rows.append(_row(named, f"{len(others)} other{'s' * (len(others) > 1)}", of_set, pairs, others))
  shown = [Column(named, columns.text(named)), Column("of the training set, %", columns.plain("fraction", 100, ".2f"))]
  shown += [Column(group.label, _cell(group.label)) for group, _ in pairs]
  plural = {"class": "classes", "domain": "domains"}[named]
  note = (
    f"The {named}'s fraction of each method's visits in %, mean over the seeds; in parentheses divided by its fraction"
    f" of the training set: 1 for samples at random. The {plural} farthest from their fraction of the set come first."
  )
  return Table(f"kept_by_{named}", f"What was kept of each {named}", note, tuple(shown), rows)


def _row(named: str, name: str, of_set: np.ndarray, pairs: Sequence[tuple[Group, Used]], labels: list[int]) -> Row:
  """Returns the row of a class, or of several together."""
  row: Row = {named: printable(name, _LONGEST), "fraction": float(of_set[labels].sum())}
  for group, one in pairs:
    visits = float(one.of_visits[labels].sum())
    ratio = one.ratio[labels[0]] if len(labels) == 1 else visits / one.of_set[labels].sum()
    row |= {f"fraction of the visits, {group.label}": visits, f"ratio, {group.label}": float(ratio)}
  return row


def _cell(label: str) -> Show:
  """Shows a group's fraction of the visits and its ratio, as in "12.30 (1.45)"."""
  visits = columns.plain(f"fraction of the visits, {label}", 100, ".2f")
  ratio = columns.plain(f"ratio, {label}", 1, ".2f")
  return lambda row: f"{visits(row)} ({ratio(row)})"
