"""A wrapper that trains on the full data in the first and the last epochs.

An epoch on the full data is that of `full`, bit for bit: weight 1, not thinned, learning rate as scheduled.

`N` is the number of training samples.
"""

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import check_fraction
from dynsel_jax.selectors.ranking import budget
from dynsel_jax.selectors.wrappers.full_data import Selected, select_unless
from dynsel_jax.types import SampleTable, Selector, SelectorState

__all__ = ["annealed"]


def annealed(
  selector: Selector, table: SampleTable, epochs: int, *, first: float = 0.0, last: float = 0.15
) -> Selector:
  """Trains on the full data in the first and the last fraction of the epochs.

  With epochs t counted from 1 to T, the full data is taken where t <= first T or t > (1 - last) T: floor(first T)
  epochs at the start and ceil(last T) at the end.

  Args:
    selector: decides the other epochs. It observes every epoch.
    table: the training set, N samples.
    epochs: of the run, T.
    first: fraction of the epochs, in [0, 1].
    last: fraction of the epochs, in [0, 1].

  Raises:
    UserError: a fraction lies outside its range.
  """
  check_fraction("first", first, zero=True)
  check_fraction("last", last, zero=True)
  begin = budget(first, epochs, least=0)
  end = budget(1.0 - last, epochs, least=0)

  def is_full(epoch: Array) -> Array:
    return (epoch < begin) | (epoch >= end)  # epochs counted from 0

  def select(key: Array, state: SelectorState, epoch: Array) -> Selected:
    return select_unless(is_full(epoch), selector, key, state, epoch)

  def refresh(state: SelectorState, epoch: Array) -> Array:
    assert selector.refresh is not None
    inner = selector.refresh
    return jax.lax.cond(is_full(epoch), lambda: jnp.zeros(table.num_samples, bool), lambda: inner(state, epoch))

  first_full, last_full = selector.full_epochs
  return selector._replace(
    select=select,
    refresh=None if selector.refresh is None else refresh,
    full_epochs=(max(begin, first_full), max(epochs - end, last_full)),
  )
