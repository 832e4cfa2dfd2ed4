"""From a selection to batches: the visiting order of an epoch, its slices, and the loss of a step. Pure and jit-able.

The full permutation is shuffled first and filtered by membership afterwards. So keeping everything reproduces plain
training bit for bit, and two kept samples come in the same order whatever else is kept.

`N` is the number of training samples, `B` the global batch size, `b` the rows of one shard of it.
"""

import enum
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import permutation
from dynsel_jax.types import Plan, Selection, Signals

__all__ = [
  "Purpose",
  "batch_of",
  "empty_plan",
  "epoch_keys",
  "key_of",
  "loss_scale",
  "order",
  "signals",
  "weighted_mean",
]


class Purpose(enum.IntEnum):
  """Folded into the key of an epoch, so that two uses never share random bits."""

  SELECT = 0
  AUGMENT = 1
  THIN = 2
  DROPOUT = 3
  BATCHES = 4


def key_of(key: Array, epoch: Array | int, purpose: Purpose) -> Array:
  """Returns the key of one use in an epoch, counted from 0, from the key of the run."""
  return jax.random.fold_in(jax.random.fold_in(key, epoch), purpose)


def epoch_keys(key: Array, epoch: Array) -> tuple[Array, Array]:
  """Returns the keys of one epoch for a selector's `select` and for `order`.

  Args:
    key: of the run; it may be used for every epoch.
    epoch: `[]` int32, counted from 0.
  """
  select_key, order_key = jax.random.split(key_of(key, epoch, Purpose.SELECT))
  return select_key, order_key


def order(key: Array, selection: Selection) -> Plan:
  """Shuffles the kept samples.

  Args:
    key: consumed; it alone decides which of two kept samples comes first.
    selection: the samples, and their loss weights.

  Returns:
    The plan of the epoch, every field an array.
  """
  keep, weights = selection.keep, selection.weights
  n = keep.shape[0]
  candidates = permutation.shuffled_candidates(key, n)
  member = (candidates < n) & keep[jnp.minimum(candidates, n - 1)]
  indices, size = permutation.compact(candidates, member, n)
  taken = jnp.arange(n, dtype=jnp.int32) < size
  if weights is None:
    return Plan(indices, taken.astype(jnp.float32), size)
  return Plan(indices, jnp.where(taken, weights[jnp.maximum(indices, 0)].astype(jnp.float32), jnp.float32(0)), size)


def empty_plan(num_samples: int) -> Plan:
  """Returns a plan that visits none of the N samples."""
  return Plan(jnp.full(num_samples, -1, jnp.int32), jnp.zeros(num_samples, jnp.float32), jnp.int32(0))


def batch_of(
  plan: Plan, step: Array, batch_size: int, *, shard: Array | int = 0, num_shards: int = 1
) -> tuple[Array, Array]:
  """Slices one batch, or one shard of it, out of a plan.

  Args:
    plan: from `order`.
    step: `[]` int32, the step within the epoch, counted from 0.
    batch_size: B, over all shards.
    shard: `[]` int32, which shard of the batch; the shards are contiguous.
    num_shards: a divisor of B.

  Returns:
    Sample indices `[b]` int32, -1 behind the end of the plan, and loss weights `[b]` float32, 0 there.
  """
  rows = batch_size // num_shards
  slots = step * batch_size + shard * rows + jnp.arange(rows, dtype=jnp.int32)
  index = plan.indices.at[slots].get(mode="fill", fill_value=-1)
  return index, plan.weights.at[slots].get(mode="fill", fill_value=0.0)


def loss_scale(
  index: Array,
  weights: Array,
  loss_normalization: str,
  total: Callable[[Array], Array] = lambda x: x,
  row_weights: Array | None = None,
) -> Array:
  """Returns the factors `[b]` float32 whose dot product with the losses of the samples is the loss of a step.

  Args:
    index: `[b]` int32, -1 on padding; its factor is 0.
    weights: `[b]` float32, loss weights.
    loss_normalization: "weight_sum" divides by the sum of the batch's weights, "batch_size" by its number of samples.
    total: sums a scalar over the shards of the batch, by default one shard.
    row_weights: `[b]` float32, for how many samples each row counts, such as tokens; by default one.
  """
  valid = index >= 0
  counts = valid.astype(jnp.float32)
  weights = jnp.where(valid, weights, 0.0)
  if row_weights is not None:
    counts, weights = counts * row_weights, weights * row_weights
  divisor = total(jnp.sum(weights if loss_normalization == "weight_sum" else counts))
  return weights / jnp.maximum(divisor, jnp.finfo(jnp.float32).tiny)


def weighted_mean(losses: Array, weights: Array, index: Array, *, loss_normalization: str = "weight_sum") -> Array:
  """Returns the loss of a step, `[]` float32, from the losses of its samples.

  Args:
    losses: `[B]` float32; rows of padding are left out, whatever they hold.
    weights: `[B]` float32, from `batch_of`; for a thinned batch, times those of `thin`.
    index: `[B]` int32, -1 on padding.
    loss_normalization: the selector's.
  """
  return jnp.sum(jnp.where(index >= 0, losses, 0.0) * loss_scale(index, weights, loss_normalization))


def signals(index: Array, loss: Array, epoch: Array, *, trained: Array | None = None, **extras: Array) -> Signals:
  """Returns the signals of a step for a selector's `observe`.

  Args:
    index: `[B]` int32, -1 on padding.
    loss: `[B]` float32.
    epoch: `[]` int32, counted from 0.
    trained: `[B]` bool, the samples that had a backward pass; all that are not padding by default.
    **extras: `[B]` each, further signals that the selector reads.
  """
  trained = index >= 0 if trained is None else trained
  return Signals(index=index, loss=loss, trained=trained, epoch=jnp.asarray(epoch, jnp.int32), extras=extras)
