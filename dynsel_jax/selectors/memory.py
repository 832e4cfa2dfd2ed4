"""Per-sample state, and masked scatter updates for `observe`. Pure and jit-able.

A step's rows may be padding, and a batch may be observed twice, for example after a restart. `scatter` drops padding;
`first_this_epoch` marks the rows that have not been counted or averaged in this epoch yet.

`N` is the number of training samples, `B` the global batch size.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.types import Signals

__all__ = ["EmptyState", "Usage", "count_visits", "empty_usage", "first_this_epoch", "gather", "scatter"]


class EmptyState(NamedTuple):
  """The state of a selector that remembers nothing."""


class Usage(NamedTuple):
  """How often each sample was trained on, at most one visit an epoch."""

  visits: Array  # [N] int32
  last_epoch: Array  # [N] int32, epoch of the last visit, -1 before the first


def gather(values: Array, signals: Signals) -> Array:
  """Returns the values of the batch's samples, `[B]`; a row of padding gets the value of sample 0."""
  return values[jnp.maximum(signals.index, 0)]


def scatter(values: Array, signals: Signals, new: Array, where: Array | None = None) -> Array:
  """Replaces the values of the batch's samples.

  Args:
    values: `[N]`.
    signals: the signals of the step.
    new: `[B]` or `[]`, cast to the type of `values`.
    where: `[B]` bool, the rows to write; by default all rows that are not padding.

  Returns:
    `[N]`, of the type of `values`.
  """
  row = signals.index >= 0 if where is None else (signals.index >= 0) & where
  position = jnp.where(row, signals.index, values.shape[0])
  return values.at[position].set(jnp.broadcast_to(new, position.shape).astype(values.dtype), mode="drop")


def first_this_epoch(last_epoch: Array, signals: Signals) -> Array:
  """Marks the rows whose sample has not been recorded in this epoch yet, `[B]` bool; padding is never marked.

  Args:
    last_epoch: `[N]` int32, the epoch in which each sample was last recorded, -1 if never.
    signals: the signals of the step.
  """
  return (signals.index >= 0) & (gather(last_epoch, signals) < signals.epoch)


def empty_usage(n: int) -> Usage:
  """Returns the usage before training."""
  return Usage(visits=jnp.zeros(n, jnp.int32), last_epoch=jnp.full(n, -1, jnp.int32))


def count_visits(usage: Usage, signals: Signals) -> Usage:
  """Adds one visit for each sample that the step trained on, unless this epoch's visit is already counted."""
  new = first_this_epoch(usage.last_epoch, signals) & signals.trained
  return Usage(
    visits=scatter(usage.visits, signals, gather(usage.visits, signals) + 1, new),
    last_epoch=scatter(usage.last_epoch, signals, signals.epoch, new),
  )
