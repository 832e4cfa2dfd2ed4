"""VGG-16 with batch normalisation (Simonyan & Zisserman, arXiv 1409.1556), for images of 32x32 and 64x64.

The convolutions are those of torchvision's `vgg16_bn`, including the biases, which the normalisation makes redundant.
Torchvision's linear layers of width 4096 are sized for 224x224; here, as usual for small images, the last stage is
averaged over space and followed by a single linear head. `B` is the batch size.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dynsel_jax.models.resnet import TORCH_LINEAR, ConvNorm, kernel_init
from dynsel_jax.options import UserError

__all__ = ["VGG", "vgg16"]


class VGG(nn.Module):
  """Stages of 3x3 convolutions with ReLU, each followed by max-pooling that halves the image; then a linear head."""

  num_outputs: int
  stages: tuple[tuple[int, ...], ...]  # the widths of each stage's convolutions
  dtype: Any = jnp.float32
  axis_name: str | None = None
  initial: str = "he_fan_out"  # distribution of the convolutions, see `resnet.INITS`

  @nn.compact
  def __call__(self, inputs: Array, valid: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
    """Maps inputs `[B, H, W, C]` to outputs `[B, num_outputs]` and the intermediates "stage_1", ..., "features"."""
    height, width = inputs.shape[1:3]
    smallest = 2 ** len(self.stages)
    if min(height, width) < smallest:
      raise UserError(f"model.name=vgg16 needs images of at least {smallest}x{smallest}, not {height}x{width}")
    x, intermediates = inputs.astype(self.dtype), {}
    for stage, widths in enumerate(self.stages, start=1):
      for layer, channels in enumerate(widths, start=1):
        name = f"stage_{stage}_layer_{layer}"
        conv_norm = ConvNorm(channels, 3, 1, self.dtype, self.axis_name, use_bias=True, initial=self.initial, name=name)
        x = nn.relu(conv_norm(x, valid, train=train))
      intermediates[f"stage_{stage}"] = x = nn.max_pool(x, (2, 2), (2, 2))
    intermediates["features"] = features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
    return nn.Dense(self.num_outputs, kernel_init=TORCH_LINEAR, name="head")(features), intermediates


def vgg16(num_outputs: int, dtype: Any, axis_name: str | None, *, init: str = "he_fan_out") -> VGG:
  """Returns VGG-16: 14,723,136 parameters in the convolutions, as in torchvision, and 5,130 in a head of 10 outputs."""
  stages = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
  kernel_init(init)  # an unknown name is refused before anything is made
  return VGG(num_outputs, stages, dtype, axis_name, init)
