"""Random rotation: a fresh uniform subset each epoch; the dynamic "Random*" in the tables of arXiv 2603.04981.

`N` is the number of training samples.
"""

from jax import Array

from dynsel_jax.selectors import ranking
from dynsel_jax.selectors.memory import EmptyState
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["random_rotation"]


def random_rotation(table: SampleTable, epochs: int, *, keep_fraction: float = 0.3) -> Selector:
  """Trains on a fraction of the samples that is redrawn, uniformly and without repeats, for each epoch.

  Args:
    table: the training set, N samples.
    epochs: unused.
    keep_fraction: fraction of the training set kept each epoch, in (0, 1].

  Raises:
    UserError: a fraction lies outside its range.
  """
  del epochs
  count = ranking.keep_count(keep_fraction, table.num_samples)

  def init(key: Array) -> EmptyState:
    del key
    return EmptyState()

  def select(key: Array, state: EmptyState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del state, epoch
    return Selection(keep=ranking.uniform_subset(key, table.num_samples, count)), {}

  def observe(state: EmptyState, signals: Signals) -> EmptyState:
    del signals
    return state

  return Selector(init, select, observe)
