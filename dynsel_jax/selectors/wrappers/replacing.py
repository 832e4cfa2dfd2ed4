"""Replaces some samples of a selection, for `class_balanced` and `noise_guarded`. Pure and jit-able.

`N` is the number of training samples.
"""

import jax.numpy as jnp
from jax import Array

from dynsel_jax.types import Selection

__all__ = ["replace_samples"]


def replace_samples(selection: Selection, keep: Array) -> Selection:
  """Keeps the samples of `keep` `[N]` bool in place of those of `selection`.

  A sample of both keeps its loss weight; a newcomer gets the mean weight of `selection`.
  """
  if selection.weights is None:
    return selection._replace(keep=keep)
  size = jnp.maximum(jnp.sum(selection.keep), 1).astype(jnp.float32)
  mean = jnp.sum(jnp.where(selection.keep, selection.weights, 0.0)) / size
  return selection._replace(keep=keep, weights=jnp.where(selection.keep, selection.weights, mean))
