"""Reads the folders that runs leave behind, finished or not. Host-side.

`training.workdir` says what a folder holds. What is not there, or cannot be read, is named and done without.
"""

import json
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from dynsel_jax import cache, options

__all__ = ["OFFLINE", "UNCOUNTED", "Run", "find", "lost", "num_samples", "read", "seconds_without_offline"]

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
    found = _holding("config.json", folder)
    if not found:
      raise options.UserError(f"workdir={folder} holds no run: there is no config.json in it")
    paths |= dict.fromkeys(found)
  runs = [read(path) for path in paths]
  readable = [run for run in runs if run is not None]
  if not readable:
    raise options.UserError(f"no config.json in {', '.join(map(str, folders))} is a run's")
  return readable


def lost(folders: Iterable[str]) -> list[str]:
  """Returns, in words, which folders within `folders` are of runs that failed in a sweep or have no readable config."""
  lines = []
  for folder in folders:
    for path in _holding("error.txt", folder):
      if not (path / "summary.json").exists():
        said = (path / "error.txt").read_text(errors="replace").strip().splitlines() or ["no word why"]
        lines.append(f"{path.name}: failed ({said[-1].strip()})")
    lines += [f"{path.name}: config.json is no run's" for path in _holding("config.json", folder) if read(path) is None]
  return lines


def _holding(name: str, folder: str) -> list[pathlib.Path]:
  """Returns the folders within `folder`, and itself, that hold a file called `name`, in order of their paths."""
  found = [path.parent for path in sorted(pathlib.Path(folder).rglob(name))]
  return [path.resolve() for path in found if "checkpoints" not in path.relative_to(folder).parts]


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
    # Of a run with `match_steps` only the run knows how many epochs it is to have.
    lacking = (
      "some" if config.get("match_steps") else f"{config.get('epochs', 0) - len(metrics)} of {config.get('epochs')}"
    )
    missing.append(f"{lacking} epochs")
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
