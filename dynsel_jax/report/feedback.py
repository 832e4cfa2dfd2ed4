"""What finished runs say about their samples: never or hardly used, always hard, likely mislabelled. Host-side.

"Feedback for the next run" in the words of RRD (arXiv 2603.04981, Sec. 1). `N` is the number of training samples. All
comes from `usage.npz`: how often a sample was trained on, and its loss when it was last seen. A sample is

- hardly used by a method if its mean visits over the seeds are below a tenth of the method's mean;
- always hard if its last loss is among the highest tenth of its run, in every run that has seen it;
- likely mislabelled if it is always hard and, in classification, the model gave its label less than chance, 1 / C, by
  the mean of its last losses. A model that was trained until it knew wrong labels by heart does not show them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dynsel_jax import cache, options
from dynsel_jax.report import columns, escape, theme
from dynsel_jax.report.columns import Column, Row, Table
from dynsel_jax.report.groups import Group
from dynsel_jax.runs.finished import Run

__all__ = ["Feedback", "Samples", "always_hard", "feedback", "hardly_used", "likely_mislabelled"]

_HARD = 0.1  # fraction of a run's samples
_HARDLY = 0.1  # of the mean visits
_ON_SHEET = 32  # images


class Samples(NamedTuple):
  """A training set as far as it is on this machine."""

  labels: np.ndarray | None = None  # [N] int
  class_names: Sequence[str] = ()
  images: np.ndarray | None = None  # [N, H, W, channels] uint8


class Feedback(NamedTuple):
  """What the runs of one data set say about its samples."""

  table: Table  # how many there are of each kind
  lists: Sequence[Table]  # all of them: for CSV files
  sheets: Sequence[tuple[str, str, Figure]]  # of images: title, name, figure


def hardly_used(group: Group) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns the indices of the samples that a method hardly used, the least used first, and their mean visits.

  None if no run has usage.npz.
  """
  found = [run.visits for run in group.runs if run.visits is not None]
  if not found or len({len(one) for one in found}) > 1:
    return None
  visits = np.mean(found, axis=0)
  order = np.argsort(visits, kind="stable")
  chosen = order[visits[order] < _HARDLY * visits.mean()]
  return chosen, visits[chosen]


