"""Examples of factors: the samples in which a latent is strongest, and its counts by class. Pure and jit-able.

Latents are processed one after another, so that memory grows with the codes; a dense array of samples by latents is
never built. `N` is the number of samples, `S` the number of requested latents, `C` the number of classes.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from dynsel_jax.factors.sae import Codes

__all__ = ["class_counts", "top_samples"]


def _activation(codes: Codes, latent: Array) -> Array:
  """Returns the value of one latent in each sample, `[N]`; 0 where the latent is not active."""
  return jnp.sum(jnp.where(codes.indices == latent, jnp.maximum(codes.values, 0), 0), axis=1)


@functools.partial(jax.jit, static_argnames="count")
def top_samples(codes: Codes, latents: Array, *, count: int) -> tuple[Array, Array]:
  """Finds the samples in which each latent is strongest, in descending order of its value.

  Args:
    codes: of N samples.
    latents: `[S]` int32, the requested latents.
    count: number of samples per latent, at most N.

  Returns:
    Sample indices `[S, count]` int32 and values `[S, count]` float32; -1 and 0 if the latent is active in fewer
    samples.
  """

  def strongest(latent: Array) -> tuple[Array, Array]:
    value, sample = lax.top_k(_activation(codes, latent), count)
    return jnp.where(value > 0, sample, -1), value

  return lax.map(strongest, latents)


@functools.partial(jax.jit, static_argnames="num_classes")
def class_counts(codes: Codes, latents: Array, labels: Array, *, num_classes: int) -> Array:
  """Counts the samples of each class in which each latent is active, `[S, C]` int32.

  Args:
    codes: of N samples.
    latents: `[S]` int32, the requested latents.
    labels: `[N]` int32, in [0, num_classes).
    num_classes: C.
  """

  def count(latent: Array) -> Array:
    active = _activation(codes, latent) > 0
    return jnp.zeros(num_classes, jnp.int32).at[labels].add(active.astype(jnp.int32))

  return lax.map(count, latents)
