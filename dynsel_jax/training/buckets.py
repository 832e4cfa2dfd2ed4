"""Batches of texts of similar length, truncated to one of a few static lengths. Pure and jit-able.

All texts of a data set are padded to the longest one, and most are much shorter. So the plan of an epoch is grouped by
length, and each step computes on no more tokens than the longest text of its global batch has. The length is one of a
few that are compiled into a single program. Every device reads it from the same plan, so that all take the same branch.

`N` is the number of training samples, `B` the global batch size, `b` the number of rows on one device, `L` the number
of tokens to which all texts are padded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax import batching
from dynsel_jax.data.gather import Batch
from dynsel_jax.types import Plan, Selection

__all__ = ["Buckets", "Cut", "cutting", "group", "of_rows", "shuffle_batches"]


# Calls a function without collectives on a batch whose inputs `[b, L]` are truncated to the step's length.
Cut = Callable[[Callable[[Batch], Any], Batch], Any]


class Buckets(NamedTuple):
  """The lengths to which texts are truncated."""

  lengths: tuple[int, ...]  # ascending, the last is L
  pad_id: int


def of_rows(buckets: Buckets, inputs: Array) -> Array:
  """Returns the bucket of each row of token ids `[..., L]`, `[...]` int32: the shortest length that fits, by place."""
  count = jnp.sum(inputs != buckets.pad_id, axis=-1, dtype=jnp.int32)
  return jnp.searchsorted(jnp.array(buckets.lengths, jnp.int32), count, method="compare_all").astype(jnp.int32)


def group(plan: Plan, bucket: Array) -> Plan:
  """Sorts a plan by the samples' buckets `[N]` int32; samples of one bucket keep their order."""
  place = jnp.arange(plan.indices.shape[0], dtype=jnp.int32)
  bucket_at_place = jnp.where(place < plan.size, bucket[jnp.maximum(plan.indices, 0)], jnp.iinfo(jnp.int32).max)
  return _reorder(plan, jnp.argsort(bucket_at_place, stable=True))


def shuffle_batches(key: Array, plan: Plan, batch_size: Array | int) -> Plan:
  """Shuffles the full batches of a plan; a partial batch stays last."""
  place = jnp.arange(plan.indices.shape[0], dtype=jnp.int32)
  batch, full = place // batch_size, plan.size // batch_size
  most = -(-place.shape[0] // batch_size) if isinstance(batch_size, int) else place.shape[0]
  numbers = jnp.arange(most, dtype=jnp.int32)
  order = batching.order(key, Selection(keep=numbers < full)).indices
  source = jnp.where(batch < full, order[batch] * batch_size + place % batch_size, place)
  return _reorder(plan, source)


def _reorder(plan: Plan, source: Array) -> Plan:
  """Gathers the entries of a plan at the places `source` `[N]` int32."""
  return plan._replace(indices=plan.indices[source], weights=plan.weights[source])


def cutting(buckets: Buckets | None, dataset: Any, index: Array) -> Cut:
  """Returns a function that runs a step's model on no more tokens than its batch needs.

  Args:
    buckets: None if all inputs have one length, so that nothing is truncated.
    dataset: the whole data set, with inputs `[N, L]` int32; not read without buckets.
    index: `[B]` int32, the samples of the global batch, the same on every device; -1 is padding.
  """
  if buckets is None:
    return lambda function, batch: function(batch)
  row_buckets = of_rows(buckets, dataset["inputs"][jnp.maximum(index, 0)])
  bucket = jnp.max(jnp.where(index >= 0, row_buckets, 0))

  def cut(function: Callable[[Batch], Any], batch: Batch) -> Any:
    def branch(length: int) -> Callable[[Batch], Any]:
      return lambda batch: function({**batch, "inputs": batch["inputs"][:, :length]})

    return jax.lax.switch(bucket, [branch(length) for length in buckets.lengths], batch)

  return cut
