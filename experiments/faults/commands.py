"""The command that trains one of the campaign's runs, how an attempt at it ended, and what a run leaves. Host-side."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dynsel_jax import hashing
from dynsel_jax.runs import console, files

__all__ = ["METHODS", "Attempt", "Place", "differences", "train"]

METHODS = ("infobatch", "es", "rrd", "kakurenbo", "rs2")

_FLAGS = ("--config.epochs=6", "--config.checkpoint_every_steps=10")
_OWN_FLAGS = {"rrd": ("--config.factors.epochs=5", "--config.selector.refinement=0.0")}  # nothing to warn of
_SECONDS = 600  # after which an attempt counts as hanging
_ROOT = pathlib.Path(__file__).resolve().parents[2]
# What a command says because the machine is slow: what it is doing, and a warning of Orbax.
_SLOW = (*(f"{words} ..." for words in console.WAITING.values()), "warning: Waiting for previous save to complete")
_UNCOMPARED = ("seconds", "ended", "resumed_from")  # depend on the machine, and on where the run was stopped


class Place(NamedTuple):
  """Where a run and its cache lie."""

  workdir: pathlib.Path
  cache: pathlib.Path
  programs: pathlib.Path  # compiled programs, shared by all runs


class Attempt(NamedTuple):
  """How a command ended."""

  status: int | None  # None if it hung
  errors: list[str]  # the lines of its standard error, but for those that say that the machine is slow
  seconds: float
  killed: bool = False  # by the campaign

  @property
  def warnings(self) -> list[str]:
    """The lines that warn."""
    return [line for line in self.errors if line.startswith("warning: ")]

  @property
  def wrong(self) -> str:
    """Says what is wrong with the way in which it ended, whatever the result; "" if nothing is."""
    if self.status is None:
      return f"hung for {_SECONDS} s"
    if self.killed:
      return ""
    if any("Traceback" in line for line in self.errors):
      return "traceback"
    others = [line for line in self.errors if line not in self.warnings]
    if self.status == 0:
      return f"said {others[0]!r}" if others else ""
    if self.status < 0:
      return f"ended by {signal.Signals(-self.status).name}"
    if len(others) != 1 or not others[0].startswith("error: "):
      return f"status {self.status} with {len(others)} lines: {others[:2]}"
    return ""


def train(method: str, place: Place, meanwhile: Callable[[subprocess.Popen[str]], bool] | None = None) -> Attempt:
  """Runs the command to its end.

  Args:
    method: of `METHODS`.
    place: of the run.
    meanwhile: does something while the command runs, and returns whether it has killed the command.
  """
  config = f"configs/digits.py:size=smoke,selector={method}"
  flags = [*_FLAGS, *_OWN_FLAGS.get(method, ()), f"--workdir={place.workdir}"]
  command = [sys.executable, "-m", "experiments.train", f"--config={config}", *flags]
  environment = {
    **os.environ,
    "DYNSEL_CACHE": str(place.cache),
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(place.programs),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  start = time.perf_counter()
  with subprocess.Popen(
    command, cwd=_ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
  ) as process:
    killed = meanwhile(process) if meanwhile else False
    try:
      _, errors = process.communicate(timeout=_SECONDS)
      status: int | None = process.returncode
    except subprocess.TimeoutExpired:
      process.kill()
      errors, status = process.communicate()[1], None
  said = [line for line in errors.splitlines() if not line.startswith(_SLOW)]
  return Attempt(status, said, time.perf_counter() - start, killed)


def differences(workdir: pathlib.Path, reference: pathlib.Path) -> list[str]:
  """Describes in what a run's files differ from those of the undisturbed run, apart from seconds."""
  found = []
  for name in ("usage", "columns", "firings"):
    ours, theirs = (_checksum(folder / f"{name}.npz") for folder in (workdir, reference))
    if ours != theirs:
      found.append(f"{name}.npz")
  ours, theirs = (_lines(folder / "metrics.jsonl") for folder in (workdir, reference))
  if ours != theirs:
    found.append(f"metrics.jsonl: {len(ours)} lines of {len(theirs)}")
  for name in ("config.json", "summary.json"):
    one, other = (_compared(_fields(folder / name)) for folder in (workdir, reference))
    if one != other:
      found.append(name)
  return found


def _checksum(path: pathlib.Path) -> str:
  arrays = files.read_arrays(path)
  return hashing.checksum(arrays) if arrays is not None else f"none, {path.exists()}"


def _fields(path: pathlib.Path) -> dict[str, Any]:
  try:
    return files.read_json(path) or {}
  except ValueError as error:
    return {"error": str(error)}


def _compared(fields: Mapping[str, Any]) -> dict[str, Any]:
  return {name: value for name, value in fields.items() if name not in _UNCOMPARED}


def _lines(path: pathlib.Path) -> list[Any]:
  try:
    return [_compared(json.loads(line)) for line in path.read_text().splitlines()]
  except (OSError, ValueError, AttributeError):
    return [np.nan]  # equals nothing