def always_hard(losses: Sequence[np.ndarray], visits: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """Returns the indices of the samples that are hard in every run, the hardest first, and their mean last loss.

  Args:
    losses: of each run, each sample's last loss `[N]`; not finite where it was never seen.
    visits: of each run, how often each sample was trained on `[N]`.
  """
  seen = np.array([(count > 0) & np.isfinite(loss) for loss, count in zip(losses, visits, strict=True)])
  hard = np.zeros_like(seen)
  for place, loss in enumerate(losses):
    if seen[place].any():
      hard[place] = loss >= np.quantile(loss[seen[place]], 1 - _HARD)
  chosen = np.flatnonzero(seen.any(axis=0) & (hard | ~seen).all(axis=0))
  total = np.where(seen, np.array(losses), 0.0)[:, chosen].sum(axis=0)
  mean = total / np.maximum(seen[:, chosen].sum(axis=0), 1)
  order = np.argsort(-mean, kind="stable")
  return chosen[order], mean[order]


def likely_mislabelled(mean_loss: np.ndarray, num_classes: int) -> np.ndarray:
  """Returns the places of the losses at which the label has a probability below 1 / C; `mean_loss` is cross-entropy."""
  return np.flatnonzero(mean_loss > np.log(num_classes))


def feedback(groups: Sequence[Group], samples: Samples, prefix: str) -> Feedback | None:
  """Returns what the runs of one data set, task and metric say about its samples.

  Args:
    groups: the groups.
    samples: labels, class names and images, as far as they are known.
    prefix: of the names of files.

  Returns:
    The feedback; None if no run has a readable usage.npz, or the runs differ in their data or its size.
  """
  runs = [run for group in groups for run in group.runs if run.visits is not None]
  if len({len(run.visits) for run in runs if run.visits is not None}) != 1:
    return None
  if len({run.made.get("data_fingerprint") for run in runs}) > 1:
    return None
  total = next(run.visits.size for run in runs if run.visits is not None)
  found: list[tuple[str, str, np.ndarray, np.ndarray]] = []
  for group in groups:
    if group.method != "full" and (used := hardly_used(group)) is not None:
      found.append(("hardly used", group.label, *used))
  measured = [(loss, run.visits) for run in runs if run.visits is not None and (loss := _losses(run)) is not None]
  if measured:
    hard, mean = always_hard([loss for loss, _ in measured], [visits for _, visits in measured])
    found.append(("always hard", "", hard, mean))
    if groups[0].task == "classification" and (classes := _num_classes(groups)):
      wrong = likely_mislabelled(mean, classes)
      found.append(("likely mislabelled", "", hard[wrong], mean[wrong]))
  rows: list[Row] = []
  lists: list[Table] = []
  sheets: list[tuple[str, str, Figure]] = []
  for kind, method, indices, values in found:
    stem = escape.file_name("_".join(filter(None, (prefix, kind, method))))
    rows.append({"kind": kind, "method": method or "all runs", "count": len(indices), "file": f"samples/{stem}.csv"})
    rows[-1]["fraction"] = len(indices) / total
    lists.append(_list(stem, indices, values, "visits" if method else "last_loss", samples))
    if samples.images is not None and len(indices) and not method:
      title = f"{kind[:1].upper()}{kind[1:]}, the hardest first"
      sheets.append((title, stem, _sheet(indices[:_ON_SHEET], samples)))
  return Feedback(_summary(f"{prefix}_samples", rows), lists, sheets)


def _num_classes(groups: Sequence[Group]) -> int:
  """Returns the number of classes, from what an epoch kept of each; 0 if no run counts them."""
  runs = (run for group in groups for run in group.runs if run.metrics)
  return next((len(kept) for run in runs if (kept := run.metrics[0].get("kept_by_class"))), 0)


def _losses(run: Run) -> np.ndarray | None:
  """Returns each sample's last loss, `[N]` float64; None if the file lacks it."""
  try:
    losses = cache.read_arrays("usage", run.path / "usage.npz")["last_loss"].astype(np.float64)
  except (options.UserError, KeyError):
    return None
  return losses if run.visits is not None and losses.shape == run.visits.shape else None


def _list(name: str, indices: np.ndarray, values: np.ndarray, quantity: str, samples: Samples) -> Table:
  rows: list[Row] = []
  for index, value in zip(indices.tolist(), values.tolist(), strict=True):
    row: Row = {"index": index, quantity: value}
    if samples.labels is not None:
      row |= {"label": int(samples.labels[index]), "class": _class(int(samples.labels[index]), samples)}
    rows.append(row)
  return Table(name, name, "", (), rows)


def _class(label: int, samples: Samples) -> str:
  return str(samples.class_names[label]) if label < len(samples.class_names) else str(label)


def _summary(name: str, rows: list[Row]) -> Table:
  shown = (
    Column("samples", columns.text("kind")),
    Column("by", columns.text("method")),
    Column("number", columns.text("count")),
    Column("of the training set, %", columns.plain("fraction", 100)),
    Column("list", columns.text("file")),
  )
  note = (
    "Hardly used: below a tenth of the method's mean visits. Always hard: among the highest tenth of the losses in"
    " every run. Likely mislabelled: always hard, and the label less likely than chance."
  )
  return Table(name, "Samples to look at", note, shown, rows)


def _sheet(indices: np.ndarray, samples: Samples) -> Figure:
  """Draws images eight in a row, each with its index and its class."""
  assert samples.images is not None
  rows = -(-len(indices) // 8)
  figure = Figure(figsize=(7.2, 1.15 * rows), layout="constrained")
  grid = figure.subplots(rows, 8, squeeze=False)
  for axes in grid.flat:
    axes.axis("off")
  for index, axes in zip(indices.tolist(), grid.flat, strict=False):
    image = samples.images[index]
    axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
    label = "" if samples.labels is None else escape.plot(_class(int(samples.labels[index]), samples), 14)
    axes.set_title(f"{index}\n{label}", fontsize=theme.SMALL - 1)
  return figure
