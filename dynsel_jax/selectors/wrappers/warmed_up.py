"""A wrapper that trains on the full data until every sample has been seen.

`N` is the number of training samples.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import memory
from dynsel_jax.selectors.wrappers.full_data import Selected, lift, select_unless
from dynsel_jax.types import SampleTable, Selector, SelectorState, Signals

__all__ = ["WarmedUpState", "warmed_up"]


class WarmedUpState(NamedTuple):
  """The state of the wrapped selector, and which samples have been observed."""

  inner: SelectorState
  seen: Array  # [N] bool


def warmed_up(selector: Selector, table: SampleTable, epochs: int) -> Selector:
  """Trains on the full data until every sample has been observed once.

  Args:
    selector: decides the epochs after that. It observes every epoch.
    table: the training set, N samples.
    epochs: unused.
  """
  del epochs

  def init(key: Array) -> WarmedUpState:
    return WarmedUpState(inner=selector.init(key), seen=jnp.zeros(table.num_samples, bool))

  def select(key: Array, state: WarmedUpState, epoch: Array) -> Selected:
    return select_unless(~jnp.all(state.seen), selector, key, state.inner, epoch)

  def observe(state: WarmedUpState, signals: Signals) -> WarmedUpState:
    return WarmedUpState(
      inner=selector.observe(state.inner, signals), seen=memory.scatter(state.seen, signals, jnp.bool_(True))
    )

  first, last = selector.full_epochs
  return lift(selector, init, select, observe)._replace(full_epochs=(max(1, first), last))
