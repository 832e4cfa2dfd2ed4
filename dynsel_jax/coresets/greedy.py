"""Herding and k-center: picks one sample after another by what was picked before. Pure and jit-able.

Each pick costs one product of the features with a vector, O(N D), and the memory is that of a second copy of the
features. Distances come from the expanded square of centred features, so that one below about 1e-3 of a feature's norm
is not told from 0. Of equals the sample with the lowest index is picked. Features are those of a proxy model or of a
pretrained one, of clean views; a row that is not finite is never picked. For a choice by class, call once a class with
`where=labels == label`.

`N` is the number of training samples, `D` the width of the features.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["herding", "k_center"]


@functools.partial(jax.jit, static_argnames="count")
def herding(features: Array, count: int, where: Array | None = None) -> Array:
  """Picks samples so that the mean feature of the picked stays near the mean of all.

  After i picks that sum to s, the next minimises |(i + 1) m - s - x| over the free rows x, with the mean m: Welling,
  "Herding Dynamical Weights to Learn", ICML 2009, as Rebuffi et al., arXiv 1611.07725, use it. DeepCore (arXiv
  2204.08499) takes the largest of these norms instead of the smallest, and so the outliers.

  Args:
    features: `[N, D]` float32.
    count: how many to pick.
    where: `[N]` bool, the samples to choose from; all if not given.

  Returns:
    `[count]` int32, indices in the order of picking; -1 once no sample is left.
  """
  centred, free = _centred(features, where)
  squared = jnp.sum(jnp.square(centred), axis=1)

  def pick(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    order, free, total = carry
    # |total + x|^2 without the part that all rows share; the total of centred rows is s - i m.
    objective = squared + 2.0 * _product(centred, total)
    chosen = jnp.argmin(jnp.where(free, objective, jnp.inf)).astype(jnp.int32)
    order = order.at[i].set(jnp.where(jnp.any(free), chosen, -1))
    return order, free.at[chosen].set(False), total + centred[chosen]

  start = (jnp.full(count, -1, jnp.int32), free, jnp.zeros_like(centred[0]))
  order, _, _ = jax.lax.fori_loop(0, count, pick, start)
  return order


@functools.partial(jax.jit, static_argnames="count")
def k_center(features: Array, count: int, first: Array | int, where: Array | None = None) -> Array:
  """Picks again and again the sample that lies farthest from all picked ones, in Euclidean distance.

  The greedy 2-approximation of k-center: Sener and Savarese, arXiv 1708.00489, Algorithm 1.

  Args:
    features: `[N, D]` float32.
    count: how many to pick.
    first: index of the first pick, commonly random; where it may not be chosen, the first index that may be.
    where: `[N]` bool, the samples to choose from; all if not given.

  Returns:
    `[count]` int32, indices in the order of picking; -1 once no sample is left.
  """
  centred, free = _centred(features, where)
  squared = jnp.sum(jnp.square(centred), axis=1)

  def pick(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
    order, nearest = carry
    chosen = jnp.argmax(nearest).astype(jnp.int32)
    order = order.at[i].set(jnp.where(nearest[chosen] >= 0, chosen, -1))
    distance = squared + squared[chosen] - 2.0 * _product(centred, centred[chosen])
    nearest = jnp.minimum(nearest, jnp.maximum(distance, 0.0)).at[chosen].set(-jnp.inf)
    return order, nearest

  is_first = jnp.arange(free.shape[0]) == first
  nearest = jnp.where(free, jnp.where(is_first, jnp.inf, jnp.finfo(jnp.float32).max), -jnp.inf)
  order, _ = jax.lax.fori_loop(0, count, pick, (jnp.full(count, -1, jnp.int32), nearest))
  return order


def _centred(features: Array, where: Array | None) -> tuple[Array, Array]:
  """Returns features less the mean of the rows to choose from, 0 in the others, and which those rows are."""
  features = features.astype(jnp.float32)
  free = jnp.all(jnp.isfinite(features), axis=1)
  free = free if where is None else free & where
  kept = jnp.where(free[:, None], features, 0.0)
  mean = jnp.sum(kept, axis=0) / jnp.maximum(jnp.sum(free), 1).astype(jnp.float32)
  return jnp.where(free[:, None], kept - mean[None, :], 0.0), free


def _product(matrix: Array, vector: Array) -> Any:
  """In full float32: a GPU would round the factors to 10 bits."""
  return jnp.matmul(matrix, vector, precision=jax.lax.Precision.HIGHEST)
