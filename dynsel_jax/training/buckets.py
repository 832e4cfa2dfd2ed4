"""Texts of similar length in a batch, and a batch cut to one of a few static lengths. Pure and jit-able.

A set's texts are padded to its longest, and most are much shorter. An epoch's plan is grouped by length, and a step
computes on no more tokens than the longest text of its global batch needs. The length is one of a fixed few, so that
one program has them all; and as all devices read it off the same plan, they take the same.

`N` is the number of training samples, `B` the global batch size, `b` a device's share of it, `L` the number of tokens
that a set is padded to.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import ranking
from dynsel_jax.types import Selection

__all__ = ["Buckets", "Cut", "cutting", "grouped", "of_rows", "shuffled"]


# Calls a function, in which there must be no collective, on inputs `[b, L]` cut to a step's length.
Cut = Callable[[Callable[[Array], Any], Array], Any]


class Buckets(NamedTuple):
  """The lengths that texts are cut to."""

  lengths: tuple[int, ...]  # ascending, the last is L
  pad_id: int


def of_rows(buckets: Buckets, inputs: Array) -> Array:
  """Returns for token ids `[..., L]` the number of the shortest length that holds them, `[...]` int32."""
  count = jnp.sum(inputs != buckets.pad_id, axis=-1, dtype=jnp.int32)
  return jnp.searchsorted(jnp.array(buckets.lengths, jnp.int32), count, method="compare_all").astype(jnp.int32)


def grouped(plan: Selection, bucket: Array) -> Selection:
  """Sorts a plan by its samples' buckets `[N]`; those of one bucket stay in the order in which they came."""
  place = jnp.arange(plan.indices.shape[0], dtype=jnp.int32)
  of_place = jnp.where(place < plan.size, bucket[jnp.maximum(plan.indices, 0)], jnp.iinfo(jnp.int32).max)
  return _reordered(plan, jnp.argsort(of_place, stable=True))


def shuffled(key: Array, plan: Selection, batch_size: int) -> Selection:
  """Visits the full batches of a plan in random order; what follows them stays where it is."""
  place = jnp.arange(plan.indices.shape[0], dtype=jnp.int32)
  batch, full = place // batch_size, plan.size // batch_size
  numbers = jnp.arange(-(-place.shape[0] // batch_size), dtype=jnp.int32)
  order = ranking.visiting_order(key, numbers < full).indices
  source = jnp.where(batch < full, order[batch] * batch_size + place % batch_size, place)
  return _reordered(plan, source)


def _reordered(plan: Selection, source: Array) -> Selection:
  """Moves to each place of a plan what is at `source` `[N]`."""
  return plan._replace(indices=plan.indices[source], weights=plan.weights[source])


def cutting(buckets: Buckets | None, inputs: Array, index: Array) -> Cut:
  """Returns what runs a step's model on no more tokens than its batch needs.

  Args:
    buckets: None where all inputs are of one length: nothing is cut.
    inputs: `[N, L]` int32, those of the whole set.
    index: `[B]` int32, the samples of the global batch, the same on every device; -1 is padding.
  """
  if buckets is None:
    return lambda function, rows: function(rows)
  row_buckets = of_rows(buckets, inputs[jnp.maximum(index, 0)])
  bucket = jnp.max(jnp.where(index >= 0, row_buckets, 0))

  def cut(function: Callable[[Array], Any], rows: Array) -> Any:
    def branch(length: int) -> Callable[[Array], Any]:
      return lambda rows: function(rows[:, :length])

    return jax.lax.switch(bucket, [branch(length) for length in buckets.lengths], rows)

  return cut
