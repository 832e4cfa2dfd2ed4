"""A decoder of the Llama family (Touvron et al., arXiv 2302.13971), which Qwen2 and SmolLM belong to.

Rotary positions (arXiv 2104.09864), grouped-query attention (arXiv 2305.13245), RMSNorm (arXiv 1910.07467) and SwiGLU
(arXiv 2002.05202), with a tied or an untied head, and biases on queries, keys and values where Qwen2 has them. Pure,
except that the factory of a pretrained decoder reads its `config.json`.

Inputs are token ids `[B, L]` int32, padded on the right with -1, which is no id: some tokenizers pad with the token
that ends a text. The outputs are not logits `[B, L, V]`, which are too large to be kept, but what they are made of. `B`
is the batch size, `L` the number of tokens, `D` the width, `V` the vocabulary.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from dynsel_jax.options import UserError, check_positive

__all__ = ["PAD", "Decoder", "Lora", "Sizes", "decoder"]

PAD = -1  # in place of the token ids of padding
PROJECTIONS = ("query", "key", "value", "attention_output", "gate", "up", "down")

_NORMAL = nn.initializers.normal(0.02)


class Sizes(NamedTuple):
  """Architecture of a decoder; the defaults are those of SmolLM2-135M."""

  vocabulary: int = 49_152
  width: int = 576
  layers: int = 30
  heads: int = 9
  groups: int = 3  # heads of keys and values, a divisor of `heads`
  head_width: int = 64
  hidden: int = 1536  # width of the feed-forward block
  positions: int = 8192  # the largest L
  theta: float = 100_000.0  # base of the rotary wavelengths
  epsilon: float = 1e-5  # added to the mean square in RMSNorm
  tied: bool = True  # the head is the embedding
  biases: bool = False  # on queries, keys and values

  @property
  def pad_id(self) -> int:
    """The number in place of the token ids of padding."""
    return PAD

  @property
  def max_length(self) -> int:
    """The largest L."""
    return self.positions


class Lora(NamedTuple):
  """Low-rank adaptation (Hu et al., arXiv 2106.09685): trains `alpha / rank * B A` beside frozen weights."""

  rank: int
  alpha: float
  targets: tuple[str, ...]  # of `PROJECTIONS`


def _lifted(vector: Array, like: Array) -> Array:
  """Returns a vector of the last axis with as many axes as `like`."""
  return vector.reshape((1,) * (like.ndim - 1) + (-1,))


class _Frozen(nn.Module):
  """A module whose weights are parameters, or constants of the collection "frozen" in the type of the computation."""

  sizes: Sizes
  dtype: Any
  lora: Lora | None

  def weight(self, name: str, init: Any, shape: tuple[int, ...]) -> Array:
    if self.lora is None:
      return self.param(name, init, shape, jnp.float32)
    return self.variable("frozen", name, lambda: init(self.make_rng("params"), shape, self.dtype)).value


class Linear(_Frozen):
  """A linear layer, with a low-rank update if it is one of the targets."""

  features: int = 0
  bias: bool = False
  init: Any = _NORMAL

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps x `[..., D]` to `[..., features]`."""
    kernel = self.weight("kernel", self.init, (x.shape[-1], self.features)).astype(self.dtype)
    y = x @ kernel
    if self.bias:
      y += _lifted(self.weight("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype), y)
    if self.lora is not None and self.name in self.lora.targets:
      # As published: the first factor is random and the second zero, so that training begins at the frozen model.
      down = self.param("lora_a", nn.initializers.he_uniform(), (x.shape[-1], self.lora.rank), jnp.float32)
      up = self.param("lora_b", nn.initializers.zeros, (self.lora.rank, self.features), jnp.float32)
      scale = jnp.asarray(self.lora.alpha / self.lora.rank, self.dtype)
      y += (x @ down.astype(self.dtype)) @ up.astype(self.dtype) * scale
    return y


class RMSNorm(_Frozen):
  """Divides by the root mean square over the last axis, computed in float32, and scales."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps x `[..., D]` to the same shape."""
    scale = self.weight("scale", nn.initializers.ones, (x.shape[-1],)).astype(self.dtype)
    wide = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    normalised = (wide * jax.lax.rsqrt(mean_square + self.sizes.epsilon)).astype(self.dtype)
    return normalised * _lifted(scale, x)


def rotations(length: int, head_width: int, theta: float) -> tuple[Array, Array]:
  """Returns cosines and sines of the rotary angles, `[length, head_width / 2]` float32 each, constants of a program."""
  # In NumPy, since XLA's powers and cosines of large angles are less exact, and a position multiplies their errors.
  frequencies = (theta ** (-np.arange(0, head_width, 2) / head_width)).astype(np.float32)
  angles = (np.arange(length, dtype=np.float32)[:, None] * frequencies[None]).astype(np.float64)
  return jnp.asarray(np.cos(angles), jnp.float32), jnp.asarray(np.sin(angles), jnp.float32)


def rotated(x: Array, cosines: Array, sines: Array) -> Array:
  """Rotates the pairs (i, i + head_width / 2) of x `[B, L, heads, head_width]` by the angles of their positions."""
  cosines, sines = (angle[None, :, None].astype(x.dtype) for angle in (cosines, sines))
  first, second = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)


class Layer(_Frozen):
  """A pre-norm layer: causal self-attention, then a gated feed-forward block, each added to its input."""

  @nn.compact
  def __call__(self, x: Array, cosines: Array, sines: Array) -> Array:
    """Maps x `[B, L, D]` to the same shape; cosines and sines are those of `rotations`."""
    sizes, common = self.sizes, (self.sizes, self.dtype, self.lora)
    # Each layer adds two of these to the stream, whose variance is to stay that of one.
    output = nn.initializers.normal(0.02 / math.sqrt(2 * sizes.layers))

    def linear(name: str, x: Array, features: int, *, bias: bool = False, init: Any = _NORMAL) -> Array:
      return Linear(*common, features, bias, init, name=name)(x)

    def heads(name: str, x: Array, count: int) -> Array:
      mapped = linear(name, x, count * sizes.head_width, bias=sizes.biases)
      return mapped.reshape(*x.shape[:2], count, sizes.head_width)

    read = RMSNorm(*common, name="attention_norm")(x)
    query = rotated(heads("query", read, sizes.heads), cosines, sines)
    key = rotated(heads("key", read, sizes.groups), cosines, sines)
    value = heads("value", read, sizes.groups)
    # No mask for padding: it stands on the right, where a causal mask hides it from every token.
    mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True).reshape(*x.shape[:2], -1)
    x += linear("attention_output", mixed, sizes.width, init=output)
    read = RMSNorm(*common, name="hidden_norm")(x)
    gated = nn.silu(linear("gate", read, sizes.hidden)) * linear("up", read, sizes.hidden)
    return x + linear("down", gated, sizes.width, init=output)


