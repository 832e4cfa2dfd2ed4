"""Codes of a whole data set, and quality metrics of the autoencoder. `encode_all` and `measure` run jitted, by chunks.

`N` is the number of samples, `D` the input width, `L` the number of latents, `k` the code length.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from dynsel_jax.factors import sae
from dynsel_jax.factors.sae import Codes, Normalizer, SAEParams

__all__ = [
  "HISTOGRAM_EDGES",
  "MAX_DEAD_FRACTION",
  "MAX_FVU",
  "Quality",
  "encode_all",
  "from_arrays",
  "measure",
  "mostly_negative",
  "warnings",
]

MAX_FVU = 0.35
MAX_DEAD_FRACTION = 0.3
HISTOGRAM_EDGES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # fractions of the samples
_CHUNK = 4096  # samples encoded at a time
_OLD_NAMES = {"dead_share": "dead_fraction"}  # of fields, in caches written by earlier versions


class Quality(NamedTuple):
  """Quality metrics of an autoencoder on a data set."""

  fvu: Array  # [] float32, fraction of variance unexplained
  mean_l0: Array  # [] float32, mean number of active latents per sample (L0)
  dead_fraction: Array  # [] float32, fraction of the latents that are not active in any sample
  # [8] int32, number of latents that never fire, then by the fraction of samples they fire in: (edge i, edge i+1].
  frequency_histogram: Array


def from_arrays(arrays: Mapping[str, ArrayLike]) -> Quality:
  """Reads the metrics from saved arrays, one for each field of `Quality`. Host-side.

  Older caches call `dead_fraction` "dead_share"; they stay readable, since a fit takes minutes.
  """
  saved = {_OLD_NAMES.get(name, name): array for name, array in arrays.items()}
  return Quality(*(jnp.asarray(saved[name]) for name in Quality._fields))


@functools.partial(jax.jit, static_argnames=("k", "topk"))
def encode_all(params: SAEParams, normalizer: Normalizer, features: Array, *, k: int, topk: str) -> Codes:
  """Encodes a data set chunk by chunk, so that pre-activations `[N, L]` never exist at once.

  Args:
    params: of the autoencoder.
    normalizer: of its inputs.
    features: `[N, D]` float32, not normalised.
    k: code length.
    topk: "absolute" or "value", as in the fit.
  """
  return _measured_codes(params, normalizer, features, k, topk)[0]


def _measured_codes(
  params: SAEParams, normalizer: Normalizer, features: Array, k: int, topk: str
) -> tuple[Codes, Array]:
  """Returns all codes and the squared reconstruction error of each sample, `[N]`."""
  num_samples = features.shape[0]
  chunk = min(_CHUNK, num_samples)

  def put(i: Array, carry: tuple[Codes, Array]) -> tuple[Codes, Array]:
    start = jnp.minimum(i * chunk, num_samples - chunk)  # the last chunk overlaps the previous one: equal shapes
    x = sae.normalize(normalizer, lax.dynamic_slice_in_dim(features, start, chunk))
    codes = sae.encode(params, x, k=k, topk=topk)
    error = jnp.sum(jnp.square(x - sae.decode(params, codes)), axis=1)
    return jax.tree.map(lambda full, part: lax.dynamic_update_slice_in_dim(full, part, start, 0), carry, (codes, error))

  empty = Codes(jnp.zeros((num_samples, k), jnp.int32), jnp.zeros((num_samples, k), features.dtype))
  return lax.fori_loop(0, -(-num_samples // chunk), put, (empty, jnp.zeros(num_samples, features.dtype)))


@functools.partial(jax.jit, static_argnames=("k", "topk", "active"))
def measure(
  params: SAEParams, normalizer: Normalizer, features: Array, *, k: int, topk: str, active: str = "positive"
) -> tuple[Codes, Quality]:
  """Encodes a data set and measures the autoencoder on it.

  Args:
    params: as in `encode_all`, and so the others.
    normalizer: of its inputs.
    features: `[N, D]` float32, not normalised.
    k: code length.
    topk: "absolute" or "value", as in the fit.
    active: "positive", as in Eq. 2: latents above 0; "nonzero": also those below, which the absolute rule keeps. The
      values of the codes are then absolute values, so that a latent is active where its value is above 0 in any case.
  """
  codes, error = _measured_codes(params, normalizer, features, k, topk)
  if active == "nonzero":
    codes = codes._replace(values=jnp.abs(codes.values))
  own = sae.fit_normalizer(features)  # FVU refers to the variance of the measured data, not of the fitted data
  variance = jnp.square(own.scale / normalizer.scale)
  fires = codes.values > 0
  frequency = jnp.zeros(params.b_enc.shape, jnp.int32).at[codes.indices].add(fires.astype(jnp.int32))
  fraction = frequency.astype(jnp.float32) / features.shape[0]
  edges = jnp.asarray(HISTOGRAM_EDGES, jnp.float32)
  histogram = jnp.zeros(len(HISTOGRAM_EDGES), jnp.int32).at[jnp.searchsorted(edges, fraction)].add(1)
  quality = Quality(
    fvu=jnp.mean(error) / variance,
    mean_l0=jnp.mean(jnp.sum(fires, axis=1).astype(jnp.float32)),
    dead_fraction=jnp.mean((frequency == 0).astype(jnp.float32)),
    frequency_histogram=histogram,
  )
  return codes, quality


@functools.partial(jax.jit, static_argnames="k")
def mostly_negative(params: SAEParams, normalizer: Normalizer, features: Array, *, k: int) -> Array:
  """Finds the latents, `[L]` bool, whose kept values under the absolute rule are negative more often than positive."""
  codes = encode_all(params, normalizer, features, k=k, topk="absolute")
  return jnp.zeros(params.b_enc.shape, jnp.int32).at[codes.indices].add(jnp.sign(codes.values).astype(jnp.int32)) < 0


def warnings(quality: Quality) -> list[str]:
  """Returns one line for each metric that exceeds its bound. Host-side."""
  lines = []
  if quality.fvu > MAX_FVU:
    lines.append(
      f"SAE: FVU {float(quality.fvu):.3f} exceeds {MAX_FVU}: its latents explain the features poorly;"
      " factors.epochs or factors.k may be too small"
    )
  if quality.dead_fraction > MAX_DEAD_FRACTION:
    lines.append(
      f"SAE: {float(quality.dead_fraction):.0%} of latents are dead, more than {MAX_DEAD_FRACTION:.0%};"
      " factors.expansion_factor may be too large"
    )
  return lines
