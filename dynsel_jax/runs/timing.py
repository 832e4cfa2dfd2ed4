"""Measures the wall-clock seconds of a run by phase. Host-side.

Every second belongs to one phase: a phase within another one stops the other's clock, and what no phase encloses is
"setting_up". So the seconds of a run's phases add up to its total.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["COST", "OFFLINE", "PHASES", "Timers", "rounded", "word"]

PHASES = (
  "loading",
  "setting_up",
  "features",
  "factors",
  "proxy",  # the run of the small network whose choice another network trains on
  "compiling",
  "selecting",
  "training",
  "scoring",
  "evaluating",
  "checkpointing",
  "recording",  # of metrics, events and the console
)
OFFLINE = ("features", "factors", "proxy")  # whose results runs share through the cache
# What a method costs. The others depend on how often one evaluates and saves, and on what the machine had cached.
COST = (*OFFLINE, "selecting", "training", "scoring")


class Timers:
  """The seconds of each phase, over all parts of an interrupted run."""

  def __init__(self, shown: Callable[[str], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext):
    """Starts the clock in the phase "setting_up"; `shown(name)` is entered while a phase lasts, to tell people."""
    self._shown = shown
    self._seconds = dict.fromkeys(PHASES, 0.0)
    self._running = ["setting_up"]
    self._since = time.perf_counter()

  def add(self, earlier: Mapping[str, float]) -> None:
    """Adds the seconds of an earlier part of the run, from `seconds`.

    Earlier versions had fewer phases; what those left out counts as "setting_up".
    """
    for name in PHASES:
      self._seconds[name] += earlier.get(name, 0.0)
    self._seconds["setting_up"] += max(earlier["total"] - sum(earlier.get(name, 0.0) for name in PHASES), 0.0)

  def _read(self) -> None:
    """Adds the seconds since the last call to the phase that is running."""
    now = time.perf_counter()
    self._seconds[self._running[-1]] += now - self._since
    self._since = now

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Counts the enclosed seconds for the phase `name`, one of `PHASES`, and for no other."""
    self._read()
    self._running.append(name)
    try:
      with self._shown(name):
        yield
    finally:
      self._read()
      self._running.pop()

  def seconds(self) -> dict[str, float]:
    """Returns the seconds of every phase, rounded to milliseconds, and their sum as "total"."""
    self._read()
    rounded = {name: round(value, 3) for name, value in self._seconds.items()}
    return {**rounded, "total": round(sum(rounded.values()), 3)}


def rounded(seconds: Mapping[str, float], unit: float) -> dict[str, float]:
  """Rounds seconds to multiples of `unit` so that they add up to their rounded sum, by the largest remainders."""
  whole = {name: math.floor(value / unit) for name, value in seconds.items()}
  missing = round(sum(seconds.values()) / unit) - sum(whole.values())
  by_remainder = sorted(seconds, key=lambda name: whole[name] - seconds[name] / unit)
  return {name: unit * (whole[name] + (name in by_remainder[:missing])) for name in seconds}


def word(phase: str) -> str:
  """Returns the name of a phase as a reader sees it."""
  return {"setting_up": "set-up"}.get(phase, phase)
