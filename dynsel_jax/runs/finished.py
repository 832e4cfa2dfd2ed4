"""Reads the folders that runs leave behind, finished or not. Host-side.

`runs.workdir` documents the files of a folder. A file that is missing or damaged is listed in `Run.missing`; the
rest of the run is still read. Folders of earlier versions are read too: their fields appear under today's names, and a
run without a task is a classifier measured by its accuracy.
"""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from dynsel_jax import cache, options
from dynsel_jax.metric import ACCURACY, Metric
from dynsel_jax.runs import files

__all__ = [
  "Run",
  "best",
  "final",
  "find",
  "lost",
  "num_samples",
  "read",
  "value",
  "walk",
]


class Run(NamedTuple):
  """One run's folder. `N` is the number of training samples.

  Metrics and summary hold the fields as written, plus `metric`, `final_metric`, `best_metric` and
  `noisy_fraction_kept` where an earlier version wrote them under another name.
  """

  path: pathlib.Path
  config: dict[str, Any]  # as `recipes.get_config` makes it
  made: dict[str, Any]  # the rest of `config.json`: versions, device, fingerprints, task
  task: str  # the task's name, for example "classification"
  metric: Metric
  metrics: list[dict[str, Any]]  # one dict per epoch
  summary: dict[str, Any] | None  # None unless the run is finished
  visits: np.ndarray | None  # [N] int, how often each sample was trained on
  missing: tuple[str, ...]  # descriptions of missing or damaged files

  @property
  def seed(self) -> int:
    """The run's seed."""
    return self.config["seed"]


def value(line: dict[str, Any]) -> float:
  """Returns the task's metric at the end of an epoch, given its line of `Run.metrics`; nan if it was not measured."""
  return _number(line.get("metric"))


def final(run: Run) -> float:
  """Returns the task's metric at the end of a finished run.

  Raises:
    ValueError: the run is not finished.
  """
  return _number(_finished(run)["final_metric"])


def best(run: Run) -> float:
  """Returns the best value, in the metric's direction, that a finished run had at the end of an epoch.

  Raises:
    ValueError: the run is not finished.
  """
  summary = _finished(run)
  if summary.get("best_metric") is not None:
    return float(summary["best_metric"])
  return run.metric.best([*map(value, run.metrics), final(run)])


def _finished(run: Run) -> dict[str, Any]:
  if run.summary is None:
    raise ValueError(f"{run.path} is not finished: it has no summary")
  return run.summary


def _number(stored: Any) -> float:
  return math.nan if stored is None else float(stored)


def find(folders: Iterable[str]) -> list[Run]:
  """Returns every run in `folders`, searched at any depth, sorted by path within each folder.

  Raises:
    UserError: a folder does not exist or contains no run.
  """
  paths: dict[pathlib.Path, None] = {}
  for folder in folders:
    if not pathlib.Path(folder).is_dir():
      raise options.UserError(f"workdir={folder} is not a folder")
    found = _holding("config.json", folder)
    if not found:
      raise options.UserError(f"workdir={folder} contains no run: there is no config.json at any depth")
    paths |= dict.fromkeys(found)
  runs = [read(path) for path in paths]
  readable = [run for run in runs if run is not None]
  if not readable:
    raise options.UserError(f"workdir={', '.join(map(str, folders))}: dynsel_jax wrote none of the config.json files")
  return readable


def lost(folders: Iterable[str]) -> list[str]:
  """Describes the subfolders of `folders` that `find` leaves out: failed cells of a sweep, and unreadable configs."""
  lines = []
  for folder in folders:
    for path in _holding("error.txt", folder):
      with contextlib.suppress(FileNotFoundError):  # the sweep is trying this cell again
        if not (path / "summary.json").exists():
          text = (path / "error.txt").read_text(errors="replace").strip().splitlines() or ["error.txt is empty"]
          lines.append(f"{path.name}: failed ({text[-1].strip()})")
    unreadable = [path for path in _holding("config.json", folder) if _described(path) is None]
    lines += [f"{path.name}: config.json is damaged, or was not written by dynsel_jax" for path in unreadable]
  return lines


def _holding(name: str, folder: str) -> list[pathlib.Path]:
  """Returns the folders that contain a file called `name`, `folder` and all below it, sorted by path."""
  found = sorted(path / name for path, names in walk(folder) if name in names)
  return [path.parent.resolve() for path in found]


def walk(folder: str) -> Iterator[tuple[pathlib.Path, list[str]]]:
  """Yields `folder` and all below it, each with the names of its files; checkpoints are not entered.

  A folder that vanishes meanwhile, as those of a run that goes on do, is skipped.
  """
  for path, below, names in os.walk(folder):
    below[:] = [name for name in below if name != "checkpoints"]
    yield pathlib.Path(path), names


