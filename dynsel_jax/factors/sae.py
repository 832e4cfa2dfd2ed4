"""The sparse autoencoder (SAE), whose latents are interpreted as factors of the data. Pure and jit-able.

"Rethinking Representativeness and Diversity in Dynamic Data Selection", arXiv 2603.04981, App. A, Eqs 19-25.
`N` is the number of samples or the batch size, `D` the input width `d_in`, `L` the number of latents and `k` the code
length.

A latent is active in a sample if its value is above 0 (Eq. 2). The paper's rule, `topk="absolute"`, is symmetric:
flipping the sign of a latent's row and bias leaves every reconstruction unchanged. A fit therefore puts each factor on
the positive or the negative side of its latent with equal probability, and Eq. 2 misses about half of the factors.
`fit.fit_sae` settles the signs with `flip`, or counts both sides of a latent as active.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from dynsel_jax.factors import sparse_ops

__all__ = [
  "ACTIVE",
  "TOPK",
  "Codes",
  "Losses",
  "Normalizer",
  "SAEParams",
  "decode",
  "encode",
  "fit_normalizer",
  "flip",
  "init",
  "losses",
  "normalize",
]

TOPK = ("absolute", "value")
ACTIVE = ("positive", "nonzero")
_TINY = 1e-12  # lower bound of a divisor, so that a row of zeros stays zero


class SAEParams(NamedTuple):
  """Parameters of the two layers. The weights are tied: the decoder is the transpose of the encoder."""

  W_enc: Array  # [L, D] float32
  b_enc: Array  # [L] float32
  b_dec: Array  # [D] float32


class Normalizer(NamedTuple):
  """Normalisation of the encoder's inputs: (feature / norm - mean) / scale."""

  mean: Array  # [D] float32, of the unit-norm training features
  scale: Array  # [] float32, root mean squared norm of the centred features; it makes the mean squared input norm 1


class Codes(NamedTuple):
  """Sparse latents. Latents that are not listed are 0; the order within a row is arbitrary."""

  indices: Array  # [N, k] int32, without repeats in a row
  values: Array  # [N, k] float32


class Losses(NamedTuple):
  """Loss terms of one SAE step."""

  total: Array  # [] float32, Eq. 25
  reconstruction: Array  # [] float32, squared error, averaged over the batch
  revival: Array  # [] float32, terms of Eq. 24, averaged over the dead latents; 0 if there are none
  dead_fraction: Array  # [] float32, fraction of the latents that are dead


def init(key: Array, num_latents: int, d_in: int) -> SAEParams:
  """Initialises the rows with random directions of unit norm and the biases with 0."""
  directions = jax.random.normal(key, (num_latents, d_in), jnp.float32)
  norms = jnp.linalg.norm(directions, axis=1, keepdims=True)
  return SAEParams(directions / norms, jnp.zeros(num_latents, jnp.float32), jnp.zeros(d_in, jnp.float32))


def flip(params: SAEParams, flipped: Array) -> SAEParams:
  """Flips the sign of the latents in `flipped` `[L]` bool; with `topk="absolute"` reconstructions do not change."""
  sign = jnp.where(flipped, -1, 1).astype(params.b_enc.dtype)
  return SAEParams(params.W_enc * sign[:, None], params.b_enc * sign, params.b_dec)


def _unit(features: Array) -> Array:
  return features / jnp.maximum(jnp.linalg.norm(features, axis=1, keepdims=True), _TINY)


def fit_normalizer(features: Array) -> Normalizer:
  """Computes the mean and the scale from the training features `[N, D]` float32."""
  unit = _unit(features)
  mean = jnp.mean(unit, axis=0)
  variance = jnp.mean(jnp.sum(jnp.square(unit - mean[None, :]), axis=1))
  return Normalizer(mean, jnp.sqrt(jnp.maximum(variance, _TINY)))


def normalize(normalizer: Normalizer, features: Array) -> Array:
  """Normalises features `[N, D]` to inputs of the encoder `[N, D]`."""
  return (_unit(features) - normalizer.mean[None, :]) / normalizer.scale


