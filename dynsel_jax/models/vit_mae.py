"""The masked autoencoder of He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377.

The encoder is a ViT's tower on the visible patches alone; a narrow decoder sees its outputs and, in place of each other
patch, one learnt vector, and predicts the pixels of every patch. Positions are fixed sines and cosines in both. Pure,
except that the factory opens the file of the weights; `vit_weights` reads it.

`B` is the batch size, `P` the number of patches of an image, `K` that of the visible ones.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dynsel_jax.models import vit
from dynsel_jax.models.normalization import layer_normalized
from dynsel_jax.models.vit import Sizes
from dynsel_jax.models.weights import check_early
from dynsel_jax.options import UserError, check_choice

__all__ = ["DECODERS", "MaskedAutoencoder", "patch_of", "vit_mae"]

DECODERS = {  # by the name of the encoder; the paper's decoder, for the last two, is 512 wide and has 8 layers
  "vit_micro": Sizes(width=64, layers=2, heads=4, hidden=256),
  "vit_small": Sizes(width=192, layers=4, heads=6, hidden=768),
  "vit_b16": Sizes(width=512, layers=8, heads=16, hidden=2048, epsilon=1e-12),
  "vit_l16": Sizes(width=512, layers=8, heads=16, hidden=2048, epsilon=1e-12),
}


def patch_of(num_outputs: int, channels: int) -> int:
  """Returns the side of the patches whose pixels are `num_outputs` numbers.

  Raises:
    UserError: no square patch has as many.
  """
  side = math.isqrt(num_outputs // channels)
  if side**2 * channels != num_outputs or not side:
    raise UserError(
      f"model.name=vit_mae predicts the pixels of square patches, and no such patch of {channels} channel(s) has"
      f" num_outputs={num_outputs} numbers: train it with task=masked_image"
    )
  return side


class MaskedAutoencoder(nn.Module):
  """Encoder and decoder.

  Attributes:
    num_outputs: pixels of a patch times channels, which tells the side of the patches.
    encoder: architecture of the encoder; its patch is the one that `num_outputs` tells.
    decoder: architecture of the decoder.
    dtype: of the computation.
    weights: folder or file of a pretrained model, or workdir of a run, to start from; "" starts from random weights.
  """

  num_outputs: int
  encoder: Sizes
  decoder: Sizes
  dtype: Any = jnp.float32
  weights: str = ""

  @nn.compact
  def __call__(self, inputs: Any, valid: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
    """Maps inputs to the predicted pixels of all patches, `[B, P, num_outputs]`, and the intermediates of `Tower`.

    The inputs are a dict of "images" `[B, H, W, C]` float32 and "visible" `[B, K]` int32, the places of the patches
    that the encoder sees; or the images alone, of which it sees every patch.
    """
    del valid, train  # no operation mixes samples, and there is no dropout
    images, visible = (inputs["images"], inputs["visible"]) if isinstance(inputs, dict) else (inputs, None)
    patch = patch_of(self.num_outputs, images.shape[-1])
    encoder = self.encoder._replace(patch=patch, fixed_positions=True)
    intermediates = vit.Tower(encoder, self.dtype, name="tower")(images, visible)
    rows, columns = images.shape[1] // patch, images.shape[2] // patch
    return self._decode(intermediates["normalized"], visible, rows, columns), intermediates

  def _decode(self, encoded: Array, visible: Array | None, rows: int, columns: int) -> Array:
    sizes, batch = self.decoder, encoded.shape[0]

    def dense(width: int, name: str, x: Array, dtype: Any) -> Array:
      return nn.Dense(width, dtype=dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)(x)

    seen = dense(sizes.width, "decoder_embedding", encoded, self.dtype)
    mask_token = self.param("mask_token", nn.initializers.normal(0.02), (sizes.width,)).astype(self.dtype)
    if visible is None:
      x = seen
    else:
      everywhere = jnp.broadcast_to(mask_token, (batch, rows * columns, sizes.width))
      placed = everywhere.at[jnp.arange(batch)[:, None], visible].set(seen[:, 1:])
      x = jnp.concatenate([seen[:, :1], placed], axis=1)
    x += vit.fixed_positions(self, "fixed_decoder_positions", rows, columns, sizes.width).astype(self.dtype)[None]
    for number in range(1, sizes.layers + 1):
      x = vit.Layer(sizes, self.dtype, name=f"decoder_layer_{number}")(x)
    x = layer_normalized(sizes.epsilon, "decoder_norm", x, jnp.float32)
    return dense(self.num_outputs, "head", x, jnp.float32)[:, 1:]


def vit_mae(
  num_outputs: int, dtype: Any, axis_name: str | None, *, encoder: str = "vit_micro", weights: str = ""
) -> MaskedAutoencoder:
  """Returns a masked autoencoder, for the task masked_image.

  Args:
    num_outputs: pixels of a patch times channels.
    dtype: of the computation.
    axis_name: the mapped axis over which a training step spreads its batch, if any.
    encoder: the model whose tower it pre-trains, "vit_micro", "vit_small", "vit_b16" or "vit_l16", with patches of the
      task's size; a run of that model starts from it by `model.weights`.
    weights: folder of a masked autoencoder such as facebook/vit-mae-base in the layout of Hugging Face, or its
      `model.safetensors`; or the workdir of a run of this model. "" starts from random weights.
  """
  del axis_name
  check_choice("model.encoder", encoder, DECODERS)
  check_early("model.weights", weights)
  return MaskedAutoencoder(num_outputs, vit.ENCODERS[encoder], DECODERS[encoder], dtype, weights)
