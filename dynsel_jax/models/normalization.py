"""Batch normalisation over the valid samples of the global batch (Ioffe & Szegedy, arXiv 1502.03167).

Flax averages the means of the devices. That is wrong when devices hold different numbers of valid samples, as in the
last batch of most selections. Here sums and counts are reduced over the devices before the division.
`B` is the number of samples on a device, `C` the number of channels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

__all__ = ["BatchNorm", "valid_moments"]


def valid_moments(x: Array, valid: Array, axis_name: str | None) -> tuple[Array, Array, Array]:
  """Returns mean `[C]` and biased variance `[C]` over the valid samples on all devices, and their count `[]`."""
  x = x.astype(jnp.float32)
  space = tuple(range(1, x.ndim - 1))
  weight = valid.astype(jnp.float32)
  # Sum each sample over space first: the mask then applies to [B, C] numbers instead of to all activations.
  first = weight @ jnp.sum(x, axis=space)
  second = weight @ jnp.sum(jnp.square(x), axis=space)
  sums = jnp.concatenate([first, second, jnp.sum(weight)[None]])
  if axis_name is not None:
    sums = jax.lax.psum(sums, axis_name)
  first, second, count = jnp.split(sums[:-1], 2) + [sums[-1]]
  positions = x[0, ..., 0].size
  divisor = jnp.maximum(count, 1.0) * positions
  mean = first / divisor
  return mean, jnp.maximum(second / divisor - jnp.square(mean), 0.0), count


class BatchNorm(nn.Module):
  """Normalises each channel, then scales and shifts it; parameters and statistics are named as in Flax.

  Equals `flax.linen.BatchNorm` if every sample is valid. Running statistics are updated only in training with a mutable
  `batch_stats`; `var` holds the biased variance, as in Flax. A batch without a valid sample is normalised by the
  running statistics and leaves them unchanged.

  Attributes:
    momentum: decay of the running statistics; 0.9 here corresponds to 0.1 in PyTorch.
    epsilon: added to the variance.
    dtype: of the result; statistics and arithmetic are float32.
    axis_name: the mapped axis over which a training step spreads its batch, if any.
    scale_init: initializer of `scale`.
    use_scale: whether there is a `scale`; without one it is 1.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: Any = jnp.float32
  axis_name: str | None = None
  scale_init: nn.initializers.Initializer = nn.initializers.ones
  use_scale: bool = True

  @nn.compact
  def __call__(self, x: Array, valid: Array, *, train: bool) -> Array:
    """Maps x `[B, ..., C]` to the same shape; `valid` `[B]` bool excludes padding from the statistics."""
    channels = x.shape[-1]
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
    running_var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
    scale = self.param("scale", self.scale_init, (channels,), jnp.float32) if self.use_scale else jnp.float32(1)
    bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)

    mean, var = running_mean.value, running_var.value
    if train:
      # Initialisation runs outside of the mapped axis.
      axis_name = None if self.is_initializing() else self.axis_name
      batch_mean, batch_var, count = valid_moments(x, valid, axis_name)
      mean = jnp.where(count > 0, batch_mean, mean)
      var = jnp.where(count > 0, batch_var, var)
      if self.is_mutable_collection("batch_stats") and not self.is_initializing():
        running_mean.value += (1 - self.momentum) * (mean - running_mean.value)
        running_var.value += (1 - self.momentum) * (var - running_var.value)

    lift = (1,) * (x.ndim - 1) + (channels,)
    factor = jax.lax.rsqrt(var + self.epsilon) * scale
    normalised = (x.astype(jnp.float32) - mean.reshape(lift)) * factor.reshape(lift) + bias.reshape(lift)
    return normalised.astype(self.dtype)