def _encode(params: SAEParams, x: Array, k: int, topk: str) -> tuple[Codes, Array]:
  """Returns the codes, and the pre-activations `[N, L]` without a gradient.

  Gradients flow through the k kept values alone, via `sparse_ops.active_dot`: that avoids a dense backward pass.
  """
  pre_acts = lax.stop_gradient(x @ params.W_enc.T + params.b_enc[None, :])
  indices = sparse_ops.top_entries(jnp.abs(pre_acts) if topk == "absolute" else pre_acts, k)
  bias = params.b_enc[indices]
  known = jnp.take_along_axis(pre_acts, indices, axis=1) - lax.stop_gradient(bias)
  values = sparse_ops.active_dot(params.W_enc, x, indices, known) + bias
  return Codes(indices, values if topk == "absolute" else jax.nn.relu(values)), pre_acts


def encode(params: SAEParams, x: Array, *, k: int, topk: str = "absolute") -> Codes:
  """Encodes a batch, Eqs 19-21.

  Args:
    params: of the autoencoder.
    x: `[N, D]` float32, normalised.
    k: latents kept per sample.
    topk: "absolute" keeps the k largest by absolute value with their signs, as in the paper; "value" keeps the k
      largest and sets negative ones to 0.
  """
  return _encode(params, x, k, topk)[0]


def decode(params: SAEParams, codes: Codes) -> Array:
  """Reconstructs the inputs `[N, D]` from their codes, Eq. 20."""
  return sparse_ops.sum_rows(params.W_enc, codes.values, codes.indices) + params.b_dec[None, :]


def losses(
  params: SAEParams,
  x: Array,
  since_fired: Array,
  *,
  k: int,
  topk: str,
  dead_after: int,
  revival_weight: float,
  axis_name: str | None = None,
) -> tuple[Losses, Array]:
  """Computes the loss of one step, Eqs 22-25, with an average over the dead latents in place of the paper's sum.

  Average the gradients over `axis_name` to get those of the global batch.

  Args:
    params: of the autoencoder.
    x: `[N, D]` float32, this device's slice of the batch.
    since_fired: `[L]` int32, samples seen since each latent last fired, before this batch.
    k: code length.
    topk: see `encode`.
    dead_after: number of samples without firing, including this batch, after which a latent is dead.
    revival_weight: lambda_revive.
    axis_name: the mapped axis over which the batch is spread, if any.

  Returns:
    The losses of the global batch, and `since_fired` after it.
  """
  codes, pre_acts = _encode(params, x, k, topk)
  reconstruction = jnp.mean(jnp.sum(jnp.square(x - decode(params, codes)), axis=1))
  fired = jnp.zeros(since_fired.shape, bool).at[codes.indices].max(codes.values > 0)
  batch_size = x.shape[0]
  best_row = x[sparse_ops.argmax_over_batch(pre_acts)]  # [L, D], Eq. 22
  if axis_name is not None:
    fired = lax.pmax(fired.astype(jnp.int32), axis_name) > 0
    batch_size *= lax.axis_size(axis_name)
    best_row = _best_over_devices(best_row, jnp.max(pre_acts, axis=0), axis_name)
  since_fired = jnp.where(fired, 0, since_fired + batch_size)
  dead = since_fired >= dead_after
  value = jnp.sum(params.W_enc * best_row, axis=1) + params.b_enc  # Eq. 23
  error = best_row - value[:, None] * params.W_enc - params.b_dec[None, :]
  num_dead = jnp.sum(dead)
  terms = jnp.where(dead, jnp.sum(jnp.square(error), axis=1), 0)
  revival = jnp.sum(terms) / jnp.maximum(num_dead, 1).astype(terms.dtype)
  total = reconstruction + revival_weight * revival
  return Losses(total, reconstruction, revival, jnp.mean(dead.astype(terms.dtype))), since_fired


def _best_over_devices(best_row: Array, best: Array, axis_name: str) -> Array:
  """Returns, for each latent, the row `[L, D]` of the first device with the largest `best` `[L]`."""
  winner = jnp.argmax(lax.all_gather(best, axis_name), axis=0)
  return lax.psum(jnp.where((winner == lax.axis_index(axis_name))[:, None], best_row, 0), axis_name)
