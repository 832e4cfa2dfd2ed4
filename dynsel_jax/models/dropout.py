"""Dropout (Srivastava et al., JMLR 15, 2014) with masks that do not depend on the number of devices."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

__all__ = ["Dropout"]


class Dropout(nn.Module):
  """Sets entries to 0 with probability `rate` and divides the others by `1 - rate`, in training and with a key.

  The key comes as `rngs={"dropout": key}` and is the same on every device; the mask of a sample is drawn from the key
  folded with the sample's row in the global batch. Without a key nothing is dropped, for example when samples are
  scored.

  Attributes:
    rate: in [0, 1).
    axis_name: the mapped axis over which a training step spreads its batch, if any.
  """

  rate: float
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """Maps x `[B, ...]` to the same shape."""
    if not train or not self.rate or not self.has_rng("dropout"):
      return x
    key = self.make_rng("dropout")
    rows = jnp.arange(x.shape[0])
    if self.axis_name is not None:
      rows += jax.lax.axis_index(self.axis_name) * x.shape[0]
    keep = jax.vmap(lambda row: jax.random.bernoulli(jax.random.fold_in(key, row), 1.0 - self.rate, x.shape[1:]))(rows)
    return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros_like(x))
