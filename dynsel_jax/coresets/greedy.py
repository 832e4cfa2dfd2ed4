"""Herding and k-center: greedy choices that pick one sample after another. Pure and jit-able.

Each pick costs one product of the features with a vector, O(N D); memory is that of a second copy of the features.
Distances come from the expanded square of centred features, so that distances below about 1e-3 of a feature's norm
round to 0. Ties go to the lowest index. Features come from a proxy or a pretrained model on clean views; a row that is
not finite is never picked. To choose by class, call once per class with `where=labels == label`.

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
  """Picks samples so that the mean of the picked features stays close to the mean of all features.

  After i picks with the sum s, the next pick minimises |(i + 1) m - s - x| over the remaining rows x, with the mean m:
  Welling, "Herding Dynamical Weights to Learn", ICML 2009, as used by Rebuffi et al., arXiv 1611.07725. DeepCore (arXiv
  2204.08499) maximises this norm instead, and so picks outliers.

  Args:
    features: `[N, D]` float32.
    count: number of samples to pick.
    where: `[N]` bool, the samples to choose from; all if not given.

  Returns:
    `[count]` int32, indices in the order of picking; -1 once no sample is left.
  """
  centred, free = _centred(features, where)
  squared = jnp.sum(jnp.square(centred), axis=1)

  def pick(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    order, free, total = carry
    # |total + x|^2 without the term common to all rows; the total of the centred picks is s - i m.
    objective = squared + 2.0 * _product(centred, total)
    chosen = jnp.argmin(jnp.where(free, objective, jnp.inf)).astype(jnp.int32)
    order = order.at[i].set(jnp.where(jnp.any(free), chosen, -1))
    return order, free.at[chosen].set(False), total + centred[chosen]

  start = (jnp.full(count, -1, jnp.int32), free, jnp.zeros_like(centred[0]))
  order, _, _ = jax.lax.fori_loop(0, count, pick, start)
  return order


@functools.partial(jax.jit, static_argnames="count")
def k_center(features: Array, count: int, first: Array | int, where: Array | None = None) -> Array:
  """Repeatedly picks the sample with the largest Euclidean distance to the nearest picked sample.

  The greedy 2-approximation of k-center: Sener and Savarese, arXiv 1708.00489, Algorithm 1.

  Args:
    features: `[N, D]` float32.
    count: number of samples to pick.
    first: index of the first pick, commonly random; if `where` excludes it, the lowest index that may be picked.
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
  """Returns the features, centred over the rows to choose from and 0 in the others, and the mask of those rows."""
  features = features.astype(jnp.float32)
  free = jnp.all(jnp.isfinite(features), axis=1)
  free = free if where is None else free & where
  kept = jnp.where(free[:, None], features, 0.0)
  mean = jnp.sum(kept, axis=0) / jnp.maximum(jnp.sum(free), 1).astype(jnp.float32)
  return jnp.where(free[:, None], kept - mean[None, :], 0.0), free


def _product(matrix: Array, vector: Array) -> Any:
  """Multiplies in full float32; a GPU would otherwise round the factors to 10 bits."""
  return jnp.matmul(matrix, vector, precision=jax.lax.Precision.HIGHEST)
