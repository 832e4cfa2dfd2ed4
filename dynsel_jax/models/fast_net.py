"""A network that reaches 94 % on CIFAR-10 within seconds on one GPU, after Jordan, arXiv 2404.00498.

What makes it fast, in the paper's words and order (Sec. 3): the first convolution whitens 2x2 patches of the training
images and is not trained; the other convolutions begin as the identity on their first channels; of batch normalisation
only the biases are trained, by an optimizer that multiplies their steps (`lookahead_sgd`); in evaluation the outputs
of an image are averaged over mirrored and shifted views of it. Each of three groups of convolutions halves the image.

Other than there, the whitening's bias is trained to the end, running statistics take no part in the lookahead, and
images are mirrored at random in place of every second epoch.

`B` is the number of images, `C` their channels, `w` the channels of the first convolution, 8 times C.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from dynsel_jax.models.normalization import BatchNorm
from dynsel_jax.models.resnet import TORCH_LINEAR
from dynsel_jax.options import UserError

__all__ = ["FastNet", "fast_net"]

_PATCH = 2  # side of a whitened patch
_SMALLEST = 5e-4  # added to the variances by which patches are whitened
_VIEWS = (1, 2, 6)


def _identity_first(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
  """Draws a kernel `[H, W, in, out]` whose first `in` outputs are the identity (arXiv 1706.00388)."""
  height, width, channels, features = shape
  kernel = TORCH_LINEAR(key, shape, dtype)
  same = min(channels, features)
  copies = jnp.zeros((height, width, channels, same), dtype).at[height // 2, width // 2].set(jnp.eye(channels, same))
  return jnp.concatenate([copies, kernel[..., same:]], axis=-1)


class _Group(nn.Module):
  """Convolutions of one width; the first is followed by pooling, and a third by a shortcut around it and the second."""

  features: int
  convolutions: int
  momentum: float
  dtype: Any
  axis_name: str | None

  @nn.compact
  def __call__(self, x: Array, valid: Array, *, train: bool) -> Array:
    """Maps `[B, H, W, C]` to `[B, H // 2, W // 2, features]`."""
    shortcut = x
    for number in range(1, self.convolutions + 1):
      x = nn.Conv(
        self.features, (3, 3), use_bias=False, dtype=self.dtype, kernel_init=_identity_first, name=f"conv_{number}"
      )(x)
      if number == 1:
        x = nn.max_pool(x, (2, 2), (2, 2))
      norm = BatchNorm(self.momentum, 1e-12, self.dtype, self.axis_name, use_scale=False, name=f"norm_{number}")
      x = norm(x, valid, train=train)
      if number == 3:
        x = x + shortcut
      x = nn.gelu(x, approximate=False)
      if number == 1:
        shortcut = x
    return x


class FastNet(nn.Module):
  """The network; `with_statistics` must have seen training images before the first step."""

  num_outputs: int
  widths: tuple[int, ...]
  convolutions: int
  momentum: float
  views: int
  dtype: Any
  axis_name: str | None

  @nn.compact
  def __call__(self, inputs: Array, valid: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
    """Maps images `[B, H, W, C]` to outputs `[B, num_outputs]`, and "group_1", ..., "features" of the image itself."""
    height, side = inputs.shape[1:3]
    smallest = 2 ** len(self.widths) + 1  # the whitening takes a pixel, and each group halves the rest
    if min(height, side) < smallest:
      raise UserError(
        f"model.name=fast_net with {len(self.widths)} model.widths needs images of at least {smallest}x{smallest}, not"
        f" {height}x{side}; set fewer widths"
      )
    views = [(1.0, inputs)] if train else _views(inputs, self.views)
    x = jnp.concatenate([view for _, view in views]).astype(self.dtype)
    valid = jnp.tile(valid, len(views))
    rows, channels = inputs.shape[0], inputs.shape[-1]
    intermediates: dict[str, Array] = {}
    width = 2 * channels * _PATCH**2
    shape = (_PATCH, _PATCH, channels, width)
    whitening = self.variable("batch_stats", "whitening", jnp.zeros, shape, jnp.float32)
    bias = self.param("whitening_bias", nn.initializers.zeros, (width,), jnp.float32)
    x = jax.lax.conv_general_dilated(
      x, whitening.value.astype(self.dtype), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = nn.gelu(x + bias.astype(self.dtype).reshape(1, 1, 1, -1), approximate=False)
    for number, features_of_group in enumerate(self.widths, start=1):
      group = _Group(
        features_of_group, self.convolutions, self.momentum, self.dtype, self.axis_name, name=f"group_{number}"
      )
      x = group(x, valid, train=train)
      intermediates[f"group_{number}"] = x[:rows]
    features = jnp.max(x, axis=(1, 2)).astype(jnp.float32)
    head = nn.Dense(self.num_outputs, use_bias=False, kernel_init=TORCH_LINEAR, name="head")
    outputs = (head(features) / 9).reshape(len(views), -1, self.num_outputs)
    weights = jnp.array([weight for weight, _ in views], jnp.float32)
    return jnp.tensordot(weights, outputs, 1), intermediates | {"features": features[:rows]}

  def with_statistics(self, batch_stats: Any, images: Any) -> Any:
    """Returns running statistics with the kernel that whitens 2x2 patches of `images` `[B, H, W, C]` float32.

    Its outputs are the patches' principal components of variance one, and the same with the other sign (Sec. 3.2).
    Host-side, in float64, so that the result is the same on every machine up to rounding.
    """
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(images, np.float64), (_PATCH, _PATCH), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, _PATCH**2 * images.shape[-1])
    variances, directions = np.linalg.eigh(patches.T @ patches / len(patches))
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), range(len(variances))])
    kernel = (directions / np.sqrt(variances + _SMALLEST))[:, ::-1]  # the largest variance first
    both = np.concatenate([kernel, -kernel], axis=1).reshape(batch_stats["whitening"].shape)
    return {**batch_stats, "whitening": jnp.asarray(both, jnp.float32)}


def _views(inputs: Array, views: int) -> list[tuple[float, Array]]:
  """Returns the views of images whose outputs are averaged, each with its weight; the image itself comes first."""
  mirrored = inputs[:, :, ::-1]
  if views == 1:
    return [(1.0, inputs)]
  if views == 2:
    return [(0.5, inputs), (0.5, mirrored)]
  framed = jnp.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
  shifted = [framed[:, :-2, :-2], framed[:, 2:, 2:]]
  return [(0.25, inputs), (0.25, mirrored), *((0.125, s) for x in shifted for s in (x, x[:, :, ::-1]))]


def fast_net(
  num_outputs: int,
  dtype: Any,
  axis_name: str | None,
  *,
  widths: tuple[int, ...] = (64, 256, 256),
  convolutions: int = 2,
  momentum: float = 0.6,
  views: int = 6,
) -> FastNet:
  """Returns the network, for images of at least 2^g + 1 pixels a side with g groups: 9 with three.

  Args:
    num_outputs: width of the last layer.
    dtype: of the computation.
    axis_name: the mapped axis over which a training step spreads its batch, if any.
    widths: channels of each group.
    convolutions: of each group, 2 or 3.
    momentum: decay of the running statistics.
    views: averaged in evaluation: 1 the image alone, 2 also its mirror image, 6 also both shifted by one pixel.
  """
  for field, value, known in (("convolutions", convolutions, (2, 3)), ("views", views, _VIEWS)):
    if value not in known:
      raise UserError(f"model.{field}={value} must be one of {', '.join(map(str, known))}")
  if not widths or min(widths) < 1:
    raise UserError(f"model.widths={widths} must be one positive number for each group")
  return FastNet(num_outputs, tuple(widths), convolutions, momentum, views, dtype, axis_name)
