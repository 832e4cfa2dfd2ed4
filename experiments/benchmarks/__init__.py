"""The benchmarks of `python -m experiments.benchmark`, a file per subject, and the clock that they share."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from dynsel_jax import options

__all__ = ["alternate", "clock", "integer", "seconds_of"]


def integer(name: str, text: str, least: int = 1) -> int:
  """Returns the number that an argument is.

  Raises:
    UserError: it is not an integer, or less than `least`.
  """
  if not text.isdecimal() or int(text) < least:
    raise options.UserError(f"{name}={text} must be an integer, at least {least}")
  return int(text)


def seconds_of(call: Callable[[], Any]) -> float:
  """Returns the seconds of one awaited call."""
  start = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - start


def clock(seconds: float) -> str:
  """Returns seconds with three significant digits, in s, ms or µs."""
  unit, name = next(((u, n) for u, n in ((1.0, "s"), (1e-3, "ms")) if seconds >= u), (1e-6, "µs"))
  value = seconds / unit
  digits = 2 - math.floor(math.log10(value)) if value > 0 else 0
  return f"{value:.{max(digits, 0)}f} {name}"


def alternate(ours: Callable[[], Any], reference: Callable[[], Any], pairs: int) -> tuple[float, float, float]:
  """Calls both alternately; returns the median seconds of each, and the median over the pairs of ours / reference."""
  ours(), reference()
  taken = [(seconds_of(ours), seconds_of(reference)) for _ in range(pairs)]
  first, second = (statistics.median(column) for column in zip(*taken, strict=True))
  return first, second, statistics.median(one / other for one, other in taken)
