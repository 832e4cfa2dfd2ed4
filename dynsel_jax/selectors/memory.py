"""What a selector remembers of each sample, and how `observe` writes it down. Pure and jit-able.

A step's rows may be padding, and a batch may be observed twice, as after a restart. `written` lets padding fall off
the end; `is_new` tells which rows would otherwise be counted or averaged a second time.

`N` is the number of training samples, `B` the global batch size.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.types import Signals

__all__ = ["EmptyState", "Usage", "counted", "is_new", "no_usage", "read", "written"]


class EmptyState(NamedTuple):
  """The state of a selector that remembers nothing."""


class Usage(NamedTuple):
  """How often each sample was trained on, at most one visit an epoch."""

  visits: Array  # [N] int32
  last_epoch: Array  # [N] int32, -1 until the first visit


def read(values: Array, signals: Signals) -> Array:
  """Returns the values of the batch's samples, `[B]`; a row of padding gets that of sample 0."""
  return values[jnp.maximum(signals.index, 0)]


def written(values: Array, signals: Signals, new: Array, where: Array | None = None) -> Array:
  """Replaces the values of the batch's samples.

  Args:
    values: `[N]`.
    signals: what the step saw.
    new: `[B]` or `[]`, cast to the type of `values`.
    where: `[B]` bool, the rows to write; all that are no padding if not given.

  Returns:
    `[N]`, of the type of `values`.
  """
  row = signals.index >= 0 if where is None else (signals.index >= 0) & where
  position = jnp.where(row, signals.index, values.shape[0])
  return values.at[position].set(jnp.broadcast_to(new, position.shape).astype(values.dtype), mode="drop")


def is_new(last_epoch: Array, signals: Signals) -> Array:
  """Tells which rows hold a sample not yet written down in this epoch, `[B]` bool; padding is never new.

  Args:
    last_epoch: `[N]` int32, the epoch in which each sample was last written down, -1 if never.
    signals: what the step saw.
  """
  return (signals.index >= 0) & (read(last_epoch, signals) < signals.epoch)


def no_usage(n: int) -> Usage:
  """Returns the usage before training."""
  return Usage(visits=jnp.zeros(n, jnp.int32), last_epoch=jnp.full(n, -1, jnp.int32))


def counted(usage: Usage, signals: Signals) -> Usage:
  """Adds one visit for each sample that the step trained on, unless this epoch's visit is counted already."""
  new = is_new(usage.last_epoch, signals) & signals.trained
  return Usage(
    visits=written(usage.visits, signals, read(usage.visits, signals) + 1, new),
    last_epoch=written(usage.last_epoch, signals, signals.epoch, new),
  )
