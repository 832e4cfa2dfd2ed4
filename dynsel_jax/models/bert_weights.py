"""Converts Hugging Face's weights of BERT, RoBERTa and ALBERT to parameters of `bert`. Host-side."""

import json
import pathlib
from typing import Any

import numpy as np
from flax import traverse_util

from dynsel_jax.models.bert import Sizes
from dynsel_jax.models.weights import Weights
from dynsel_jax.options import UserError, printable

__all__ = ["bert_params", "check_albert", "encoder_params", "sizes"]

Params = dict[str, Any]

_EMBEDDINGS = {
  "word_embeddings": "embeddings.word_embeddings",
  "position_embeddings": "embeddings.position_embeddings",
  "token_type_embeddings": "embeddings.token_type_embeddings",
  "embedding_norm": "embeddings.LayerNorm",
  "embedding_mapping": "encoder.embedding_hidden_mapping_in",
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
_ALBERT_LAYER = {
  "query": "attention.query",
  "key": "attention.key",
  "value": "attention.value",
  "attention_output": "attention.dense",
  "attention_norm": "attention.LayerNorm",
  "intermediate": "ffn",
  "output": "ffn_output",
  "output_norm": "full_layer_layer_norm",
}
_ACTIVATION = {"bert": "gelu", "roberta": "gelu", "albert": "gelu_new"}
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
    UserError: the file does not exist, or does not describe a BERT, RoBERTa or ALBERT that `bert` computes.
  """
  path = folder / "config.json"
  try:
    held = json.loads(path.read_text())
    kind = held["model_type"]
    if kind not in _ACTIVATION or held.get("hidden_act", _ACTIVATION[kind]) != _ACTIVATION[kind]:
      raise UserError(
        f"{field}={folder} is a {kind} with the activation {held.get('hidden_act')}; supported are bert and roberta"
        " with gelu and albert with gelu_new"
      )
    numbers = {name: held[name] for name in _SIZES}
    if kind == "albert":
      numbers["embedding_size"] = held["embedding_size"]
      if (different := [held.get(name, 1) for name in ("num_hidden_groups", "inner_group_num")]) != [1, 1]:
        raise UserError(
          f"{field}={folder} has num_hidden_groups={different[0]} and inner_group_num={different[1]}; supported is one"
          " layer that all share"
        )
  except UserError:
    raise
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    reason = printable(repr(error), 300)
    raise UserError(f"{field}={folder} must contain the config.json of a BERT, RoBERTa or ALBERT: {reason}") from None
  for name, number in numbers.items():
    most = _SIZES["hidden_size" if name == "embedding_size" else name]
    if type(number) is not int or not 1 <= number <= most:
      raise UserError(f"{field}={path}: {name}={number!r} must be an integer from 1 to {most}")
  if numbers["hidden_size"] % numbers["num_attention_heads"]:
    raise UserError(f"{field}={path}: hidden_size must be a multiple of num_attention_heads")
  embedding = numbers.pop("embedding_size", 0)
  return Sizes._make([*numbers.values(), kind == "roberta", embedding])


def check_albert(field: str, folder: pathlib.Path, needed: Sizes) -> None:
  """Raises `UserError` if the folder of an ALBERT's weights has the `config.json` of another one.

  Its versions differ in the activation, which no array's shape tells.
  """
  if (folder / "config.json").is_file() and (found := sizes(field, folder)) != needed:
    different = [name for name in Sizes._fields if getattr(found, name) != getattr(needed, name)]
    raise UserError(f"{field}={folder} is not of this model's sizes: {', '.join(different)} are others")


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
  return next((prefix for prefix in ("bert.", "roberta.", "albert.") if prefix + word in weights.names), "")


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
    elif path[0] == "layer":
      stem = f"encoder.albert_layer_groups.0.albert_layers.0.{_ALBERT_LAYER[module]}"
    else:
      stem = f"encoder.layer.{int(path[0].removeprefix('layer_')) - 1}.{_LAYER[module]}"
    filled[path] = _taken(weights, prefix + stem, leaf, like)
  return traverse_util.unflatten_dict(filled)


def bert_params(params: Params, weights: Weights) -> Params:
  """Returns the parameters of a `Bert` with the encoder from the file, and BERT's or ALBERT's pooler if it has one.

  The head keeps its fresh weights, and so does RoBERTa's pooler, which is part of the head there.

  Raises:
    UserError: an array of the encoder is missing, or an array has another shape.
  """
  filled = {**params, "encoder": encoder_params(params["encoder"], weights)}
  stem = f"{_prefix(weights)}pooler" + ("" if "layer" in params["encoder"] else ".dense")
  if f"{stem}.weight" in weights.names and not stem.startswith("roberta."):
    filled["pooler"] = {leaf: _taken(weights, stem, leaf, like) for leaf, like in params["pooler"].items()}
  return filled
