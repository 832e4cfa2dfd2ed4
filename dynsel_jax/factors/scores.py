"""Representativeness and rarity of samples, computed from their sparse codes. Pure and jit-able.

arXiv 2603.04981, Eqs 3, 5 and 6 and App. D.1. Each score is a sum of weights over a sample's active latents; the data
set determines the weight of each latent. `N` is the number of samples, `k` the code length, `L` the number of latents.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.factors.sae import Codes
from dynsel_jax.factors.statistics import FactorStatistics, common_set, factor_statistics

__all__ = ["columns", "min_max", "rarity", "representativeness", "sample_score"]


def sample_score(codes: Codes, latent_weight: Array) -> Array:
  """Sums the weights of the active latents of one sample.

  Args:
    codes: of one sample, `[k]` each.
    latent_weight: `[L]` float32.

  Returns:
    `[]` float32.
  """
  return jnp.sum(jnp.where(codes.values > 0, latent_weight[codes.indices], 0))


@functools.partial(jax.jit, static_argnames="common_fraction")
def representativeness(codes: Codes, statistics: FactorStatistics, *, common_fraction: float = 0.1) -> Array:
  """Sums 1 / class spread over each sample's active common latents (Eq. 3), `[N]` float32.

  Args:
    codes: of N samples.
    statistics: of the data set.
    common_fraction: fraction of the latents that count as common, in (0, 1].
  """
  spread = jnp.maximum(statistics.class_spread, 1).astype(jnp.float32)
  weight = jnp.where(common_set(statistics.firing_frequency, common_fraction), 1 / spread, 0)
  return jax.vmap(sample_score, in_axes=(0, None))(codes, weight)


@jax.jit
def rarity(codes: Codes, statistics: FactorStatistics) -> Array:
  """Sums 1 / firing frequency over each sample's active latents (Div of Eqs 5 and 6), `[N]` float32.

  Args:
    codes: of N samples.
    statistics: of the data set; a latent that never fires there counts as if it fired once.
  """
  weight = 1 / jnp.maximum(statistics.firing_frequency, 1).astype(jnp.float32)
  return jax.vmap(sample_score, in_axes=(0, None))(codes, weight)


@jax.jit
def min_max(score: Array) -> Array:
  """Rescales a score `[N]` linearly to [0, 1] over the data set; a constant score becomes 0."""
  low = jnp.min(score)
  span = jnp.max(score) - low
  return jnp.where(span > 0, (score - low) / jnp.where(span > 0, span, 1), 0)


def columns(
  codes: Codes,
  labels: Array,
  num_classes: int,
  *,
  num_latents: int,
  common_fraction: float = 0.1,
  statistics: FactorStatistics | None = None,
) -> dict[str, Array]:
  """Returns columns for a `SampleTable`: "representativeness" and "rarity", `[N]` float32 in [0, 1].

  Args:
    codes: of the scored data set, from an autoencoder fitted to this or another data set.
    labels: `[N]` int32, in [0, num_classes).
    num_classes: number of classes.
    num_latents: L.
    common_fraction: fraction of the latents that count as common, in (0, 1].
    statistics: of the scored data set; computed from `codes` if not given.
  """
  if statistics is None:
    statistics = factor_statistics(codes, labels, num_classes=num_classes, num_latents=num_latents)
  return {
    "representativeness": min_max(representativeness(codes, statistics, common_fraction=common_fraction)),
    "rarity": min_max(rarity(codes, statistics)),
  }
