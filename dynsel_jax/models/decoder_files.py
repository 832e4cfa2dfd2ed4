"""Reads and writes decoders in Hugging Face's layout: a folder with `config.json` and safetensors. Host-side.

Where a model's padding is a token that texts contain, as SmolLM2's is the one that ends a turn, `transformers` does not
train that token's embedding by the places where it is read; this decoder does.
"""

import json
import pathlib
from typing import Any

import numpy as np
from flax import traverse_util

from dynsel_jax.models.decoder import PROJECTIONS, Decoder, Lora, Sizes
from dynsel_jax.models.weights import Weights, folder
from dynsel_jax.options import UserError, check_positive, optional_library, printable

__all__ = ["decoder_params", "decoder_pretrained", "merged", "save", "sizes"]

Params = dict[str, Any]

_NAMES = {
  "attention_norm": "input_layernorm",
  "query": "self_attn.q_proj",
  "key": "self_attn.k_proj",
  "value": "self_attn.v_proj",
  "attention_output": "self_attn.o_proj",
  "hidden_norm": "post_attention_layernorm",
  "gate": "mlp.gate_proj",
  "up": "mlp.up_proj",
  "down": "mlp.down_proj",
}
_NUMBERS = {  # of a `config.json`, with the largest that makes sense
  "vocab_size": 10**7,
  "hidden_size": 10**5,
  "num_hidden_layers": 1000,
  "num_attention_heads": 1000,
  "intermediate_size": 10**6,
  "max_position_embeddings": 10**8,
}
_KINDS = ("llama", "qwen2")
# Variants of the architecture that this model does not compute, with the values that stand for their absence.
_ABSENT: dict[str, tuple[Any, ...]] = {
  "hidden_act": ("silu",),
  "attention_bias": (False, None),
  "mlp_bias": (False, None),
  "use_sliding_window": (False, None),
  "pretraining_tp": (1, None),
}


def sizes(field: str, path: pathlib.Path) -> Sizes:
  """Reads the sizes of a decoder from the `config.json` of the folder `path`, which `field` of the config names.

  Raises:
    UserError: the file does not exist, or does not describe a decoder of the Llama family that `decoder` computes.
  """
  where = f"{field}={path / 'config.json'}"
  try:
    held = json.loads((path / "config.json").read_text())
    kind = held["model_type"]
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise UserError(f"{where} is not the config.json of a language model: {printable(repr(error), 300)}") from None
  if kind not in _KINDS:
    raise UserError(f"{where} describes a {kind!r}; supported are {' and '.join(_KINDS)}")
  return _sizes(where, held)


