"""Counts the damaged samples that a run on a streamed data set has found so far."""

from typing import Any

from dynsel_jax.training.monitors.monitor import EpochEnd, Monitor

__all__ = ["corrupt"]


def corrupt() -> Monitor:
  """Logs `corrupt`, a count over all splits."""

  def update(state: int, end: EpochEnd) -> int:
    return state if end.corrupt is None else sum(map(len, end.corrupt.values()))

  def metrics(state: int) -> dict[str, Any]:
    return {"corrupt": state}

  return Monitor("corrupt", lambda: 0, update, metrics, lambda state, visits: metrics(state))
