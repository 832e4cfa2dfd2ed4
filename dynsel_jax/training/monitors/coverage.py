"""Measures how well an epoch's samples cover the factors of the autoencoder; see `factors.coverage`."""

from typing import Any

import numpy as np

from dynsel_jax.factors import coverage as coverage_lib
from dynsel_jax.training.monitors.monitor import EpochEnd, Monitor

__all__ = ["coverage"]


def coverage(firings: coverage_lib.Firings) -> Monitor:
  """Logs `factors_covered`, `rare_factor_rate` and `common_factor_rate`, given which latents fire in which sample."""
  num_latents = firings.frequency.size

  def init() -> dict[str, Any]:
    return {"total": [0] * num_latents, "metrics": {}}

  def update(state: dict[str, Any], end: EpochEnd) -> dict[str, Any]:
    fired = coverage_lib.count(firings.latents, end.visits, num_latents)
    of_epoch = fired - np.asarray(state["total"])
    return {"total": fired.tolist(), "metrics": coverage_lib.coverage(firings, of_epoch, end.backward_visits)}

  return Monitor("coverage", init, update, lambda state: state["metrics"], lambda state, visits: {})