def _sizes(where: str, held: dict[str, Any]) -> Sizes:
  for name, absent in _ABSENT.items():
    if held.get(name, absent[0]) not in absent:
      raise UserError(f"{where}: {name}={held[name]!r} is not supported, only {absent[0]!r}")
  numbers = {name: _number(where, held, name, most) for name, most in _NUMBERS.items()}
  vocabulary, width, layers, heads, hidden, positions = numbers.values()
  groups = _number(where, {"num_key_value_heads": heads} | _given(held), "num_key_value_heads", heads)
  head_width = _number(where, {"head_dim": width // heads} | _given(held), "head_dim", width)
  if heads % groups or head_width % 2:
    raise UserError(
      f"{where}: num_key_value_heads={groups} must divide num_attention_heads={heads}, and head_dim={head_width} must"
      " be even"
    )
  rope = held.get("rope_parameters") or held.get("rope_scaling") or {}
  if not isinstance(rope, dict):
    raise UserError(f"{where}: rope_parameters or rope_scaling, {rope!r}, must be an object")
  if (kind := rope.get("rope_type", rope.get("type", "default"))) != "default":
    raise UserError(f"{where}: rope_type={kind!r} is not supported, only 'default'")
  theta = rope.get("rope_theta", held.get("rope_theta", 10_000.0))
  epsilon, tied = held.get("rms_norm_eps", 1e-6), held.get("tie_word_embeddings", False)
  for name, value in (("rope_theta", theta), ("rms_norm_eps", epsilon)):
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
      raise UserError(f"{where}: {name}={value!r} must be a positive number")
  biases = held["model_type"] == "qwen2"
  return Sizes(
    *(vocabulary, width, layers, heads, groups, head_width, hidden, positions),
    *(float(theta), float(epsilon), bool(tied), biases),
  )


def _given(held: dict[str, Any]) -> dict[str, Any]:
  return {name: value for name, value in held.items() if value is not None}


def _number(where: str, held: dict[str, Any], name: str, most: int) -> int:
  number = held.get(name)
  if type(number) is not int or not 1 <= number <= most:
    raise UserError(f"{where}: {name}={number!r} must be an integer from 1 to {most}")
  return number


def _stem(path: tuple[str, ...]) -> str:
  """Returns the name in a file of the array of a parameter, without "lm_head", which has no prefix."""
  first, *rest = path
  if first.startswith("layer_"):
    number, leaf = int(first.removeprefix("layer_")) - 1, "bias" if rest[1] == "bias" else "weight"
    return f"layers.{number}.{_NAMES[rest[0]]}.{leaf}"
  return {"embedding": "embed_tokens.weight", "final_norm": "norm.weight"}[first]


def decoder_params(like: Params, weights: Weights) -> Params:
  """Returns the arrays of a `Decoder` from a file, in the structure and with the shapes and types of `like`.

  Args:
    like: parameters or frozen weights of the decoder; arrays or shapes.
    weights: the file.

  Raises:
    UserError: an array is missing or has another shape, or the file holds an array that the decoder does not.
  """
  prefix = "model." if "model.embed_tokens.weight" in weights.names else ""
  taken = {}
  for path, leaf in traverse_util.flatten_dict(like).items():
    name = "lm_head.weight" if path == ("head",) else prefix + _stem(path)
    kernel = path[-1] == "kernel"
    array = weights.take(name, leaf.shape[::-1] if kernel else leaf.shape)
    taken[path] = (array.T if kernel else array).astype(leaf.dtype)
  idle = {name for name in weights.names if name.endswith("rotary_emb.inv_freq")}
  # A file may repeat the embedding as the head that is tied to it.
  weights.check_all_taken("", idle if ("head",) in taken else idle | {"lm_head.weight"})
  return traverse_util.unflatten_dict(taken)


def merged(frozen: Params, params: Params, lora: Lora) -> Params:
  """Returns the weights of a decoder with its low-rank updates added to the frozen ones, for `save`."""
  whole, updates = dict(traverse_util.flatten_dict(frozen)), traverse_util.flatten_dict(params)
  for path, down in updates.items():
    if path[-1] == "lora_a":
      kernel, up = (*path[:-1], "kernel"), np.asarray(updates[*path[:-1], "lora_b"], np.float32)
      update = np.asarray(down, np.float32) @ up * np.float32(lora.alpha / lora.rank)
      whole[kernel] = np.asarray(whole[kernel], np.float32) + update
  return traverse_util.unflatten_dict(whole)


def save(path: pathlib.Path, sizes: Sizes, params: Params, **tokens: int) -> None:
  """Writes a decoder as `config.json` and `model.safetensors` in float32, which `transformers` reads.

  Args:
    path: the folder, made if it does not exist.
    sizes: the decoder's.
    params: all its weights, without low-rank updates.
    **tokens: `bos_token_id`, `eos_token_id` and the like for the `config.json`.
  """
  arrays = {}
  for names, leaf in traverse_util.flatten_dict(params).items():
    name = "lm_head.weight" if names == ("head",) else f"model.{_stem(names)}"
    array = np.asarray(leaf, np.float32)
    arrays[name] = np.ascontiguousarray(array.T if names[-1] == "kernel" else array)
  kind = "qwen2" if sizes.biases else "llama"
  config = {
    "model_type": kind,
    "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[kind]],
    "vocab_size": sizes.vocabulary,
    "hidden_size": sizes.width,
    "num_hidden_layers": sizes.layers,
    "num_attention_heads": sizes.heads,
    "num_key_value_heads": sizes.groups,
    "head_dim": sizes.head_width,
    "intermediate_size": sizes.hidden,
    "max_position_embeddings": sizes.positions,
    "rope_theta": sizes.theta,
    "rms_norm_eps": sizes.epsilon,
    "hidden_act": "silu",
    "tie_word_embeddings": sizes.tied,
    "torch_dtype": "float32",
    **tokens,
  }
  path.mkdir(parents=True, exist_ok=True)
  optional_library("safetensors.numpy", "text").save_file(arrays, path / "model.safetensors", {"format": "pt"})
  (path / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def decoder_pretrained(
  num_outputs: int,
  dtype: Any,
  axis_name: str | None,
  *,
  weights: str = "",
  lora_rank: int = 0,
  lora_alpha: float = 16.0,
  lora_targets: tuple[str, ...] = ("query", "value"),
) -> Decoder:
  """Returns a decoder of the Llama family with the sizes of a pretrained one's `config.json`, and its weights.

  Args:
    num_outputs: number of tokens of the data set's tokenizer, at most the model's.
    dtype: of the computation.
    axis_name: not read, since no operation mixes samples.
    weights: folder of the model in the layout of Hugging Face; "" is SmolLM2-135M with random weights.
    lora_rank: rank r of low-rank updates (arXiv 2106.09685), beside which all weights are frozen; 0 trains all weights.
    lora_alpha: the updates are multiplied by `lora_alpha / lora_rank`.
    lora_targets: the projections that are updated, of query, key, value, attention_output, gate, up, down.

  Raises:
    UserError: the folder does not hold such a model, or a value is out of range.
  """
  del axis_name
  check_positive("model.lora_rank", lora_rank, zero=True)
  check_positive("model.lora_alpha", lora_alpha)
  if unknown := set(lora_targets) - set(PROJECTIONS):
    raise UserError(f"model.lora_targets: {min(unknown)!r} is not known; known: {', '.join(PROJECTIONS)}")
  if lora_rank and not lora_targets:
    raise UserError(f"model.lora_targets=() leaves nothing to train with model.lora_rank={lora_rank}")
  lora = Lora(lora_rank, lora_alpha, tuple(lora_targets)) if lora_rank else None
  if not weights:
    return Decoder(Sizes(), dtype, lora)
  path = folder("model.weights", weights)
  found = sizes("model.weights", path)
  if num_outputs > found.vocabulary:
    raise UserError(
      f"model.weights={path} has a vocabulary of {found.vocabulary} tokens, and the data set's tokenizer one of"
      f" {num_outputs}; name the tokenizer of this model"
    )
  Weights("model.weights", path)  # fails early, before data is loaded
  return Decoder(found, dtype, lora, str(path))
