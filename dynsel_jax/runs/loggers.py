"""Sends the lines of `metrics.jsonl` and the summary to loggers beside the run's own files. Host-side.

`config.loggers` names them: `wandb` is Weights & Biases, with its own environment variables, such as WANDB_PROJECT, and
WANDB_MODE=offline on a machine without a network.
"""

import os
import pathlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from dynsel_jax.options import UserError, check_choice, flatten, optional_library, printable
from dynsel_jax.runs import files

__all__ = ["LOGGERS", "Wandb", "check", "create"]

PROJECT = "dynsel_jax"  # unless WANDB_PROJECT names another


class Wandb:
  """A run of Weights & Biases, the same one when a run is continued in its folder."""

  def __init__(self, path: pathlib.Path, config: Mapping[str, Any]):
    """Begins or continues the run of the folder `path`, whose file wandb_id.txt holds its id.

    Raises:
      UserError: the library refuses, for example for want of a login.
    """
    library, known = optional_library("wandb", "wandb"), path / "wandb_id.txt"
    if not known.exists():
      files.write_text(known, uuid.uuid4().hex[:12])
    try:
      self._run = library.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        dir=str(path),
        name=path.name,
        id=known.read_text().strip(),
        resume="allow",
        config=flatten(config),
      )
    except Exception as error:  # the library raises kinds of its own
      reason = printable(" ".join(str(error).split()), 200)
      raise UserError(
        f"loggers=wandb cannot begin ({reason}); log in by `wandb login` or set WANDB_MODE=offline"
      ) from None
    self._run.define_metric("*", step_metric="epoch")  # epochs that a continued run repeats are drawn at their place

  def epoch(self, line: Mapping[str, Any]) -> None:
    """Logs an epoch's line of `metrics.jsonl`."""
    self._run.log(_numbers(line))

  def finish(self, summary: Mapping[str, Any]) -> None:
    """Logs the summary."""
    self._run.summary.update(_numbers(summary))

  def close(self) -> None:
    """Waits until everything is sent or on disk."""
    self._run.finish()


LOGGERS = {"wandb": Wandb}


def check(names: Sequence[str]) -> None:
  """Raises `UserError` unless each name is a logger whose library is installed."""
  for name in names:
    check_choice("loggers", name, LOGGERS)
    optional_library(name, name)


def create(names: Sequence[str], path: pathlib.Path, config: Mapping[str, Any]) -> list[Wandb]:
  """Begins each logger for the run in the folder `path`; errors as in `check` and in the logger itself."""
  check(names)
  return [LOGGERS[name](path, config) for name in names]


def _numbers(fields: Mapping[str, Any]) -> dict[str, Any]:
  return {name: value for name, value in flatten(fields).items() if isinstance(value, int | float)}
