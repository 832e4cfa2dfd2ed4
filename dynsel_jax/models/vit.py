"""Vision transformers (ViT; Dosovitskiy et al., arXiv 2010.11929): a tower, also used for CLIP, and models with a head.

Pure, except that `vit_b16` opens the file of its weights; `vit_weights` reads them. `B` is the batch size, `L` the
number of tokens (one per patch and a class token) and `D` the width.
"""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dynsel_jax.models.weights import Weights
from dynsel_jax.options import UserError, check_positive

__all__ = ["Sizes", "Tower", "ViT", "vit_b16", "vit_small"]

_NORMAL = nn.initializers.truncated_normal(0.02)


class Sizes(NamedTuple):
  """Architecture of a tower; the defaults are those of ViT-B/16."""

  patch: int = 16  # side of a patch, in pixels
  width: int = 768
  layers: int = 12
  heads: int = 12
  hidden: int = 3072  # width of the feed-forward block
  epsilon: float = 1e-6  # added to the variance in layer normalisation
  clip: bool = False  # CLIP's variant: no bias in the patch embedding, a normalisation before the layers, quick GELU


def _normalized(sizes: Sizes, name: str, x: Array, dtype: Any) -> Array:
  """Applies layer normalisation to each token, computed in float32 and cast to `dtype`."""
  return nn.LayerNorm(epsilon=sizes.epsilon, name=name)(x.astype(jnp.float32)).astype(dtype)


class Layer(nn.Module):
  """A pre-norm transformer layer: self-attention and a feed-forward block on normalised tokens, with residuals."""

  sizes: Sizes
  dtype: Any

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps x `[B, L, D]` to the same shape."""

    def dense(width: int, name: str, x: Array) -> Array:
      return nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name=name)(x)

    batch, length, width = x.shape
    heads = (batch, length, self.sizes.heads, width // self.sizes.heads)
    joined = dense(3 * width, "query_key_value", _normalized(self.sizes, "attention_norm", x, self.dtype))
    query, key, value = (part.reshape(heads) for part in jnp.split(joined, 3, axis=-1))
    with jax.numpy_dtype_promotion("standard"):  # `dot_product_attention` promotes bfloat16 internally
      mixed = jax.nn.dot_product_attention(query, key, value).reshape(batch, length, width)
    x += dense(width, "attention_output", mixed)
    hidden = dense(self.sizes.hidden, "hidden", _normalized(self.sizes, "hidden_norm", x, self.dtype))
    # CLIP was trained with quick GELU; exact GELU would change its features.
    hidden = hidden * nn.sigmoid(1.702 * hidden) if self.sizes.clip else nn.gelu(hidden, approximate=False)
    return x + dense(width, "output", hidden)


class Tower(nn.Module):
  """Embeds the patches of an image, adds a class token and position embeddings, and applies the layers."""

  sizes: Sizes
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: Array) -> dict[str, Array]:
    """Maps images `[B, H, W, C]` to "embeddings", "layer_1", ..., each `[B, L, D]`, and "features".

    "features" `[B, D]` float32 is the normalised class token. The sides must be multiples of the patch size.
    """
    sizes = self.sizes
    batch, height, width, channels = images.shape
    if height % sizes.patch or width % sizes.patch:
      raise UserError(f"model.patch={sizes.patch} must divide the sides of the images, {height}x{width}")
    rows, columns = height // sizes.patch, width // sizes.patch
    cut = images.astype(self.dtype).reshape(batch, rows, sizes.patch, columns, sizes.patch, channels)
    cut = cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, sizes.patch**2 * channels)
    embed = nn.Dense(
      sizes.width,
      use_bias=not sizes.clip,
      dtype=self.dtype,
      kernel_init=nn.initializers.lecun_normal(),
      name="patch_embedding",
    )
    first = self.param("class_token", nn.initializers.zeros, (sizes.width,))
    positions = self.param("positions", _NORMAL, (1 + rows * columns, sizes.width))
    first = jnp.broadcast_to(first.astype(self.dtype), (batch, 1, sizes.width))
    x = jnp.concatenate([first, embed(cut)], axis=1) + positions.astype(self.dtype)[None]
    if sizes.clip:
      x = _normalized(sizes, "embedding_norm", x, self.dtype)
    stages = {"embeddings": x}
    for number in range(1, sizes.layers + 1):
      stages[f"layer_{number}"] = x = Layer(sizes, self.dtype, name=f"layer_{number}")(x)
    stages["features"] = _normalized(sizes, "final_norm", x[:, 0], jnp.float32)
    return stages


class ViT(nn.Module):
  """A tower and a linear head initialised with zeros.

  Attributes:
    num_outputs: width of the last layer.
    sizes: architecture of the tower.
    dtype: of the computation.
    side: side in pixels to which images are resized first, bicubically; 0 keeps their size.
    weights: folder or file of a pretrained model to start from; "" starts from random weights.
  """

  num_outputs: int
  sizes: Sizes
  dtype: Any = jnp.float32
  side: int = 0
  weights: str = ""

  @nn.compact
  def __call__(self, inputs: Array, valid: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
    """Maps inputs `[B, H, W, C]` to outputs `[B, num_outputs]` and the intermediates of `Tower`."""
    del valid, train  # no operation mixes samples, and there is no dropout
    if self.side and inputs.shape[1:3] != (self.side, self.side):
      inputs = jax.image.resize(inputs, (inputs.shape[0], self.side, self.side, inputs.shape[3]), "cubic")
    intermediates = Tower(self.sizes, self.dtype, name="tower")(inputs)
    head = nn.Dense(self.num_outputs, kernel_init=nn.initializers.zeros, name="head")
    return head(intermediates["features"]), intermediates


def vit_small(num_outputs: int, dtype: Any, axis_name: str | None, *, patch: int = 4) -> ViT:
  """Returns ViT-Small (width 384, 12 layers, 6 heads) for small images: 21,342,346 parameters at 32x32 and 10 outputs.

  Args:
    num_outputs: width of the last layer.
    dtype: of the computation.
    axis_name: the mapped axis over which a training step spreads its batch, if any.
    patch: side of a patch in pixels; 4 gives 64 patches for 32x32 images, and so does 8 for 64x64.
  """
  del axis_name
  check_positive("model.patch", patch)
  return ViT(num_outputs, Sizes(patch, 384, 12, 6, 1536), dtype)


def vit_b16(num_outputs: int, dtype: Any, axis_name: str | None, *, weights: str = "") -> ViT:
  """Returns ViT-B/16 for images resized to 224x224: 85,806,346 parameters at 10 outputs.

  Pretrained weights expect pixels in [-1, 1]; normalising by the statistics of the data set, as runs do, is close.

  Args:
    num_outputs: width of the last layer.
    dtype: of the computation.
    axis_name: the mapped axis over which a training step spreads its batch, if any.
    weights: folder of a model such as google/vit-base-patch16-224 in the layout of Hugging Face, or its
      `model.safetensors`; the head in it is not used. "" gives random weights.
  """
  del axis_name
  if weights:  # fails early, before data is loaded
    Weights("model.weights", pathlib.Path(weights))
  return ViT(num_outputs, Sizes(epsilon=1e-12), dtype, 224, weights)
