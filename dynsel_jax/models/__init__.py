"""Classifiers in Flax Linen. A forward pass gives `(logits, intermediates)`; what is not used, `jit` leaves out.

`model.apply(variables, inputs, valid, train=...)` takes normalised inputs `[B, H, W, C]` float32 and `valid` `[B]`
bool, False on padding; it returns logits `[B, num_classes]` float32 and a dict of the stages, among them "features",
the penultimate `[B, D]` float32. Parameters are float32 whatever `dtype` the computation has.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from dynsel_jax import options as options_lib
from dynsel_jax.models import mlp, resnet

__all__ = ["MODELS", "create", "defaults"]

MODELS: dict[str, Callable[..., nn.Module]] = {
  "mlp": mlp.mlp,
  "resnet18": resnet.resnet18,
  "resnet34": resnet.resnet34,
  "resnet50": resnet.resnet50,
  "resnet_patch": resnet.resnet_patch,
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
