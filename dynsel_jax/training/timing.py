"""Wall-clock seconds of a run by phase. Host-side."""

import contextlib
import time
from collections.abc import Iterator, Mapping

__all__ = ["PHASES", "Timers"]

PHASES = (
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
  """Seconds spent in each phase, over all parts of an interrupted run."""

  def __init__(self, earlier: Mapping[str, float] | None = None):
    """Begins at the seconds of the run's `earlier` parts, as `seconds` gave them."""
    earlier = earlier or {}
    self._seconds = {name: float(earlier.get(name, 0.0)) for name in PHASES}
    self._earlier_total = float(earlier.get("total", 0.0))
    self._start = time.perf_counter()

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Counts the enclosed seconds towards the phase `name`, one of `PHASES`."""
    start = time.perf_counter()
    try:
      yield
    finally:
      self._seconds[name] += time.perf_counter() - start

  def seconds(self) -> dict[str, float]:
    """Returns the seconds of every phase, and of the whole run, in whole milliseconds."""
    total = self._earlier_total + time.perf_counter() - self._start
    return {name: round(value, 3) for name, value in {**self._seconds, "total": total}.items()}
