"""Multilayer perceptron: the smallest model, for tests and for data other than images. `B` is the batch size."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dynsel_jax.options import UserError

__all__ = ["MLP", "mlp"]


class MLP(nn.Module):
  """Hidden layers with ReLU and a linear head; without normalisation, so that no operation mixes samples."""

  num_outputs: int
  hidden: tuple[int, ...] = (128, 128)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, inputs: Array, valid: Array, *, train: bool) -> tuple[Array, dict[str, Array]]:
    """Maps inputs `[B, ...]` to outputs `[B, num_outputs]` and the intermediates "hidden_1", ..., "features"."""
    del valid, train
    intermediates = {}
    x = inputs.reshape((inputs.shape[0], math.prod(inputs.shape[1:]))).astype(self.dtype)
    for layer, width in enumerate(self.hidden, start=1):
      x = nn.relu(nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.he_normal())(x))
      intermediates[f"hidden_{layer}"] = x
    intermediates["features"] = x = x.astype(jnp.float32)
    return nn.Dense(self.num_outputs, name="head")(x), intermediates


def mlp(num_outputs: int, dtype: Any, axis_name: str | None, *, hidden: tuple[int, ...] = (128, 128)) -> MLP:
  """Returns a perceptron with hidden layers of the widths `hidden`; `()` gives a linear model."""
  del axis_name
  if any(width < 1 for width in hidden):
    raise UserError(f"model.hidden={tuple(hidden)} must contain widths of at least 1")
  return MLP(num_outputs, tuple(hidden), dtype)
