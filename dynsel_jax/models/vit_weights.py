"""Converts Hugging Face's weights of ViT, ViT-MAE and CLIP's image encoder to parameters of `vit` and `vit_mae`.

Host-side.
"""

import math
from typing import Any

import numpy as np

from dynsel_jax.models.vit import FIXED, Sizes
from dynsel_jax.models.weights import Weights
from dynsel_jax.options import UserError

__all__ = ["clip_sizes", "clip_tower", "mae_params", "vit_tower"]

Params = dict[str, Any]

CLIP_HEAD_WIDTH = 64  # of every released CLIP; the file does not contain it

# The parts of a layer here, and the layers of the file that each is built from.
_VIT_LAYER = {
  "attention_norm": ("layernorm_before",),
  "query_key_value": tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
  "attention_output": ("attention.output.dense",),
  "hidden_norm": ("layernorm_after",),
  "hidden": ("intermediate.dense",),
  "output": ("output.dense",),
}
_CLIP_LAYER = {
  "attention_norm": ("layer_norm1",),
  "query_key_value": tuple(f"self_attn.{part}_proj" for part in ("q", "k", "v")),
  "attention_output": ("self_attn.out_proj",),
  "hidden_norm": ("layer_norm2",),
  "hidden": ("mlp.fc1",),
  "output": ("mlp.fc2",),
}


def _norm(weights: Weights, name: str, width: int) -> Params:
  return {"scale": weights.take(f"{name}.weight", (width,)), "bias": weights.take(f"{name}.bias", (width,))}


