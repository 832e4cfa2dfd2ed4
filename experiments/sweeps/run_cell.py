"""Makes or continues the run of one cell of a sweep, in whichever process. Host-side."""

import contextlib
import json
import math
import pathlib
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import ml_collections

from dynsel_jax import data, offline, options
from dynsel_jax.runs import finished
from dynsel_jax.runs.interruption import Interrupted
from dynsel_jax.runs.workdir import Workdir
from dynsel_jax.training import checkpoint

__all__ = [
  "Outcome",
  "Task",
  "attempt",
  "failure",
  "final_metric",
  "finished_run",
  "finished_summary",
  "make",
  "prepare_once",
  "validation",
  "write_error",
]


class Task(NamedTuple):
  """A cell whose run is to be made."""

  name: str
  config: ml_collections.ConfigDict
  folder: pathlib.Path


class Outcome(NamedTuple):
  """The result of a cell. Text only, so that any error can be sent from one process to another."""

  state: Literal["done", "failed", "stopped"]
  text: str  # the final metric, the error in one line, or why it was stopped
  details: str = ""  # the traceback of an error
  seconds: float = 0.0  # of a cell that is done


def finished_run(folder: pathlib.Path) -> finished.Run | None:
  """Returns the run in `folder`, or None unless it is finished."""
  run = finished.read(folder)
  return None if run is None or run.summary is None else run


def finished_summary(task: Task) -> dict[str, Any] | None:
  """Returns the summary of a cell's run without building it, or None if it is not finished.

  Raises:
    UserError: the folder contains a run of another config.
  """
  held = Workdir(str(task.folder))
  held.check_same_run({"config": task.config.to_dict()}, checkpoint.saved_identity(held.checkpoints))
  return held.read_summary()


def final_metric(run: finished.Run) -> str:
  """Returns the final metric of a finished run with its unit, as the table shows it."""
  return run.metric.show(finished.final(run))


def validation(run: finished.Run) -> float:
  """Returns the task's metric on the validation set at the end of a run; nan if the data have none."""
  last = run.metrics[-1].get(f"validation_{run.metric.name}") if run.metrics else None
  return math.nan if last is None else float(last)


def failure(error: BaseException) -> Outcome:
  """Returns the outcome of a cell that ended with `error`."""
  lines = str(error).strip().splitlines()
  kind = "" if isinstance(error, options.UserError) else f"{type(error).__name__}: "
  return Outcome("failed", kind + (lines[0] if lines else ""), "".join(traceback.format_exception(error)))


def write_error(folder: pathlib.Path, outcome: Outcome) -> None:
  """Writes the error of a cell that failed to `error.txt` in its folder, where a report finds it."""
  with contextlib.suppress(OSError):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "error.txt").write_text(outcome.details, "utf-8", "backslashreplace")


def make(task: Task, **hooks: Any) -> Outcome:
  """Makes or continues the run of a cell, and frees its programs; arguments as in `attempt`."""
  try:
    return attempt(task, **hooks)
  finally:
    jax.clear_caches()  # another cell has programs of its own; equal ones are found in the cache on disk


def attempt(task: Task, **hooks: Any) -> Outcome:
  """Makes or continues the run of a cell; `hooks` are arguments of `offline.train_and_evaluate`."""
  start = time.perf_counter()
  (task.folder / "error.txt").unlink(missing_ok=True)
  try:
    result = offline.train_and_evaluate(task.config, task.folder, **hooks)
    text = result.run.recipe.task.metric.show(result.summary["final_metric"])
  except (Interrupted, KeyboardInterrupt) as stopped:
    return Outcome("stopped", str(stopped) or "stopped")
  except Exception as error:  # whatever it is, the other cells can still be run
    return failure(error)
  return Outcome("done", text, seconds=time.perf_counter() - start)


def prepare_once(prepare: Callable[..., data.Source]) -> Callable[..., data.Source]:
  """Wraps `data.prepare` so that consecutive runs on the same data read it once."""
  held: dict[str, data.Source] = {}

  def remembered(section: Mapping[str, Any], cache_dir: str) -> data.Source:
    key = json.dumps([section, cache_dir], sort_keys=True)
    if key not in held:
      held.clear()
      held[key] = prepare(section, cache_dir)
    return held[key]

  return remembered
