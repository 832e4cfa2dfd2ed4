"""Reads the folders that runs leave behind, finished or not. Host-side.

`training.workdir` says what a folder holds. What is not there, or cannot be read, is named and done without.
"""

import json
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from dynsel_jax import cache, options

__all__ = ["OFFLINE", "UNCOUNTED", "Run", "find", "num_samples", "read", "seconds_without_offline"]

OFFLINE = ("features", "factors")  # phases that runs share, through the cache
UNCOUNTED = ("loading", "compiling")  # phases whose length depends on what was cached, not on the method


class Run(NamedTuple):
  """One run's folder. `N` is the number of training samples."""

  path: pathlib.Path
  config: dict[str, Any]  # as `configs/base.py` makes it
  made: dict[str, Any]  # the rest of `config.json`: versions, device, fingerprints
  metrics: list[dict[str, Any]]  # a dict an epoch
  summary: dict[str, Any] | None  # None while the run is not finished
  visits: np.ndarray | None  # [N] int, times each sample was trained on
  missing: tuple[str, ...]  # what was not there or not readable, in words

  @property
  def seed(self) -> int:
    """The run's seed."""
    return self.config["seed"]


def find(folders: Iterable[str]) -> list[Run]:
  """Returns every run in `folders` and in the folders within them, in order of their paths.

  Raises:
    UserError: a folder is not there, or holds no run.
  """
  paths: dict[pathlib.Path, None] = {}
  for folder in folders:
    if not pathlib.Path(folder).is_dir():
      raise options.UserError(f"workdir={folder} is not a folder")
    found = [path.parent for path in sorted(pathlib.Path(folder).rglob("config.json"))]
    found = [path for path in found if "checkpoints" not in path.relative_to(folder).parts]
    if not found:
      raise options.UserError(f"workdir={folder} holds no run: there is no config.json in it")
    paths |= dict.fromkeys(path.resolve() for path in found)
  runs = [read(path) for path in paths]
  readable = [run for run in runs if run is not None]
  if not readable:
    raise options.UserError(f"no config.json in {', '.join(map(str, folders))} is a run's")
  return readable


def read(path: pathlib.Path) -> Run | None:
  """Returns the run whose folder is `path`, or None if its `config.json` is no run's."""
  try:
    made = json.loads((path / "config.json").read_text())
    config = made.pop("config")
    config["seed"], config["dataset"]["name"], config["selector"]["name"]  # noqa: B018 - what every run has
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return None
  missing: list[str] = []
  metrics, summary = _metrics(path, missing), _summary(path, missing)
  if summary is None and metrics:
    missing.append(f"{config.get('epochs', 0) - len(metrics)} of {config.get('epochs')} epochs")
  return Run(path, config, made, metrics, summary, _visits(path, missing), tuple(missing))


def _metrics(path: pathlib.Path, missing: list[str]) -> list[dict[str, Any]]:
  try:
    lines = (path / "metrics.jsonl").read_text().splitlines()
  except OSError:
    missing.append("metrics.jsonl")
    return []
  metrics: list[dict[str, Any]] = []
  for line in lines:
    try:
      metrics.append(json.loads(line))
    except ValueError:  # a run that was killed while it wrote
      missing.append("metrics.jsonl: a torn line")
      break
  return metrics


def _summary(path: pathlib.Path, missing: list[str]) -> dict[str, Any] | None:
  try:
    return json.loads((path / "summary.json").read_text())
  except (OSError, ValueError):
    missing.append("summary.json")
    return None


def _visits(path: pathlib.Path, missing: list[str]) -> np.ndarray | None:
  try:
    with (path / "usage.npz").open("rb") as raw, np.load(raw, allow_pickle=False) as file:
      return file["visits"]
  except (*cache.UNREADABLE, KeyError):
    missing.append("usage.npz")
    return None


def seconds_without_offline(seconds: dict[str, float]) -> float:
  """Returns a run's seconds but for its offline stage, and for loading and compiling."""
  return seconds["total"] - sum(seconds.get(name, 0.0) for name in (*OFFLINE, *UNCOUNTED))


def num_samples(run: Run) -> int:
  """Returns N, from the first line of a run's metrics."""
  return round(run.metrics[0]["backward_visits"] / run.metrics[0]["realised_keep_fraction"])