def _dense(weights: Weights, names: tuple[str, ...], inputs: int, outputs: int) -> Params:
  """Returns one linear layer that concatenates the outputs of the layers `names`."""
  kernels = [weights.take(f"{name}.weight", (outputs // len(names), inputs)).T for name in names]
  biases = [weights.take(f"{name}.bias", (outputs // len(names),)) for name in names]
  return {"kernel": np.concatenate(kernels, axis=1), "bias": np.concatenate(biases)}


def _layer(weights: Weights, stem: str, names: dict[str, tuple[str, ...]], sizes: Sizes) -> Params:
  width, hidden = sizes.width, sizes.hidden
  widths = {"query_key_value": (width, 3 * width), "attention_output": (width, width)}
  widths |= {"hidden": (width, hidden), "output": (hidden, width)}
  return {
    part: _dense(weights, tuple(stem + name for name in found), *widths[part])
    if part in widths
    else _norm(weights, stem + found[0], width)
    for part, found in names.items()
  }


def _patch_kernel(weights: Weights, name: str, sizes: Sizes, channels: int = 3) -> np.ndarray:
  kernel = weights.take(name, (sizes.width, channels, sizes.patch, sizes.patch))
  return kernel.transpose(2, 3, 1, 0).reshape(-1, sizes.width)


def vit_tower(weights: Weights, sizes: Sizes, num_tokens: int, channels: int = 3) -> Params:
  """Returns the parameters of a `Tower` with L = `num_tokens` from a file such as google/vit-base-patch16-224's.

  Raises:
    UserError: an array is missing or has another shape, or the file contains an array that the tower does not.
  """
  prefix = "vit." if "vit.layernorm.weight" in weights.names else ""
  stem = f"{prefix}embeddings."
  projection = f"{stem}patch_embeddings.projection"
  positions = FIXED if sizes.fixed_positions else "positions"
  tower = {
    "class_token": weights.take(f"{stem}cls_token", (1, 1, sizes.width))[0, 0],
    positions: weights.take(f"{stem}position_embeddings", (1, num_tokens, sizes.width))[0],
    "patch_embedding": {
      "kernel": _patch_kernel(weights, f"{projection}.weight", sizes, channels),
      "bias": weights.take(f"{projection}.bias", (sizes.width,)),
    },
    "final_norm": _norm(weights, f"{prefix}layernorm", sizes.width),
  }
  for number in range(sizes.layers):
    tower[f"layer_{number + 1}"] = _layer(weights, f"{prefix}encoder.layer.{number}.", _VIT_LAYER, sizes)
  weights.check_all_taken(f"{prefix}encoder.")
  return tower


def mae_params(weights: Weights, encoder: Sizes, decoder: Sizes, num_tokens: int, num_outputs: int) -> Params:
  """Returns the parameters of a `MaskedAutoencoder` from a file such as facebook/vit-mae-base's.

  The positions are the file's, which need not be sines and cosines.

  Args:
    weights: the file.
    encoder: architecture of the encoder; its patch is ignored.
    decoder: architecture of the decoder.
    num_tokens: one more than the patches of an image.
    num_outputs: pixels of a patch times channels.

  Raises:
    UserError: an array is missing or has another shape, or the file contains an array that the model does not.
  """
  width = decoder.width
  _, channels, patch, _ = weights.shape("vit.embeddings.patch_embeddings.projection.weight", 4)
  if channels * patch**2 != num_outputs:
    raise UserError(
      f"{weights.where}: its patches have {patch}x{patch} pixels of {channels} channels, and the task's {num_outputs}"
      " numbers: set task.patch, or take images of as many channels"
    )
  encoder = encoder._replace(patch=patch, fixed_positions=True)
  params = {
    "tower": vit_tower(weights, encoder, num_tokens, channels),
    "fixed_decoder_positions": weights.take("decoder.decoder_pos_embed", (1, num_tokens, width))[0],
    "mask_token": weights.take("decoder.mask_token", (1, 1, width))[0, 0],
    "decoder_embedding": _dense(weights, ("decoder.decoder_embed",), encoder.width, width),
    "decoder_norm": _norm(weights, "decoder.decoder_norm", width),
    "head": _dense(weights, ("decoder.decoder_pred",), width, num_outputs),
  }
  for number in range(decoder.layers):
    layer = _layer(weights, f"decoder.decoder_layers.{number}.", _VIT_LAYER, decoder)
    params[f"decoder_layer_{number + 1}"] = layer
  weights.check_all_taken("decoder.")
  return params


def clip_sizes(weights: Weights) -> tuple[Sizes, int]:
  """Infers the architecture of a file's image encoder, and the side of its images, from the shapes of the arrays.

  Raises:
    UserError: an array needed for that is missing, or its shape fits no such encoder.
  """
  stem = "vision_model."
  patch = weights.shape(f"{stem}embeddings.patch_embedding.weight", 4)[-1]
  tokens, width = weights.shape(f"{stem}embeddings.position_embedding.weight", 2)
  hidden = weights.shape(f"{stem}encoder.layers.0.mlp.fc1.weight", 2)[0]
  layers = len({name.split(".")[3] for name in weights.names if name.startswith(f"{stem}encoder.layers.")})
  if width % CLIP_HEAD_WIDTH or tokens < 2:
    raise UserError(f"{weights.where} holds no CLIP: its image encoder has {tokens} positions of width {width}")
  return Sizes(patch, width, layers, width // CLIP_HEAD_WIDTH, hidden, 1e-5, True), patch * math.isqrt(tokens - 1)


def clip_tower(weights: Weights, sizes: Sizes, side: int) -> Params:
  """Returns the parameters of a `Tower` for images of `side` from a file such as openai/clip-vit-large-patch14's.

  Raises:
    UserError: an array is missing or has another shape, or the file contains an array that the tower does not.
  """
  stem, width = "vision_model.", sizes.width
  num_tokens = 1 + (side // sizes.patch) ** 2
  tower = {
    "class_token": weights.take(f"{stem}embeddings.class_embedding", (width,)),
    "positions": weights.take(f"{stem}embeddings.position_embedding.weight", (num_tokens, width)),
    "patch_embedding": {"kernel": _patch_kernel(weights, f"{stem}embeddings.patch_embedding.weight", sizes)},
    "embedding_norm": _norm(weights, f"{stem}pre_layrnorm", width),  # the spelling of the files
    "final_norm": _norm(weights, f"{stem}post_layernorm", width),
  }
  for number in range(sizes.layers):
    tower[f"layer_{number + 1}"] = _layer(weights, f"{stem}encoder.layers.{number}.", _CLIP_LAYER, sizes)
  weights.check_all_taken(stem, idle=(f"{stem}embeddings.position_ids",))
  return tower
