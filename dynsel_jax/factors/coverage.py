"""Measures how well the samples that an epoch trained on cover the factors of their data set. Host-side, numpy.

A latent fires in a sample if its value there is above 0, and is a factor of the data set if it fires in at least one
sample. Factors are common or rare as in RRD (arXiv 2603.04981, Sec. 3.3): common in the set F of Eq. 3, rare otherwise.

`N` is the number of samples, `k` the code length, `L` the number of latents. Memory grows with N x k, not with N x L.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dynsel_jax.factors.statistics import common_set

__all__ = ["Firings", "count", "coverage", "firings"]


class Firings(NamedTuple):
  """The latents that fire in each sample of a data set."""

  latents: np.ndarray  # [N, k] of the smallest unsigned type that holds L; L fills the row where fewer than k fire
  frequency: np.ndarray  # [L] int64, number of samples in which the latent fires
  common: np.ndarray  # [L] bool, whether the latent is in the set F of Eq. 3


def firings(indices: np.ndarray, values: np.ndarray, num_latents: int, common_fraction: float) -> Firings:
  """Packs the codes of a data set.

  Args:
    indices: `[N, k]` int32, without repeated latents in a row.
    values: `[N, k]` float32; a latent fires where its value is above 0.
    num_latents: L.
    common_fraction: fraction of the latents that count as common, in (0, 1].
  """
  latents = np.where(values > 0, indices, num_latents).astype(np.min_scalar_type(num_latents))
  frequency = count(latents, np.ones(len(latents), np.int64), num_latents)
  common = common_set(jnp.asarray(frequency.astype(np.int32)), common_fraction)
  return Firings(latents, frequency, np.asarray(common))


def count(latents: np.ndarray, visits: np.ndarray, num_latents: int) -> np.ndarray:
  """Counts how often each latent fired over all visits, `[L]` int64.

  Args:
    latents: as in `Firings`.
    visits: `[N]` int, number of visits to each sample.
    num_latents: L.
  """
  seen = np.flatnonzero(visits)
  total = np.zeros(num_latents + 1)  # float64 counts exactly below 2**53; the last entry collects the fill value L
  for column in latents.T:  # a column at a time: bincount's temporary arrays stay at length N
    total += np.bincount(column[seen], weights=visits[seen], minlength=num_latents + 1)
  return total[:num_latents].astype(np.int64)


def coverage(known: Firings, fired: np.ndarray, visits: int) -> dict[str, float | None]:
  """Measures how well a number of visits covers the factors of the data set.

  Args:
    known: the firings of the data set.
    fired: `[L]` int, how often each latent fired over the visits, from `count`.
    visits: number of visits.

  Returns:
    `factors_covered`, the fraction of the factors that fired, and `rare_factor_rate` and `common_factor_rate`, the mean
    over the rare and over the common factors of (firings per visit) / (firings per sample of the data set). Visits at
    random give 1; a greater value means that these factors are visited more often than at random. A value is None if
    the data set has no such factor.
  """
  alive = known.frequency > 0
  rate = np.divide(fired * len(known.latents), known.frequency * max(visits, 1), where=alive, out=np.zeros(alive.shape))
  return {
    "factors_covered": _mean(fired[alive] > 0),
    "rare_factor_rate": _mean(rate[alive & ~known.common]),
    "common_factor_rate": _mean(rate[alive & known.common]),
  }


def _mean(values: np.ndarray) -> float | None:
  return float(values.mean()) if values.size else None
