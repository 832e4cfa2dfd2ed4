"""Measures the wall-clock seconds of a run by phase. Host-side."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["PHASES", "Timers"]

PHASES = (
  "loading",
  "features",
  "factors",
  "compiling",
  "selecting",
  "training",
  "scoring",
  "evaluating",
  "checkpointing",
)


class Timers:
  """The seconds of each phase, over all parts of an interrupted run."""

  def __init__(self, shown: Callable[[str], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext):
    """Starts the clock for this part of the run; `shown(name)` is entered while a phase lasts, to tell people."""
    self._shown = shown
    self._seconds = dict.fromkeys(PHASES, 0.0)
    self._earlier_total = 0.0
    self._start = time.perf_counter()

  def add(self, earlier: Mapping[str, float]) -> None:
    """Adds the seconds of an earlier part of the run, from `seconds`."""
    for name in PHASES:
      self._seconds[name] += earlier[name]
    self._earlier_total += earlier["total"]

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Adds the enclosed seconds to the phase `name`, one of `PHASES`."""
    start = time.perf_counter()
    try:
      with self._shown(name):
        yield
    finally:
      self._seconds[name] += time.perf_counter() - start

  def seconds(self) -> dict[str, float]:
    """Returns the seconds of every phase and the total, rounded to milliseconds."""
    total = self._earlier_total + time.perf_counter() - self._start
    return {name: round(value, 3) for name, value in {**self._seconds, "total": total}.items()}
