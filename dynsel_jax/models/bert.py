"""BERT (Devlin et al., arXiv 1810.04805), RoBERTa (Liu et al., arXiv 1907.11692) and ALBERT (Lan et al., arXiv
1909.11942): encoders with a linear head.

Pure, except that the factories open the file of the weights. Inputs are token ids `[B, L]` int32, padded on the right
with the model's pad id. The attention mask is derived from that id, so that no text may contain it. The tokens of a
second segment have ids of at least SEGMENT, which is subtracted. `B` is the batch size, `L` the number of tokens, `D`
the width.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dynsel_jax.models.dropout import Dropout
from dynsel_jax.models.normalization import layer_normalized
from dynsel_jax.models.weights import Weights, folder, is_run
from dynsel_jax.options import UserError, check_fraction, check_positive

__all__ = ["SEGMENT", "Bert", "Encoder", "Sizes", "albert_base", "bert_base", "bert_tiny", "minilm_l6", "roberta_base"]

SEGMENT = 1 << 20  # added to the id of a token in the second segment of a pair; larger than every vocabulary
_NORMAL = nn.initializers.normal(0.02)


class Sizes(NamedTuple):
  """Architecture of an encoder; the defaults are those of BERT-base, uncased."""

  vocabulary: int = 30_522
  width: int = 768
  layers: int = 12
  heads: int = 12
  hidden: int = 3072  # width of the feed-forward block
  positions: int = 512  # rows of the position table; RoBERTa does not use the first two
  types: int = 2
  roberta: bool = False
  embedding: int = 0  # ALBERT: width of the embeddings, which a matrix maps to D; 0 for the others

  @property
  def albert(self) -> bool:
    """Whether all layers share their parameters and have the approximate GELU."""
    return self.embedding > 0

  @property
  def pad_id(self) -> int:
    """The token id of padding."""
    return 1 if self.roberta else 0

  @property
  def first_position(self) -> int:
    """The row of the position table for the first token."""
    return 2 if self.roberta else 0

  @property
  def max_length(self) -> int:
    """The largest L."""
    return self.positions - self.first_position

  @property
  def epsilon(self) -> float:
    """Term added to the variance in layer normalisation."""
    return 1e-5 if self.roberta else 1e-12


class Layer(nn.Module):
  """A post-norm transformer layer: self-attention and a feed-forward block, each added to its input and normalised."""

  sizes: Sizes
  dropout: float
  dtype: Any
  axis_name: str | None

  @nn.compact
  def __call__(self, x: Array, mask: Array, *, train: bool) -> Array:
    """Maps x `[B, L, D]` to the same shape; `mask` `[B, L]` bool is False on padded tokens."""

    def dense(width: int, name: str, x: Array) -> Array:
      return nn.Dense(width, dtype=self.dtype, kernel_init=_NORMAL, name=name)(x)

    def drop(x: Array) -> Array:
      return Dropout(self.dropout, self.axis_name)(x, train=train)

    def added(name: str, x: Array, change: Array) -> Array:
      return layer_normalized(self.sizes.epsilon, name, x + drop(change), self.dtype)

    batch, length, width = x.shape
    heads = (batch, length, self.sizes.heads, width // self.sizes.heads)
    query, key, value = (dense(width, name, x).reshape(heads) for name in ("query", "key", "value"))
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(heads[-1])
    scores = jnp.where(mask[:, None, None, :], scores.astype(jnp.float32), jnp.finfo(jnp.float32).min)
    attention = drop(jax.nn.softmax(scores)).astype(self.dtype)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", attention, value).reshape(batch, length, width)
    x = added("attention_norm", x, dense(width, "attention_output", mixed))
    hidden = nn.gelu(dense(self.sizes.hidden, "intermediate", x), approximate=self.sizes.albert)
    return added("output_norm", x, dense(width, "output", hidden))


class Encoder(nn.Module):
  """Sums word, position and type embeddings and applies the layers."""

  sizes: Sizes
  dropout: float = 0.0
  dtype: Any = jnp.float32
  axis_name: str | None = None

  @nn.compact
  def __call__(self, inputs: Array, *, train: bool) -> dict[str, Array]:
    """Maps token ids `[B, L]` int32 to "embeddings", "layer_1", ..., each `[B, L, D]`; undefined on padding."""
    sizes, length = self.sizes, inputs.shape[1]
    if length > sizes.max_length:
      raise UserError(f"texts of {length} tokens exceed the model's {sizes.max_length}; reduce dataset.max_length")

    def embedding(rows: int, name: str) -> nn.Embed:
      return nn.Embed(rows, sizes.embedding or sizes.width, dtype=self.dtype, embedding_init=_NORMAL, name=name)

    positions = jnp.arange(length) + sizes.first_position
    x = embedding(sizes.vocabulary, "word_embeddings")(inputs % SEGMENT)
    x += embedding(sizes.positions, "position_embeddings")(positions)[None]
    # RoBERTa has one type: its tokenizer does not tell segments apart.
    x += embedding(sizes.types, "token_type_embeddings")(jnp.minimum(inputs // SEGMENT, sizes.types - 1))
    x = layer_normalized(sizes.epsilon, "embedding_norm", x, self.dtype)
    x = Dropout(self.dropout, self.axis_name)(x, train=train)
    if sizes.albert:
      x = nn.Dense(sizes.width, dtype=self.dtype, kernel_init=_NORMAL, name="embedding_mapping")(x)
    stages = {"embeddings": x}
    names = ["layer"] if sizes.albert else [f"layer_{number}" for number in range(1, sizes.layers + 1)]
    layers = [Layer(sizes, self.dropout, self.dtype, self.axis_name, name=name) for name in names]
    for number in range(1, sizes.layers + 1):
      layer = layers[0 if sizes.albert else number - 1]
      stages[f"layer_{number}"] = x = layer(x, inputs != sizes.pad_id, train=train)
    return stages


class Bert(nn.Module):
  """The encoder, a dense layer with tanh on the first token (BERT's pooler), and a linear head.

  `weights` is the folder of a pretrained model to start from; "" starts from random weights.
  """

  num_outputs: int
  sizes: Sizes
  dropout: float = 0.1
  dtype: Any = jnp.float32
  axis_name: str | None = None
  weights: str = ""

  @nn.compact
  def __call__(self, inputs: Array, valid: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
    """Maps token ids `[B, L]` int32 to outputs `[B, num_outputs]` and the stages of `Encoder`, then "features"."""
    del valid  # no operation mixes samples
    drop = Dropout(self.dropout, self.axis_name, name="drop")
    inner = 0.0 if self.sizes.albert else self.dropout  # ALBERT has dropout before the head alone
    encoder = Encoder(self.sizes, inner, self.dtype, self.axis_name, name="encoder")
    intermediates = encoder(inputs, train=train)
    first = intermediates[f"layer_{self.sizes.layers}"][:, 0]
    if self.sizes.roberta:  # RoBERTa's head applies dropout before the pooler too
      first = Dropout(self.dropout, self.axis_name, name="drop_first")(first, train=train)
    pooled = jnp.tanh(nn.Dense(self.sizes.width, dtype=self.dtype, kernel_init=_NORMAL, name="pooler")(first))
    intermediates["features"] = features = pooled.astype(jnp.float32)
    outputs = nn.Dense(self.num_outputs, kernel_init=_NORMAL, name="head")(drop(features, train=train))
    return outputs, intermediates


def _bert(sizes: Sizes, num_outputs: int, dtype: Any, axis_name: str | None, dropout: float, weights: str) -> Bert:
  check_fraction("model.dropout", dropout, zero=True, one=False)
  if weights and not is_run(weights):  # fails early, before data is loaded
    Weights("model.weights", folder("model.weights", weights))
  return Bert(num_outputs, sizes, dropout, dtype, axis_name, weights)


def bert_base(num_outputs: int, dtype: Any, axis_name: str | None, *, dropout: float = 0.1, weights: str = "") -> Bert:
  """Returns BERT-base, uncased: 109,482,240 parameters below the head.

  Args:
    num_outputs: width of the last layer.
    dtype: of the computation.
    axis_name: the mapped axis over which a training step spreads its batch, if any.
    dropout: rate after the embeddings, the attention weights and each block, and before the head.
    weights: folder of a pretrained model in the layout of Hugging Face, or the workdir of a run of this model, or ""
      for random weights.
  """
  return _bert(Sizes(), num_outputs, dtype, axis_name, dropout, weights)


def roberta_base(
  num_outputs: int, dtype: Any, axis_name: str | None, *, dropout: float = 0.1, weights: str = ""
) -> Bert:
  """Returns RoBERTa-base: 124,645,632 parameters below the head; arguments as for `bert_base`."""
  sizes = Sizes(50_265, positions=514, types=1, roberta=True)
  return _bert(sizes, num_outputs, dtype, axis_name, dropout, weights)


def albert_base(
  num_outputs: int, dtype: Any, axis_name: str | None, *, dropout: float = 0.1, weights: str = ""
) -> Bert:
  """Returns ALBERT-base, version 2: 11,683,584 parameters below the head; arguments as for `bert_base`.

  Its 12 layers are one, and its embeddings have width 128. Dropout acts before the head alone, as in that version.
  """
  return _bert(Sizes(30_000, embedding=128), num_outputs, dtype, axis_name, dropout, weights)


def minilm_l6(num_outputs: int, dtype: Any, axis_name: str | None, *, dropout: float = 0.1, weights: str = "") -> Bert:
  """Returns MiniLM-L6-H384 (arXiv 2002.10957): 22,713,216 parameters below the head; arguments as for `bert_base`."""
  sizes = Sizes(width=384, layers=6, hidden=1536)
  return _bert(sizes, num_outputs, dtype, axis_name, dropout, weights)


def bert_tiny(
  num_outputs: int,
  dtype: Any,
  axis_name: str | None,
  *,
  dropout: float = 0.1,
  vocabulary: int = 8192,
  layers: int = 2,
) -> Bert:
  """Returns a BERT of width 64 with random weights, for runs that take seconds.

  Args:
    num_outputs: width of the last layer.
    dtype: of the computation.
    axis_name: the mapped axis over which a training step spreads its batch, if any.
    dropout: as for `bert_base`.
    vocabulary: number of tokens in the vocabulary.
    layers: number of layers.
  """
  for field, value in (("vocabulary", vocabulary), ("layers", layers)):
    check_positive(f"model.{field}", value)
  sizes = Sizes(vocabulary, width=64, layers=layers, heads=2, hidden=128)
  return _bert(sizes, num_outputs, dtype, axis_name, dropout, "")
