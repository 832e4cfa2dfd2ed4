"""Converts Hugging Face's weights of BERT and RoBERTa to parameters of `bert`. Host-side."""

import json
import pathlib
from typing import Any

import numpy as np
from flax import traverse_util

from dynsel_jax.models.bert import Sizes
from dynsel_jax.models.weights import Weights
from dynsel_jax.options import UserError, printable

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
_SIZES = {  # numbers of a `config.json`, in the order of `Sizes`, with the largest that makes sense
  "vocab_size": 10**7,
  "hidden_size": 10**5,
  "num_hidden_layers": 1000,
  "num_attention_heads": 1000,
  "intermediate_size": 10**6,
  "max_position_embeddings": 10**7,
  "type_vocab_size": 10**5,
}
_LEAVES = {"kernel": ("weight",), "embedding": ("weight",), "scale": ("weight", "gamma"), "bias": ("bias", "beta")}


def sizes(field: str, folder: pathlib.Path) -> Sizes:
  """Reads the sizes of a model from its `config.json`.

  Raises:
    UserError: the file does not exist, or does not describe a BERT or RoBERTa with GELU.
  """
  path = folder / "config.json"
  try:
    held = json.loads(path.read_text())
    if held["model_type"] not in ("bert", "roberta") or held.get("hidden_act", "gelu") != "gelu":
      raise UserError(
        f"{field}={folder} is a {held['model_type']} with the activation {held.get('hidden_act')}; supported are bert"
        " and roberta with gelu"
      )
    numbers = {name: held[name] for name in _SIZES}
  except UserError:
    raise
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    reason = printable(repr(error), 300)
    raise UserError(f"{field}={folder} must contain the config.json of a BERT or RoBERTa: {reason}") from None
  for name, number in numbers.items():
    if type(number) is not int or not 1 <= number <= _SIZES[name]:
      raise UserError(f"{field}={path}: {name}={number!r} must be an integer from 1 to {_SIZES[name]}")
  if numbers["hidden_size"] % numbers["num_attention_heads"]:
    raise UserError(f"{field}={path}: hidden_size must be a multiple of num_attention_heads")
  return Sizes._make([*numbers.values(), held["model_type"] == "roberta"])


def _taken(weights: Weights, stem: str, leaf: str, like: Any) -> np.ndarray:
  """Takes the array for parameter `leaf` from the file's layer `stem`, in the layout and shape of `like`."""
  names = [f"{stem}.{ending}" for ending in _LEAVES[leaf]]
  name = next((name for name in names if name in weights.names), names[0])
  if leaf == "kernel":
    return weights.take(name, like.shape[::-1]).T
  return weights.take(name, like.shape)


def _prefix(weights: Weights) -> str:
  """Returns the prefix of the encoder's names; a file of a model with a head has one."""
  word = "embeddings.word_embeddings.weight"
  return next((prefix for prefix in ("bert.", "roberta.") if prefix + word in weights.names), "")


def encoder_params(params: Params, weights: Weights) -> Params:
  """Returns the parameters of an `Encoder` from the file; `params` gives their shapes.

  Raises:
    UserError: an array is missing or has another shape.
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
  """Returns the parameters of a `Bert` with the encoder from the file, and the pooler if the file is a BERT with one.

  The head keeps its fresh weights, and so does RoBERTa's pooler, which is part of the head there.

  Raises:
    UserError: an array of the encoder is missing, or an array has another shape.
  """
  filled = {**params, "encoder": encoder_params(params["encoder"], weights)}
  stem = f"{_prefix(weights)}pooler.dense"
  if f"{stem}.weight" in weights.names and not stem.startswith("roberta."):
    filled["pooler"] = {leaf: _taken(weights, stem, leaf, like) for leaf, like in params["pooler"].items()}
  return filled
