"""Models in Flax Linen. A forward pass returns `(outputs, intermediates)`; `jit` drops the intermediates nobody reads.

`model.apply(variables, inputs, valid, train=...)` takes

- inputs: normalised images `[B, H, W, C]` float32, token ids `[B, L]` int32 if the model `reads_text`, or what else the
  task makes of a batch;
- valid: `[B]` bool, False on padding, which must not change the outputs of the other rows;
- train: whether batch statistics are computed and, given `rngs={"dropout": key}`, entries are dropped.

It returns outputs `[B, ..., num_outputs]` float32 and a dict of intermediates by name. Among them "features" `[B, D]`
float32, the input of the last layer, serves the scores and the feature space that read a model's features; that space
also expects the last layer under the name "head". Parameters are float32 whatever the `dtype` of the computation.

A model of your own comes from a factory, named by its dotted path in place of a registered name, for example
`model.name=my_lab.net:net`. Its keyword-only parameters are the options of the config's section `model`:

    def net(num_outputs, dtype, axis_name, *, width=64) -> flax.linen.Module: ...

`num_outputs` is the width of the last layer; for a classifier the number of classes. `axis_name` is the mapped axis
over which a training step spreads its batch, None on one device; batch statistics are reduced over it.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from dynsel_jax import options as options_lib
from dynsel_jax.options import UserError, needs

with needs(__name__, "dynsel_jax[train]"):
  from flax import linen as nn
  from flax import traverse_util

  from dynsel_jax.models import (
    bert,
    bert_weights,
    decoder,
    decoder_files,
    fast_net,
    mlp,
    resnet,
    vgg,
    vit,
    vit_mae,
    vit_weights,
  )
  from dynsel_jax.models.weights import Weights, folder

__all__ = ["MODELS", "create", "defaults", "from_run", "pretrained", "pretrained_frozen", "reads_text"]

MODELS: dict[str, Callable[..., nn.Module]] = {
  "albert_base": bert.albert_base,
  "bert_base": bert.bert_base,
  "bert_tiny": bert.bert_tiny,
  "decoder": decoder.decoder,
  "decoder_pretrained": decoder_files.decoder_pretrained,
  "fast_net": fast_net.fast_net,
  "minilm_l6": bert.minilm_l6,
  "mlp": mlp.mlp,
  "resnet18": resnet.resnet18,
  "resnet34": resnet.resnet34,
  "resnet50": resnet.resnet50,
  "resnet_patch": resnet.resnet_patch,
  "roberta_base": bert.roberta_base,
  "vgg16": vgg.vgg16,
  "vit_b16": vit.vit_b16,
  "vit_l16": vit.vit_l16,
  "vit_mae": vit_mae.vit_mae,
  "vit_micro": vit.vit_micro,
  "vit_small": vit.vit_small,
}


def create(
  name: str, num_outputs: int, *, dtype: Any = jnp.float32, axis_name: str | None = None, **options: Any
) -> nn.Module:
  """Builds the model `name`.

  Args:
    name: one of `MODELS`, or the dotted path of a user's own factory: `my_lab.net:net`.
    num_outputs: width of the last layer; for a classifier the number of classes.
    dtype: of the computation; `jnp.bfloat16` halves the memory of the activations.
    axis_name: the mapped axis over which a training step spreads its batch, if any.
    **options: the model's own, see `defaults(name)`.

  Raises:
    UserError: the name or an option is unknown, a value is out of range, or the factory does not return a module.
  """
  factory = _factory(name)
  options_lib.check_settings("model", name, options, options_lib.keyword_defaults(factory))
  module = options_lib.called("model.name", name, factory, num_outputs, dtype, axis_name, **options)
  if not isinstance(module, nn.Module):
    raise UserError(f"model.name={name!r} must return a flax.linen.Module, not {type(module).__name__}")
  return module


def defaults(name: str) -> dict[str, Any]:
  """Returns the options of the model `name`, a registered name or a dotted path, with their defaults."""
  return options_lib.keyword_defaults(_factory(name))


def reads_text(module: nn.Module) -> bool:
  """Whether the model takes token ids."""
  return isinstance(module, bert.Bert | decoder.Decoder)


def pretrained(module: nn.Module, params: Any) -> Any:
  """Returns `params` with the pretrained weights that the model's options name, or unchanged if none. Host-side.

  Raises:
    UserError: an array is missing in the file or has another shape.
  """
  field = "model.weights"
  if isinstance(module, bert.Bert) and module.weights:
    path = folder(field, module.weights)
    if module.sizes.albert:
      bert_weights.check_albert(field, path, module.sizes)
    return bert_weights.bert_params(params, Weights(field, path))
  if isinstance(module, decoder.Decoder) and module.weights and module.lora is None:
    return decoder_files.decoder_params(params, Weights(field, folder(field, module.weights)))
  if isinstance(module, vit.ViT) and module.weights:
    weights, num_tokens = Weights(field, pathlib.Path(module.weights)), params["tower"]["positions"].shape[0]
    channels = params["tower"]["patch_embedding"]["kernel"].shape[0] // module.sizes.patch**2
    return {**params, "tower": vit_weights.vit_tower(weights, module.sizes, num_tokens, channels)}
  if isinstance(module, vit_mae.MaskedAutoencoder) and module.weights:
    weights, num_tokens = Weights(field, pathlib.Path(module.weights)), params["tower"][vit.FIXED].shape[0]
    return vit_weights.mae_params(weights, module.encoder, module.decoder, num_tokens, module.num_outputs)
  return params


def from_run(where: str, module: nn.Module, params: Any, found: Any) -> Any:
  """Returns `params` with those of another run's model where both have a part of the same name. Host-side.

  The head stays fresh, except where both are masked autoencoders. The fixed positions of a masked autoencoder become
  the first values of the model's own.

  Args:
    where: the field of the config and its value, for the message.
    module: the model.
    params: its fresh parameters.
    found: the parameters of the run's model.

  Raises:
    UserError: the models share no part, or a shared part has other arrays or shapes.
  """
  heads = () if isinstance(module, vit_mae.MaskedAutoencoder) and "mask_token" in found else ("head",)
  shared = [name for name in params if name in found and name not in heads]
  if not shared:
    raise UserError(f"{where} holds a model of {', '.join(sorted(found))}, of which this one has none but the head")
  held = traverse_util.flatten_dict({name: found[name] for name in shared}, sep="/")
  filled = traverse_util.flatten_dict({name: params[name] for name in shared}, sep="/")
  if "tower/positions" in filled and (fixed := f"tower/{vit.FIXED}") in held:
    held["tower/positions"] = held.pop(fixed)
  for name in sorted({*filled, *held}):
    shapes = [jnp.shape(leaves[name]) if name in leaves else None for leaves in (held, filled)]
    if shapes[0] != shapes[1]:
      has, needs = (f"of shape {shape}" if shape is not None else "missing" for shape in shapes)
      raise UserError(f"{where}: its model's array {name!r} is {has}, and in this model it is {needs}")
  taken = {name: np.asarray(held[name], np.float32) for name in filled}
  return {**params, **traverse_util.unflatten_dict(taken, sep="/")}


def pretrained_frozen(module: nn.Module, frozen: Any) -> Any:
  """Returns variables that are not trained, by collection, with the weights of the file as `pretrained` does."""
  if isinstance(module, decoder.Decoder) and module.weights:
    weights = Weights("model.weights", folder("model.weights", module.weights))
    return {"frozen": decoder_files.decoder_params(frozen["frozen"], weights)}
  return frozen


def _factory(name: str) -> Callable[..., nn.Module]:
  """Finds a model's factory by its registered name or by its dotted path."""
  return options_lib.named_or_imported("model.name", name, MODELS)
