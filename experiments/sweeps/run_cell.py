"""One cell of a sweep made or continued, in whichever process, and what became of it. Host-side."""

import json
import pathlib
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import ml_collections

from dynsel_jax import cache, data, offline, options
from dynsel_jax.metric import ACCURACY, Metric
from dynsel_jax.runs.interruption import Interrupted

__all__ = ["Outcome", "Task", "failure", "final_metric", "keep_programs", "make", "remembering_the_last"]


class Task(NamedTuple):
  """A cell to be made."""

  name: str
  config: ml_collections.ConfigDict
  folder: pathlib.Path


class Outcome(NamedTuple):
  """What became of a cell. Text only, so that it can be sent from one process to another, whatever the error was."""

  state: Literal["done", "failed", "stopped"]
  text: str  # the final metric, the error in one line, or why it stopped
  details: str = ""  # of an error: the traceback
  seconds: float = 0.0  # of a cell that is done


def final_metric(summary: Mapping[str, Any], folder: pathlib.Path) -> str:
  """Returns the final metric of a finished run in `folder` as the table shows it."""
  try:
    metric = Metric(**json.loads((folder / "config.json").read_text())["task"]["metric"])
  except (OSError, ValueError, KeyError, TypeError):
    metric = ACCURACY  # a run of a version that had no tasks
  return metric.show(summary.get("final_metric", summary.get("final_test_accuracy")))


def failure(error: BaseException) -> Outcome:
  """Returns the outcome of a cell that ended with `error`."""
  lines = str(error).strip().splitlines()
  kind = "" if isinstance(error, options.UserError) else f"{type(error).__name__}: "
  return Outcome("failed", kind + (lines[0] if lines else ""), "".join(traceback.format_exception(error)))


def make(task: Task, **hooks: Any) -> Outcome:
  """Makes or continues the run of a cell; `hooks` are those of `offline.train_and_evaluate`."""
  start = time.perf_counter()
  (task.folder / "error.txt").unlink(missing_ok=True)
  try:
    summary = offline.train_and_evaluate(task.config, task.folder, **hooks).summary
  except (Interrupted, KeyboardInterrupt) as stopped:
    return Outcome("stopped", str(stopped) or "stopped")
  except Exception as error:  # whatever it is, the other cells can still be run
    return failure(error)
  finally:
    jax.clear_caches()  # the next cell's programs are its own; those that are alike are found in the cache on disk
  return Outcome("done", final_metric(summary, task.folder), seconds=time.perf_counter() - start)


def remembering_the_last(prepare: Callable[..., data.Source]) -> Callable[..., data.Source]:
  """Returns `data.prepare` such that runs on the same data, one after another, read it once."""
  held: dict[str, data.Source] = {}

  def remembered(section: Mapping[str, Any], cache_dir: str) -> data.Source:
    key = json.dumps([section, cache_dir], sort_keys=True)
    if key not in held:
      held.clear()
      held[key] = prepare(section, cache_dir)
    return held[key]

  return remembered


def keep_programs() -> None:
  """Has JAX keep compiled programs on disk, unless the user has said where."""
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir", str(cache.default_directory() / "programs"))
