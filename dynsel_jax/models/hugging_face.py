"""Weights of BERT and RoBERTa as Hugging Face stores them, in the parameters of `bert`. Host-side."""

import json
import pathlib
from typing import Any

import numpy as np
from flax import traverse_util

from dynsel_jax.models.bert import Sizes
from dynsel_jax.models.weights import Weights
from dynsel_jax.options import UserError

__all__ = ["bert_params", "encoder_params", "sizes"]

Params = dict[str, Any]

_EMBEDDINGS = {
  "word_embeddings": "embeddings.word_embeddings",
  "position_embeddings": "embeddings.position_embeddings",
  "token_type_embeddings": "embeddings.token_type_embeddings",
  "embedding_norm": "embeddings.LayerNorm",
}
_LAYER = {
  "query": "attention.self.query",
  "key": "attention.self.key",
  "value": "attention.self.value",
  "attention_output": "attention.output.dense",
  "attention_norm": "attention.output.LayerNorm",
  "intermediate": "intermediate.dense",
  "output": "output.dense",
  "output_norm": "output.LayerNorm",
}
_LEAVES = {"kernel": ("weight",), "embedding": ("weight",), "scale": ("weight", "gamma"), "bias": ("bias", "beta")}


def sizes(field: str, folder: pathlib.Path) -> Sizes:
  """Returns the sizes that a model's `config.json` gives.

  Raises:
    UserError: there is no such file, or it is not that of a BERT or RoBERTa with absolute positions and GELU.
  """
  path = folder / "config.json"
  try:
    held = json.loads(path.read_text())
    if held["model_type"] not in ("bert", "roberta") or held.get("hidden_act", "gelu") != "gelu":
      raise UserError(f"{field}={folder} is a {held['model_type']} with {held.get('hidden_act')}, not a BERT with gelu")
    return Sizes(
      held["vocab_size"],
      held["hidden_size"],
      held["num_hidden_layers"],
      held["num_attention_heads"],
      held["intermediate_size"],
      held["max_position_embeddings"],
      held["type_vocab_size"],
      held["model_type"] == "roberta",
    )
  except UserError:
    raise
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"{field}={folder} has no config.json of a BERT: {error!r}") from None


def _taken(weights: Weights, stem: str, leaf: str, like: Any) -> np.ndarray:
  """Returns the array of layer `stem` that our `leaf` stands for, in our layout and of the shape of `like`."""
  names = [f"{stem}.{ending}" for ending in _LEAVES[leaf]]
  name = next((name for name in names if name in weights.names), names[0])
  if leaf == "kernel":
    return weights.take(name, like.shape[::-1]).T
  return weights.take(name, like.shape)


def _prefix(weights: Weights) -> str:
  """Returns what stands before the encoder's names, where the file is of a model with a head."""
  word = "embeddings.word_embeddings.weight"
  return next((prefix for prefix in ("bert.", "roberta.") if prefix + word in weights.names), "")


def encoder_params(params: Params, weights: Weights) -> Params:
  """Returns the parameters of an `Encoder` from the file, `params` giving their shapes.

  Raises:
    UserError: an array is missing, or of another shape.
  """
  prefix = _prefix(weights)
  filled = {}
  for path, like in traverse_util.flatten_dict(params).items():
    *_, module, leaf = path
    if module in _EMBEDDINGS:
      stem = _EMBEDDINGS[module]
    else:
      stem = f"encoder.layer.{int(path[0].removeprefix('layer_')) - 1}.{_LAYER[module]}"
    filled[path] = _taken(weights, prefix + stem, leaf, like)
  return traverse_util.unflatten_dict(filled)


def bert_params(params: Params, weights: Weights) -> Params:
  """Returns the parameters of a `Bert` with the file's encoder, and its pooler where the file is a BERT's with one.

  The head stays new, and RoBERTa's pooler, which belongs to the head there.

  Raises:
    UserError: an array of the encoder is missing, or one is of another shape.
  """
  filled = {**params, "encoder": encoder_params(params["encoder"], weights)}
  stem = f"{_prefix(weights)}pooler.dense"
  if f"{stem}.weight" in weights.names and not stem.startswith("roberta."):
    filled["pooler"] = {leaf: _taken(weights, stem, leaf, like) for leaf, like in params["pooler"].items()}
  return filled
