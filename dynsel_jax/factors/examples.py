"""What a factor looks like: the samples in which it is strongest, and their classes. Pure and jit-able.

Latents are looked up one after another, so memory is that of the codes: no array of samples by latents is ever made.
`N` is the number of samples, `S` of the latents asked for, `C` of classes.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from dynsel_jax.factors.sae import Codes

__all__ = ["class_counts", "top_samples"]


def _activation(codes: Codes, latent: Array) -> Array:
  """Returns the latent's value in each sample, `[N]`, 0 where it is not active."""
  return jnp.sum(jnp.where(codes.indices == latent, jnp.maximum(codes.values, 0), 0), axis=1)


@functools.partial(jax.jit, static_argnames="count")
def top_samples(codes: Codes, latents: Array, *, count: int) -> tuple[Array, Array]:
  """Returns the samples in which each latent is strongest, and its values there, both in falling order.

  Args:
    codes: of N samples.
    latents: `[S]` int32.
    count: how many samples, at most N.

  Returns:
    `[S, count]` int32 sample indices, -1 where the latent is active in fewer, and `[S, count]` float32, 0 there.
  """

  def strongest(latent: Array) -> tuple[Array, Array]:
    value, sample = lax.top_k(_activation(codes, latent), count)
    return jnp.where(value > 0, sample, -1), value

  return lax.map(strongest, latents)


@functools.partial(jax.jit, static_argnames="num_classes")
def class_counts(codes: Codes, latents: Array, labels: Array, *, num_classes: int) -> Array:
  """Returns in how many samples of each class each latent is active, `[S, C]` int32.

  Args:
    codes: of N samples.
    latents: `[S]` int32.
    labels: `[N]` int32, in [0, num_classes).
    num_classes: C.
  """

  def count(latent: Array) -> Array:
    active = _activation(codes, latent) > 0
    return jnp.zeros(num_classes, jnp.int32).at[labels].add(active.astype(jnp.int32))

  return lax.map(count, latents)