class Decoder(_Frozen):
  """The embedding, the layers, a last normalisation, and the head.

  `weights` is the folder of a pretrained model to start from; "" starts from random weights.
  """

  weights: str = ""

  @nn.compact
  def __call__(self, inputs: Array, valid: Array, *, train: bool) -> tuple[dict[str, Array], dict[str, Array]]:
    """Maps token ids `[B, L]` int32 to what logits are made of, and the intermediates.

    Args:
      inputs: -1 on padding.
      valid: not read, since no operation mixes samples.
      train: not read, since there is no dropout.

    Returns:
      "states" `[B, L, D]`, undefined on padding, and "head" `[V, D]`, whose product is the logits; then "embeddings",
      "layer_1", ..., `[B, L, D]` each, the last after the last normalisation, and "features" `[B, D]` float32, the mean
      of the states over a sample's tokens.
    """
    del valid, train
    sizes, common, length = self.sizes, (self.sizes, self.dtype, self.lora), inputs.shape[1]
    if length > sizes.max_length:
      raise UserError(f"texts of {length} tokens exceed the model's {sizes.max_length}; reduce dataset.max_length")
    embedding = self.weight("embedding", _NORMAL, (sizes.vocabulary, sizes.width)).astype(self.dtype)
    head = embedding if sizes.tied else self.weight("head", _NORMAL, (sizes.vocabulary, sizes.width))
    x = embedding[jnp.maximum(inputs, 0)]
    cosines, sines = rotations(length, sizes.head_width, sizes.theta)
    stages = {"embeddings": x}
    for number in range(1, sizes.layers + 1):
      x = Layer(*common, name=f"layer_{number}")(x, cosines, sines)
      stages[f"layer_{number}"] = x
    states = RMSNorm(*common, name="final_norm")(x)
    stages[f"layer_{sizes.layers}"] = states
    real = (inputs != PAD).astype(jnp.float32)[..., None]
    total = jnp.sum(states.astype(jnp.float32) * real, axis=1)
    stages["features"] = total / jnp.maximum(jnp.sum(real, axis=1), 1.0)
    return {"states": states, "head": head.astype(self.dtype)}, stages


def decoder(
  num_outputs: int,
  dtype: Any,
  axis_name: str | None,
  *,
  width: int = 256,
  layers: int = 4,
  heads: int = 4,
  groups: int = 2,
  hidden: int = 704,
  positions: int = 2048,
) -> Decoder:
  """Returns a decoder with random weights and a tied head.

  With the default sizes it has 2.8 million parameters below the embedding, which has `num_outputs * width`.

  Args:
    num_outputs: V, the number of tokens in the vocabulary.
    dtype: of the computation.
    axis_name: not read, since no operation mixes samples.
    width: D, a multiple of twice the number of heads.
    layers: number of layers.
    heads: number of heads of queries.
    groups: number of heads of keys and values, a divisor of `heads`.
    hidden: width of the feed-forward block; 8/3 of D has as many parameters as a block without a gate and 4 D.
    positions: the largest number of tokens of a text.
  """
  del axis_name
  named = {"width": width, "layers": layers, "heads": heads, "groups": groups, "hidden": hidden, "positions": positions}
  for field, value in named.items():
    check_positive(f"model.{field}", value)
  if width % (2 * heads):  # rotations take pairs
    raise UserError(f"model.width={width} must be a multiple of 2 * model.heads={2 * heads}")
  if heads % groups:
    raise UserError(f"model.groups={groups} must be a divisor of model.heads={heads}")
  sizes = Sizes(num_outputs, width, layers, heads, groups, width // heads, hidden, positions, theta=10_000.0)
  return Decoder(sizes, dtype, None)
