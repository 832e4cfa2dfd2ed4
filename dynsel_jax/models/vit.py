"""Vision transformers (ViT; Dosovitskiy et al., arXiv 2010.11929): a tower, also used for CLIP, and models with a head.

Pure, except that the factories open the file of their weights; `vit_weights` reads them. `B` is the batch size, `L` the
number of tokens (one per patch and a class token) and `D` the width.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from dynsel_jax.models.normalization import layer_normalized
from dynsel_jax.models.weights import check_early
from dynsel_jax.options import UserError, check_positive

__all__ = [
  "ENCODERS",
  "FIXED",
  "Layer",
  "Sizes",
  "Tower",
  "ViT",
  "fixed_positions",
  "patches",
  "sine_cosine",
  "vit_b16",
  "vit_l16",
  "vit_micro",
  "vit_small",
]

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
  fixed_positions: bool = False  # whether the position embeddings are constants, `sine_cosine` unless read from a file


FIXED = "fixed_positions"  # name of a tower's constant position embeddings among its parameters

ENCODERS = {  # towers by the name of their model; the patch of the first two suits images of 32x32
  "vit_micro": Sizes(4, 128, 4, 4, 512),
  "vit_small": Sizes(4, 384, 12, 6, 1536),
  "vit_b16": Sizes(epsilon=1e-12),
  "vit_l16": Sizes(16, 1024, 24, 16, 4096, epsilon=1e-12),
}


def patches(images: Array, patch: int) -> Array:
  """Cuts images `[B, H, W, C]` into square patches `[B, rows * columns, patch * patch * C]`, row by row.

  Raises:
    UserError: `patch` does not divide the sides of the images.
  """
  batch, height, width, channels = images.shape
  if height % patch or width % patch:
    raise UserError(f"model.patch={patch} must divide the sides of the images, {height}x{width}")
  rows, columns = height // patch, width // patch
  cut = images.reshape(batch, rows, patch, columns, patch, channels)
  return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, patch**2 * channels)


@functools.lru_cache
def sine_cosine(rows: int, columns: int, width: int) -> np.ndarray:
  """Returns position embeddings of a class token and of `rows * columns` patches, `[1 + rows * columns, width]`.

  The first half encodes a patch's column, the second its row, each as sines, then cosines, of the number times
  10000^(-4 i / width); the class token has zeros (as in the code of He et al., arXiv 2111.06377).

  Raises:
    UserError: the width is no multiple of 4.
  """
  if width % 4:
    raise UserError(f"a width of {width} has no sine-cosine position embeddings; it must be a multiple of 4")
  frequency = 10000.0 ** -(np.arange(width // 4) / (width // 4))
  row, column = np.divmod(np.arange(rows * columns), columns)
  halves = [wave(np.outer(place, frequency)) for place in (column, row) for wave in (np.sin, np.cos)]
  return np.concatenate([np.zeros((1, width)), np.concatenate(halves, axis=1)]).astype(np.float32)


def fixed_positions(module: nn.Module, name: str, rows: int, columns: int, width: int) -> Array:
  """Returns position embeddings `[1 + rows * columns, width]` that a module holds and no step changes.

  They begin as `sine_cosine`. The name must begin with "fixed_", so that weight decay passes them over.
  """
  held = module.param(name, lambda key: jnp.asarray(sine_cosine(rows, columns, width)))
  return jax.lax.stop_gradient(held)


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
    joined = dense(3 * width, "query_key_value", layer_normalized(self.sizes.epsilon, "attention_norm", x, self.dtype))
    query, key, value = (part.reshape(heads) for part in jnp.split(joined, 3, axis=-1))
    with jax.numpy_dtype_promotion("standard"):  # `dot_product_attention` promotes bfloat16 internally
      mixed = jax.nn.dot_product_attention(query, key, value).reshape(batch, length, width)
    x += dense(width, "attention_output", mixed)
    hidden = dense(self.sizes.hidden, "hidden", layer_normalized(self.sizes.epsilon, "hidden_norm", x, self.dtype))
    # CLIP was trained with quick GELU; exact GELU would change its features.
    hidden = hidden * nn.sigmoid(1.702 * hidden) if self.sizes.clip else nn.gelu(hidden, approximate=False)
    return x + dense(width, "output", hidden)


class Tower(nn.Module):
  """Embeds the patches of an image, adds a class token and position embeddings, and applies the layers."""

  sizes: Sizes
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: Array, visible: Array | None = None) -> dict[str, Array]:
    """Maps images `[B, H, W, C]` to "embeddings", "layer_1", ..., each `[B, L, D]`, and "features".

    "features" `[B, D]` float32 is the normalised class token, "normalized" `[B, L, D]` are all tokens. The sides must
    be multiples of the patch size. With `visible` `[B, K]` int32 only these patches are encoded, in this order, so that
    L = 1 + K.
    """
    sizes = self.sizes
    batch, height, width, _ = images.shape
    cut = patches(images.astype(self.dtype), sizes.patch)
    embed = nn.Dense(
      sizes.width,
      use_bias=not sizes.clip,
      dtype=self.dtype,
      kernel_init=nn.initializers.lecun_normal(),
      name="patch_embedding",
    )
    first = self.param("class_token", nn.initializers.zeros, (sizes.width,))
    if sizes.fixed_positions:
      positions = fixed_positions(self, FIXED, height // sizes.patch, width // sizes.patch, sizes.width)
    else:
      positions = self.param("positions", _NORMAL, (1 + cut.shape[1], sizes.width))
    first = jnp.broadcast_to(first.astype(self.dtype), (batch, 1, sizes.width))
    if visible is None:
      x = jnp.concatenate([first, embed(cut)], axis=1) + positions.astype(self.dtype)[None]
    else:
      positions = positions.astype(self.dtype)
      seen = embed(jnp.take_along_axis(cut, visible[..., None], axis=1)) + positions[1:][visible]
      x = jnp.concatenate([first + positions[None, :1], seen], axis=1)
    if sizes.clip:
      x = layer_normalized(sizes.epsilon, "embedding_norm", x, self.dtype)
    stages = {"embeddings": x}
    for number in range(1, sizes.layers + 1):
      stages[f"layer_{number}"] = x = Layer(sizes, self.dtype, name=f"layer_{number}")(x)
    norm = nn.LayerNorm(epsilon=sizes.epsilon, name="final_norm")
    last = norm(x.astype(jnp.float32)).astype(self.dtype)
    return {**stages, "normalized": last, "features": norm(x[:, 0].astype(jnp.float32))}


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


def _patched(name: str, num_outputs: int, dtype: Any, patch: int, weights: str) -> ViT:
  check_positive("model.patch", patch)
  check_early("model.weights", weights)
  return ViT(num_outputs, ENCODERS[name]._replace(patch=patch), dtype, weights=weights)


def vit_micro(num_outputs: int, dtype: Any, axis_name: str | None, *, patch: int = 4, weights: str = "") -> ViT:
  """Returns a ViT for small images on a CPU (width 128, 4 layers, 4 heads): 809,354 parameters at 32x32 and 10 outputs.

  Arguments as for `vit_small`.
  """
  del axis_name
  return _patched("vit_micro", num_outputs, dtype, patch, weights)


def vit_small(num_outputs: int, dtype: Any, axis_name: str | None, *, patch: int = 4, weights: str = "") -> ViT:
  """Returns ViT-Small (width 384, 12 layers, 6 heads) for small images: 21,342,346 parameters at 32x32 and 10 outputs.

  Args:
    num_outputs: width of the last layer.
    dtype: of the computation.
    axis_name: the mapped axis over which a training step spreads its batch, if any.
    patch: side of a patch in pixels; 4 gives 64 patches for 32x32 images, and so does 8 for 64x64.
    weights: the workdir of a run of this model, or of `vit_mae` with it as the encoder, whose tower is taken; "" starts
      from random weights.
  """
  del axis_name
  return _patched("vit_small", num_outputs, dtype, patch, weights)


def vit_b16(num_outputs: int, dtype: Any, axis_name: str | None, *, weights: str = "") -> ViT:
  """Returns ViT-B/16 for images resized to 224x224: 85,806,346 parameters at 10 outputs.

  Pretrained weights expect pixels in [-1, 1]; normalising by the statistics of the data set, as runs do, is close.

  Args:
    num_outputs: width of the last layer.
    dtype: of the computation.
    axis_name: the mapped axis over which a training step spreads its batch, if any.
    weights: folder of a model such as google/vit-base-patch16-224 or facebook/vit-mae-base in the layout of Hugging
      Face, or its `model.safetensors`; or the workdir of a run, as for `vit_small`. The head in it is not used. ""
      gives random weights.
  """
  del axis_name
  check_early("model.weights", weights)
  return ViT(num_outputs, ENCODERS["vit_b16"], dtype, 224, weights)


def vit_l16(num_outputs: int, dtype: Any, axis_name: str | None, *, weights: str = "") -> ViT:
  """Returns ViT-L/16 for images of 224x224: 303,311,882 parameters at 10 outputs; arguments as for `vit_b16`."""
  del axis_name
  check_early("model.weights", weights)
  return ViT(num_outputs, ENCODERS["vit_l16"], dtype, 224, weights)
