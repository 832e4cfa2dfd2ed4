"""Batch normalisation over the valid samples of the global batch (Ioffe & Szegedy, arXiv 1502.03167), and of layers.

Flax averages the means of the devices. That is wrong when devices hold different numbers of valid samples, as in the
last batch of most selections. Here sums and counts are reduced over the devices before the division.
`B` is the number of samples on a device, `C` the number of channels.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

__all__ = ["BatchNorm", "layer_normalized", "normalized", "valid_moments"]

WRITTEN_OUT = (jnp.bfloat16,)  # types whose gradient is written out; in float32 runs keep the bits that they had


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


def _normalized(epsilon: float, dtype: Any, x: Array, mean: Array, var: Array, scale: Array, bias: Array) -> Array:
  lift = (1,) * (x.ndim - 1) + (x.shape[-1],)
  factor = jax.lax.rsqrt(var + epsilon) * scale
  return ((x.astype(jnp.float32) - mean.reshape(lift)) * factor.reshape(lift) + bias.reshape(lift)).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def normalized(
  epsilon: float,
  dtype: Any,
  axis_name: str | None,
  x: Array,
  valid: Array,
  mean: Array,
  var: Array,
  scale: Array,
  bias: Array,
) -> Array:
  """Normalises x by `mean` and `var`, the moments of its valid samples on all devices.

  The gradient is that of the whole normalisation, with the moments as functions of x, although they are arguments. It
  is written out (Ioffe & Szegedy, Sec. 3), since the derived one reads x and the gradient of the result three times as
  often and keeps float32 copies of both: on a GPU a normalisation takes as long as what it reads and writes.
  """
  del axis_name, valid
  return _normalized(epsilon, dtype, x, mean, var, scale, bias)


def _normalized_forward(
  epsilon: float, dtype: Any, axis_name: str | None, x: Array, valid: Array, *rest: Array
) -> tuple[Array, tuple[Array, ...]]:
  mean, var, scale, _ = rest
  return normalized(epsilon, dtype, axis_name, x, valid, *rest), (x, valid, mean, var, scale)


def _normalized_backward(
  epsilon: float, dtype: Any, axis_name: str | None, kept: tuple[Array, ...], gradient: Array
) -> tuple[Array | None, ...]:
  del dtype
  x, valid, mean, var, scale = kept
  lift = (1,) * (x.ndim - 1) + (x.shape[-1],)
  space = tuple(range(x.ndim - 1))
  deviation = jax.lax.rsqrt(var + epsilon)
  normal = (x.astype(jnp.float32) - mean.reshape(lift)) * deviation.reshape(lift)
  given = gradient.astype(jnp.float32)
  sums = jnp.stack([jnp.sum(given, space), jnp.sum(given * normal, space)])
  count = jnp.sum(valid.astype(jnp.float32))
  of_bias, of_scale = sums
  if axis_name is not None:
    sums, count = jax.lax.psum((sums, count), axis_name)
  first, second = sums / (jnp.maximum(count, 1.0) * x[0, ..., 0].size)
  through_moments = first.reshape(lift) + normal * second.reshape(lift)
  valid = valid.reshape(-1, *(1,) * (x.ndim - 1))
  of_x = (scale * deviation).reshape(lift) * (given - jnp.where(valid, through_moments, 0.0))
  return of_x.astype(x.dtype), None, None, None, of_scale, of_bias


normalized.defvjp(_normalized_forward, _normalized_backward)


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
    ones = jnp.ones((channels,), jnp.float32)
    scale = self.param("scale", self.scale_init, (channels,), jnp.float32) if self.use_scale else ones
    bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)

    mean, var = running_mean.value, running_var.value
    # Initialisation runs outside of the mapped axis.
    axis_name = None if self.is_initializing() else self.axis_name
    if train:
      batch_mean, batch_var, count = valid_moments(x, valid, axis_name)
      mean = jnp.where(count > 0, batch_mean, mean)
      var = jnp.where(count > 0, batch_var, var)
      if self.is_mutable_collection("batch_stats") and not self.is_initializing():
        running_mean.value += (1 - self.momentum) * (mean - running_mean.value)
        running_var.value += (1 - self.momentum) * (var - running_var.value)

    if train and self.dtype in WRITTEN_OUT:
      moments = (jax.lax.stop_gradient(mean), jax.lax.stop_gradient(var))
      return normalized(self.epsilon, self.dtype, axis_name, x, valid, *moments, scale, bias)
    return _normalized(self.epsilon, self.dtype, x, mean, var, scale, bias)


def layer_normalized(epsilon: float, name: str, x: Array, dtype: Any) -> Array:
  """Applies layer normalisation (arXiv 1607.06450) to each token, computed in float32 and cast to `dtype`.

  Scale and bias become parameters `name` of the module that calls it.
  """
  return nn.LayerNorm(epsilon=epsilon, name=name)(x.astype(jnp.float32)).astype(dtype)
