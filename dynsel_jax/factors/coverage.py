"""How well the samples that an epoch trained on cover the factors of their data set. Host-side, numpy.

A latent is a factor of the set if it fires, its value above 0, in at least one sample. It is common or rare as for RRD
(arXiv 2603.04981, Sec. 3.3): common if it is in the set F of Eq. 3, rare otherwise. `N` is the number of samples, `k`
the code length, `L` the number of latents. Memory grows with N x k, never with N x L.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dynsel_jax.factors.statistics import common_set

__all__ = ["Firings", "count", "coverage", "firings"]


class Firings(NamedTuple):
  """Which latents fire in which sample of a data set."""

  latents: np.ndarray  # [N, k] unsigned, of the smallest type that holds L, which stands where fewer than k fire
  frequency: np.ndarray  # [L] int64, samples in which the latent fires
  common: np.ndarray  # [L] bool


def firings(indices: np.ndarray, values: np.ndarray, num_latents: int, common_fraction: float) -> Firings:
  """Packs a data set's codes.

  Args:
    indices: `[N, k]` int32, no latent twice in a row.
    values: `[N, k]` float32; a latent fires where it is above 0.
    num_latents: L.
    common_fraction: share of the latents that count as common.
  """
  latents = np.where(values > 0, indices, num_latents).astype(np.min_scalar_type(num_latents))
  frequency = count(latents, np.ones(len(latents), np.int64), num_latents)
  common = common_set(jnp.asarray(frequency.astype(np.int32)), common_fraction)
  return Firings(latents, frequency, np.asarray(common))


def count(latents: np.ndarray, visits: np.ndarray, num_latents: int) -> np.ndarray:
  """Returns how often each latent fired among the visits, `[L]` int64.

  Args:
    latents: as in `Firings`.
    visits: `[N]` int, how often each sample was visited.
    num_latents: L.
  """
  seen = np.flatnonzero(visits)
  total = np.zeros(num_latents + 1)  # exact: far below 2**53
  for column in latents.T:  # one at a time, so that what bincount makes of them is N long
    total += np.bincount(column[seen], weights=visits[seen], minlength=num_latents + 1)
  return total[:num_latents].astype(np.int64)


def coverage(known: Firings, fired: np.ndarray, visits: int) -> dict[str, float | None]:
  """Returns how well some visits cover the set's factors.

  Args:
    known: of the data set.
    fired: `[L]` int, how often each latent fired among the visits, from `count`.
    visits: how many they are.

  Returns:
    `factors_covered`, the share of the factors that fired; `rare_factor_rate` and `common_factor_rate`, the mean over
    the rare and the common factors of how often one fired a visit, over how often it fires a sample of the whole set.
    Visits at random give 1, more is more than their share. None where there is no such factor.
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
