"""Full data: plain training, the baseline of every method.

`N` is the number of training samples.
"""

from jax import Array

from dynsel_jax.selectors.memory import EmptyState
from dynsel_jax.selectors.wrappers.full_data import everything
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["full"]


def full(table: SampleTable, epochs: int) -> Selector:
  """Trains on every sample in every epoch.

  Args:
    table: the training set, N samples.
    epochs: unused.
  """
  del epochs

  def init(key: Array) -> EmptyState:
    del key
    return EmptyState()

  def select(key: Array, state: EmptyState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del key, state, epoch
    return everything(table.num_samples), {}

  def observe(state: EmptyState, signals: Signals) -> EmptyState:
    del signals
    return state

  return Selector(init, select, observe)
