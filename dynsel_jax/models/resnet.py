"""Residual networks (He et al., arXiv 1512.03385) for small images: the CIFAR variant, and one that a CPU can train.

The CIFAR variant is torchvision's with a 3x3 stem of stride 1 and without max-pooling; `imagenet_stem` restores
torchvision's stem. `B` is the batch size.

The convolutions start as in torchvision's ResNets ("he_fan_out") or with PyTorch's default ("torch"), as does code for
CIFAR that sets nothing, such as DeepCore's (800ef76, nets/ResNet.py) and InfoBatch's example (1bb917e, model.py). Under
batch normalisation a kernel's scale does not change the outputs, but it sets how far a step turns it.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dynsel_jax.models.normalization import BatchNorm
from dynsel_jax.options import check_at_least, check_choice, check_range

__all__ = [
  "INITS",
  "TORCH_LINEAR",
  "ConvNorm",
  "ResNet",
  "kernel_init",
  "resnet18",
  "resnet34",
  "resnet50",
  "resnet_patch",
]

TORCH_LINEAR = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default


def _kaiming_fan_out(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
  """Draws `[..., in, out]` normal with variance 2 / fan out (arXiv 1502.01852), as in torchvision's ResNets."""
  fan_out = shape[-1] * math.prod(shape[:-2])
  # Drawn flat: on CPU, XLA takes seconds to compile a four-dimensional draw of any size.
  return math.sqrt(2.0 / fan_out) * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


def _torch_default(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
  """Draws `[..., in, out]` uniformly between -1 / sqrt(fan in) and that, as PyTorch draws what nobody initialises."""
  bound = 1.0 / math.sqrt(math.prod(shape[:-1]))
  return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)


INITS = {"he_fan_out": _kaiming_fan_out, "torch": _torch_default}


def kernel_init(name: str) -> nn.initializers.Initializer:
  """Returns the distribution of a convolution's first weights, one of `INITS`.

  Raises:
    UserError: there is none of this name.
  """
  check_choice("model.init", name, INITS)
  return INITS[name]


class ConvNorm(nn.Module):
  """A convolution and a batch normalisation; an odd kernel gets symmetric padding, as in PyTorch."""

  features: int
  kernel: int
  stride: int
  dtype: Any
  axis_name: str | None
  use_bias: bool = False
  initial: str = "he_fan_out"

  @nn.compact
  def __call__(self, x: Array, valid: Array, *, train: bool) -> Array:
    """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, features]`."""
    if self.kernel == 1:  # as a matrix product: on CPU, XLA computes the kernel's gradient several times as fast
      layer = nn.Dense(
        self.features, use_bias=self.use_bias, dtype=self.dtype, kernel_init=kernel_init(self.initial), name="conv"
      )
      x = layer(x[:, :: self.stride, :: self.stride])
    else:
      x = nn.Conv(
        self.features,
        (self.kernel, self.kernel),
        self.stride,
        padding=self.kernel // 2 if self.kernel % 2 else "SAME",
        use_bias=self.use_bias,
        dtype=self.dtype,
        kernel_init=kernel_init(self.initial),
        name="conv",
      )(x)
    return BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name="norm")(x, valid, train=train)


class ResidualBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut; with `bottleneck` 1x1, 3x3 and 1x1 convolutions, the last 4 times as wide."""

  width: int
  stride: int
  bottleneck: bool
  dtype: Any
  axis_name: str | None
  initial: str = "he_fan_out"

  @nn.compact
  def __call__(self, x: Array, valid: Array, *, train: bool) -> Array:
    """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, width]`, or to 4 * width channels with `bottleneck`."""

    def conv_norm(features: int, kernel: int, stride: int, name: str, x: Array) -> Array:
      layer = ConvNorm(features, kernel, stride, self.dtype, self.axis_name, initial=self.initial, name=name)
      return layer(x, valid, train=train)

    if self.bottleneck:
      plan = [(self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)]
    else:
      plan = [(self.width, 3, self.stride), (self.width, 3, 1)]
    branch = x
    for position, (features, kernel, stride) in enumerate(plan, start=1):
      branch = conv_norm(features, kernel, stride, f"layer_{position}", branch)
      if position < len(plan):
        branch = nn.relu(branch)
    if x.shape != branch.shape:
      x = conv_norm(plan[-1][0], 1, self.stride, "shortcut", x)
    return nn.relu(x + branch)


class ResNet(nn.Module):
  """A stem, stages of residual blocks, average pooling and a linear head.

  Each stage after the first doubles the width and halves the sides of the image.
  """

  num_outputs: int
  stage_sizes: tuple[int, ...]
  width: int = 64
  bottleneck: bool = False
  stem_kernel: int = 3
  stem_stride: int = 1
  stem_pooling: bool = False  # 3x3 max-pooling of stride 2
  dtype: Any = jnp.float32
  axis_name: str | None = None
  initial: str = "he_fan_out"  # distribution of the convolutions, one of `INITS`

  @nn.compact
  def __call__(self, inputs: Array, valid: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
    """Maps inputs `[B, H, W, C]` to outputs `[B, num_outputs]` and "stem", "stage_1", ..., "features"."""
    stem = ConvNorm(
      self.width, self.stem_kernel, self.stem_stride, self.dtype, self.axis_name, initial=self.initial, name="stem"
    )
    x = nn.relu(stem(inputs.astype(self.dtype), valid, train=train))
    if self.stem_pooling:
      x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    intermediates = {"stem": x}
    for stage, size in enumerate(self.stage_sizes):
      for block in range(size):
        stride = 2 if stage > 0 and block == 0 else 1
        width = self.width * 2**stage
        name = f"stage_{stage + 1}_block_{block + 1}"
        layer = ResidualBlock(width, stride, self.bottleneck, self.dtype, self.axis_name, self.initial, name=name)
        x = layer(x, valid, train=train)
      intermediates[f"stage_{stage + 1}"] = x
    intermediates["features"] = features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    return nn.Dense(self.num_outputs, kernel_init=TORCH_LINEAR, name="head")(features), intermediates


def _common(dtype: Any, axis_name: str | None, init: str) -> dict[str, Any]:
  kernel_init(init)  # an unknown name is refused before anything is made
  return {"dtype": dtype, "axis_name": axis_name, "initial": init}


def _stem(imagenet: bool) -> dict[str, Any]:
  """Returns the fields of the stem; ImageNet's reduces the sides of an image to a quarter before the first block."""
  return {"stem_kernel": 7, "stem_stride": 2, "stem_pooling": True} if imagenet else {}


def resnet18(
  num_outputs: int, dtype: Any, axis_name: str | None, *, imagenet_stem: bool = False, init: str = "he_fan_out"
) -> ResNet:
  """Returns ResNet-18 for 32x32 images: 11,173,962 parameters at 10 outputs."""
  return ResNet(num_outputs, (2, 2, 2, 2), **_common(dtype, axis_name, init), **_stem(imagenet_stem))


def resnet34(
  num_outputs: int, dtype: Any, axis_name: str | None, *, imagenet_stem: bool = False, init: str = "he_fan_out"
) -> ResNet:
  """Returns ResNet-34 for 32x32 images: 21,282,122 parameters at 10 outputs."""
  return ResNet(num_outputs, (3, 4, 6, 3), **_common(dtype, axis_name, init), **_stem(imagenet_stem))


def resnet50(
  num_outputs: int, dtype: Any, axis_name: str | None, *, imagenet_stem: bool = False, init: str = "he_fan_out"
) -> ResNet:
  """Returns ResNet-50 for 32x32 images: 23,520,842 parameters at 10 outputs."""
  return ResNet(num_outputs, (3, 4, 6, 3), bottleneck=True, **_common(dtype, axis_name, init), **_stem(imagenet_stem))


def resnet_patch(
  num_outputs: int,
  dtype: Any,
  axis_name: str | None,
  *,
  width: int = 40,
  stem_stride: int = 4,
  stages: int = 2,
  init: str = "he_fan_out",
) -> ResNet:
  """Returns a small ResNet that a CPU can train: a 4x4 stem that shrinks the image, then one block per stage.

  Args:
    num_outputs: width of the last layer.
    dtype: of the computation.
    axis_name: the mapped axis over which a training step spreads its batch, if any.
    width: channels of the stem and of the first stage; each further stage doubles them.
    stem_stride: factor by which the stem shrinks the image, 1 to 4.
    stages: number of stages; each after the first halves the image.
    init: of the convolutions, one of `INITS`.
  """
  check_range("model.stem_stride", stem_stride, 1, 4)
  check_at_least("model.width", width, 1)
  check_at_least("model.stages", stages, 1)
  given = _common(dtype, axis_name, init)
  return ResNet(num_outputs, (1,) * stages, width, stem_kernel=4, stem_stride=stem_stride, **given)