def read(path: pathlib.Path) -> Run | None:
  """Returns the run in the folder `path`, or None if dynsel_jax did not write its `config.json`, or not as it is."""
  described = _described(path)
  if described is None:
    return None
  config, made, task, metric = described
  missing: list[str] = []
  metrics, summary = _metrics(path, metric, missing), _summary(path, metric, missing)
  if summary is None and metrics:
    # With `match_steps` the number of epochs is not in the config.
    lacking = (
      "some" if config.get("match_steps") else f"{config.get('epochs', 0) - len(metrics)} of {config.get('epochs')}"
    )
    missing.append(f"{lacking} epochs")
  return Run(path, config, made, task, metric, metrics, summary, _visits(path, missing), tuple(missing))


def _described(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any], str, Metric] | None:
  """Returns the first fields of `Run` that `config.json` holds, from `config` to `metric`; None as `read` does."""
  try:
    made = files.read_json(path / "config.json") or {}
    config = made.pop("config")
    _check_config(config)
    return config, made, *_task(made)
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
    return None


def _check_config(config: dict[str, Any]) -> None:
  """Checks the fields of a config that a report relies on.

  Raises:
    KeyError: a field that every run has is missing.
    TypeError: a field has the wrong type.
  """
  sections = config["dataset"], config["selector"], config.get("wrappers", {})
  words = [config["dataset"]["name"], config["selector"]["name"], *sections[2].get("names", ())]
  numbers = [config["seed"], config.get("epochs", 0)]
  kept = config["selector"].get("keep_fraction", 1.0)
  if not all(type(word) is str for word in words) or not all(type(number) is int for number in numbers):
    raise TypeError("a name is not a text, or a number no integer")
  if type(kept) not in (int, float) or not all(isinstance(section, dict) for section in sections):
    raise TypeError("a field has the wrong type")


def _task(made: dict[str, Any]) -> tuple[str, Metric]:
  """Returns the name of the task and its metric, given what `config.json` says beside the config.

  Raises:
    KeyError: a field is missing.
    TypeError: a field has the wrong type.
  """
  if "task" not in made:  # written before there were tasks
    return "classification", ACCURACY
  described = made["task"]["metric"]
  name, metric = made["task"]["name"], Metric(*(described[field] for field in Metric._fields))
  if list(map(type, (name, *metric))) != [str, str, str, bool]:
    raise TypeError(f"task={name!r} or its metric={described} has a field of the wrong type")
  return name, metric


def _fields(fields: Any, metric: Metric) -> dict[str, Any]:
  """Returns the fields of a JSON object, and under today's name each field that has another one there.

  Raises:
    ValueError: it is not an object.
  """
  if not isinstance(fields, dict):
    raise ValueError(f"{type(fields).__name__} instead of a JSON object")
  former = {
    "metric": f"test_{metric.name}",
    "final_metric": f"final_test_{metric.name}",
    "best_metric": f"best_test_{metric.name}",
    "noisy_fraction_kept": "noisy_share_kept",
  }
  return {new: fields[old] for new, old in former.items() if old in fields} | fields


def _metrics(path: pathlib.Path, metric: Metric, missing: list[str]) -> list[dict[str, Any]]:
  try:
    lines = (path / "metrics.jsonl").read_text(errors="replace").splitlines()
  except OSError:
    missing.append("metrics.jsonl")
    return []
  metrics: list[dict[str, Any]] = []
  torn = 0
  for line in lines:
    try:
      metrics.append(_fields(json.loads(line), metric))
    except (ValueError, RecursionError):  # the run was killed while writing it, and perhaps went on behind it
      torn += 1
  if torn:
    missing.append(f"metrics.jsonl: {'a torn line' if torn == 1 else f'{torn} torn lines'}")
  return metrics


def _summary(path: pathlib.Path, metric: Metric, missing: list[str]) -> dict[str, Any] | None:
  try:
    summary = _fields(files.read_json(path / "summary.json"), metric)
  except ValueError:
    missing.append("summary.json")
    return None
  if "final_metric" not in summary:
    missing.append(f"summary.json: no final_metric and no final_test_{metric.name}")
    return None
  return summary


def _visits(path: pathlib.Path, missing: list[str]) -> np.ndarray | None:
  try:
    visits = cache.read_arrays("usage", path / "usage.npz")["visits"]
  except (options.UserError, KeyError):
    visits = np.zeros(0)
  if visits.ndim != 1 or visits.dtype.kind not in "iu" or not visits.size or visits.min() < 0:
    missing.append("usage.npz")
    return None
  return visits


def num_samples(run: Run) -> int:
  """Returns N, from the first line of a run's metrics."""
  return round(run.metrics[0]["backward_visits"] / run.metrics[0]["realised_keep_fraction"])
