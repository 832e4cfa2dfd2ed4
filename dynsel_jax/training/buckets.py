"""Batches of texts of similar length, cut to one of a few static lengths. Pure and jit-able.

The texts of a set are padded to the longest, and most are much shorter. The plan of an epoch is grouped by length, and
a step computes on no more tokens than the longest text of its global batch needs. The length is one of a fixed few, so
that a single program holds them all; every device reads it off the same plan and so takes the same.

`N` is the number of training samples, `B` the global batch size, `b` the rows of one device, `L` the number of tokens
that the set is padded to.
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


# Calls a function without collectives on a batch whose inputs `[b, L]` are cut to the step's length.
Cut = Callable[[Callable[[Batch], Any], Batch], Any]


class Buckets(NamedTuple):
  """The lengths that texts are cut to."""

  lengths: tuple[int, ...]  # ascending, the last is L
  pad_id: int


def of_rows(buckets: Buckets, inputs: Array) -> Array:
  """Returns the bucket of token ids `[..., L]`: the number of the shortest length that holds them, `[...]` int32."""
  count = jnp.sum(inputs != buckets.pad_id, axis=-1, dtype=jnp.int32)
  return jnp.searchsorted(jnp.array(buckets.lengths, jnp.int32), count, method="compare_all").astype(jnp.int32)


def group(plan: Plan, bucket: Array) -> Plan:
  """Sorts a plan by its samples' buckets `[N]`; the samples of one bucket keep their order."""
  place = jnp.arange(plan.indices.shape[0], dtype=jnp.int32)
  bucket_at_place = jnp.where(place < plan.size, bucket[jnp.maximum(plan.indices, 0)], jnp.iinfo(jnp.int32).max)
  return _reorder(plan, jnp.argsort(bucket_at_place, stable=True))


def shuffle_batches(key: Array, plan: Plan, batch_size: int) -> Plan:
  """Visits the full batches of a plan in random order; a last, partial batch stays last."""
  place = jnp.arange(plan.indices.shape[0], dtype=jnp.int32)
  batch, full = place // batch_size, plan.size // batch_size
  numbers = jnp.arange(-(-place.shape[0] // batch_size), dtype=jnp.int32)
  order = batching.order(key, Selection(keep=numbers < full)).indices
  source = jnp.where(batch < full, order[batch] * batch_size + place % batch_size, place)
  return _reorder(plan, source)


def _reorder(plan: Plan, source: Array) -> Plan:
  """Moves to each place of a plan the entry at `source` `[N]`."""
  return plan._replace(indices=plan.indices[source], weights=plan.weights[source])


def cutting(buckets: Buckets | None, dataset: Any, index: Array) -> Cut:
  """Returns the function that runs a step's model on no more tokens than its batch needs.

  Args:
    buckets: None where all inputs are of one length: nothing is cut.
    dataset: the whole set, with inputs `[N, L]` int32; not read where nothing is cut.
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
