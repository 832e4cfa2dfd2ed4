"""Classifiers in Flax Linen. A forward pass gives `(logits, intermediates)`; what is not used, `jit` leaves out.

`model.apply(variables, inputs, valid, train=...)` takes normalised images `[B, H, W, C]` float32, or token ids `[B, L]`
int32 where the model `reads_text`, and `valid` `[B]` bool, False on padding; it returns logits `[B, num_classes]`
float32 and a dict of the stages, among them "features", the penultimate `[B, D]` float32. Parameters are float32
whatever `dtype` the computation has. A model with dropout drops where `train` is set and `rngs={"dropout": key}` given.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from dynsel_jax import options as options_lib
from dynsel_jax.models import bert, hugging_face, mlp, resnet, vgg, vit, vit_weights
from dynsel_jax.models.weights import Weights, folder

__all__ = ["MODELS", "create", "defaults", "pretrained", "reads_text"]

MODELS: dict[str, Callable[..., nn.Module]] = {
  "bert_base": bert.bert_base,
  "bert_tiny": bert.bert_tiny,
  "minilm_l6": bert.minilm_l6,
  "mlp": mlp.mlp,
  "resnet18": resnet.resnet18,
  "resnet34": resnet.resnet34,
  "resnet50": resnet.resnet50,
  "resnet_patch": resnet.resnet_patch,
  "roberta_base": bert.roberta_base,
  "vgg16": vgg.vgg16,
  "vit_b16": vit.vit_b16,
  "vit_small": vit.vit_small,
}


def create(
  name: str, num_classes: int, *, dtype: Any = jnp.float32, axis_name: str | None = None, **options: Any
) -> nn.Module:
  """Returns the model called `name`.

  Args:
    name: one of `MODELS`.
    num_classes: width of the logits.
    dtype: of the computation; `jnp.bfloat16` halves the activations.
    axis_name: the mapped axis over which a training step spreads its batch, if any.
    **options: of that model, see `defaults(name)`.

  Raises:
    UserError: the name or an option is not known, or a value is out of its range.
  """
  options_lib.check_settings("model", name, options, defaults(name))
  return MODELS[name](num_classes, dtype, axis_name, **options)


def defaults(name: str) -> dict[str, Any]:
  """Returns the options of the model called `name` with their defaults."""
  options_lib.check_choice("model", name, MODELS)
  return options_lib.keyword_defaults(MODELS[name])


def reads_text(module: nn.Module) -> bool:
  """Whether the model takes token ids."""
  return isinstance(module, bert.Bert)


def pretrained(module: nn.Module, params: Any) -> Any:
  """Returns `params` with the pretrained weights that the model was made with, or as they are. Host-side.

  Raises:
    UserError: an array is missing in the file, or is of another shape.
  """
  field = "model.weights"
  if isinstance(module, bert.Bert) and module.weights:
    return hugging_face.classifier(params, Weights(field, folder(field, module.weights)))
  if isinstance(module, vit.ViT) and module.weights:
    weights, num_tokens = Weights(field, pathlib.Path(module.weights)), params["tower"]["positions"].shape[0]
    return {**params, "tower": vit_weights.vit_tower(weights, module.sizes, num_tokens)}
  return params
