"""Writes the page about the factors of a data set. Host-side.

Reads `factors.json`, `factors.npz` and `examples.npz`, which `experiments.fit_factors` leaves in a folder; writes
`factors.md` and its plots beside them.
"""

import json
import pathlib
from typing import Any

import numpy as np

from dynsel_jax import cache
from dynsel_jax.options import printable
from dynsel_jax.report import escape, factor_figures, theme

__all__ = ["closing_lines", "write"]

SCORES = ("representativeness", "rarity")
_LONGEST = 200  # characters of the data set's name
GROUPS = {"common": "Most common factors", "rare": "Rarest factors that fire"}


def write(folder: pathlib.Path) -> None:
  """Writes `factors.md` and its plots into `folder`, which contains the files of `experiments.fit_factors`."""
  summary = json.loads((folder / "factors.json").read_text())
  counted, shown = (cache.read_arrays(name, folder / f"{name}.npz") for name in ("factors", "examples"))
  figures = {
    "firing_frequency": factor_figures.firing_frequency(
      counted["firing_frequency"], summary["num_samples"], summary["settings"]["factors"]["common_fraction"]
    ),
    "scores": factor_figures.scores({name: counted[name] for name in SCORES}, _correlations(summary)),
  }
  for group in GROUPS:
    if f"{group}_images" in shown:
      figures[f"{group}_factors"] = factor_figures.factor_sheet(
        *(shown[f"{group}_{part}"] for part in ("latents", "class_counts", "images", "samples")),
        num_samples=summary["num_samples"],
        class_names=summary["class_names"],
      )
  if "class_labels" in shown:
    by_score = {name: shown[f"class_{name}_images"] for name in SCORES}
    figures["samples"] = factor_figures.sample_sheet(by_score, shown["class_labels"], summary["class_names"])
  for name, figure in figures.items():
    theme.save(figure, folder / f"{name}.png", dpi=140)
  (folder / "factors.md").write_text(_page(summary, shown, set(figures)), "utf-8")


def closing_lines(summary: dict[str, Any], folder: str) -> str:
  """Returns the main entries of `factors.json` as a few lines for the console; `folder` contains `factors.md`."""
  spent = ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items())
  return "\n".join(
    printable(line)
    for line in [
      f"{summary['dataset']}: {summary['num_samples']:,} samples, features of width {summary['width']}",
      f"autoencoder     {_autoencoder(summary)}",
      f"scores          {_correlations(summary)}",
      *(f"warning         {line}" for line in summary["warnings"]),
      f"seconds         {sum(summary['seconds'].values()):.1f} ({spent})",
      f"report          {pathlib.Path(folder, 'factors.md')}",
    ]
  )


def _autoencoder(summary: dict[str, Any]) -> str:
  return (
    f"{summary['num_latents']:,} latents, FVU {summary['fvu']:.3f}, {summary['mean_l0']:.1f} active per sample,"
    f" {_field(summary, 'dead_fraction'):.1%} never active"
  )


def _field(summary: dict[str, Any], name: str) -> Any:
  """Returns a field of `factors.json`; earlier versions wrote "share" instead of "fraction" in its name."""
  return summary[name] if name in summary else summary[name.replace("fraction", "share")]


def _correlations(summary: dict[str, Any]) -> str:
  if summary["correlation"]["pearson"] is None:
    return "no correlation, since a score is constant"
  return "correlation {pearson:.2f} (Pearson), {spearman:.2f} (Spearman)".format(**summary["correlation"])


def _page(summary: dict[str, Any], shown: dict[str, np.ndarray], figures: set[str]) -> str:
  settings = summary["settings"]
  lines = [
    f"# Factors of {escape.markdown(printable(summary['dataset'], _LONGEST))}",
    "",
    f"{summary['num_samples']:,} training samples of {summary['num_classes']} classes. Features of width"
    f" {summary['width']}: {_settings(settings['features'])}. Autoencoder: {_settings(settings['factors'])}.",
    "",
    f"Sparse autoencoder: {_autoencoder(summary)}.",
    *(f"\n**Warning.** {escape.markdown(line)}" for line in summary["warnings"]),
    "",
    "## Firing frequency",
    "",
    "![firing frequencies](firing_frequency.png)",
    "",
    *_frequencies(summary),
    "",
    "## Scores",
    "",
    f"Representativeness counts the common factors of a sample, rarity the rare ones; {_correlations(summary)}.",
    "",
    "![scores](scores.png)",
  ]
  if "samples" in figures:
    lines += ["", "Images with the highest scores in each class:", "", "![samples](samples.png)"]
  for group, title in GROUPS.items():
    lines += ["", f"## {title}", ""]
    if f"{group}_factors" in figures:
      lines += [
        "One row per factor: its firing frequency, its classes, and the samples in which it is strongest.",
        "",
        f"![{title.lower()}]({group}_factors.png)",
        "",
      ]
    lines += _table(shown, group, summary["class_names"])
  seconds = ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items())
  return "\n".join([*lines, "", f"Seconds on {summary['device']} (0 if found in the cache): {seconds}.", ""])


def _settings(section: dict[str, Any]) -> str:
  return ", ".join(escape.markdown_code(f"{name}={value}") for name, value in section.items() if value != "")


def _frequencies(summary: dict[str, Any]) -> list[str]:
  """Returns a table of the latents by the fraction of the samples in which they fire."""
  edges, counts = _field(summary, "firing_fraction_edges"), _field(summary, "firing_fraction_counts")
  names = ["never", *(f"≤ {edge:g}" for edge in edges[1:])]
  return [
    "| fraction of the samples | " + " | ".join(names) + " |",
    "|---|" + "---|" * len(names),
    "| latents | " + " | ".join(f"{count:,}" for count in counts) + " |",
  ]


def _table(shown: dict[str, np.ndarray], group: str, class_names: list[str]) -> list[str]:
  lines = ["| latent | fires in | classes | largest classes | strongest samples (index) |", "|---|---|---|---|---|"]
  rows = (shown[f"{group}_{part}"] for part in ("latents", "class_counts", "samples"))
  for latent, counts, samples in zip(*rows, strict=True):
    found = " ".join(str(sample) for sample in samples if sample >= 0)
    largest = escape.markdown(factor_figures.largest_classes(counts, class_names))
    lines.append(f"| {latent} | {counts.sum():,} | {np.count_nonzero(counts)} | {largest} | {found} |")
  return lines
