"""Writes the page about the discrepancy between subsets and the whole set. Host-side.

Reads `mmd.csv`, which `experiments.studies.mmd` leaves in a folder; writes `mmd.md` and `mmd.png` beside it.
"""

import csv
import pathlib
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

__all__ = ["Row", "write"]

COLORS = ("#274060", "#c8553d", "#8a8d91", "#588b8b")


class Row(NamedTuple):
  """One measurement: a line of `mmd.csv`."""

  method: str
  fraction: float  # kept, of the whole set
  seed: int
  size: int  # samples kept
  mmd_squared: float  # unbiased, so it may be negative


def write(folder: pathlib.Path) -> None:
  """Writes the table and the plot of the measurements in `folder`/mmd.csv."""
  with (folder / "mmd.csv").open(newline="") as file:
    rows = [
      Row(row["method"], float(row["fraction"]), int(row["seed"]), int(row["size"]), float(row["mmd_squared"]))
      for row in csv.DictReader(file)
    ]
  found: dict[str, dict[float, list[float]]] = {}
  for row in rows:
    found.setdefault(row.method, {}).setdefault(row.fraction, []).append(row.mmd_squared)
  _figure(found).savefig(folder / "mmd.png", dpi=140)
  (folder / "mmd.md").write_text(_page(found))


def _deviation(values: list[float]) -> float:
  return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _page(found: dict[str, dict[float, list[float]]]) -> str:
  fractions = list(next(iter(found.values())))
  seeds = len(found[next(iter(found))][fractions[0]])
  lines = [
    "# Discrepancy between subsets and the whole set",
    "",
    f"Squared maximum mean discrepancy times 10⁴, unbiased; mean and standard deviation over {seeds} seeds. Lower is"
    " better; a random subset has about 0.",
    "",
    "| fraction kept | " + " | ".join(f"{fraction:.0%}" for fraction in fractions) + " |",
    "|---|" + "---|" * len(fractions),
  ]
  for method, of_method in found.items():
    cells = [f"{1e4 * np.mean(of_method[f]):z.2f} ± {1e4 * _deviation(of_method[f]):.2f}" for f in fractions]
    lines.append(f"| {method} | " + " | ".join(cells) + " |")
  return "\n".join([*lines, "", "![discrepancy by fraction kept](mmd.png)", ""])


def _figure(found: dict[str, dict[float, list[float]]]) -> Figure:
  figure = Figure(figsize=(6, 3.8), layout="constrained")
  axes = figure.add_subplot()
  axes.axhline(0, color="#d0d0d0", lw=0.8)
  for color, (method, of_method) in zip(COLORS, found.items(), strict=False):
    means = [1e4 * float(np.mean(values)) for values in of_method.values()]
    deviations = [1e4 * _deviation(values) for values in of_method.values()]
    axes.errorbar(list(of_method), means, deviations, color=color, marker="o", ms=4, capsize=3, label=method)
  fractions = list(next(iter(found.values())))
  axes.set(xscale="log", xlabel="fraction kept", ylabel="MMD² × 10⁴")
  axes.set_xticks(fractions, [f"{fraction:.0%}" for fraction in fractions])
  axes.minorticks_off()
  axes.spines[["top", "right"]].set_visible(False)
  axes.legend(frameon=False)
  return figure
