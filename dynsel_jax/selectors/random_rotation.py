"""Random rotation: a fresh uniform subset each epoch, in the tables of arXiv 2603.04981 the dynamic "Random*".

`N` is the number of training samples.
"""

import jax
from jax import Array

from dynsel_jax.selectors import ranking
from dynsel_jax.selectors.memory import EmptyState
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["random_rotation"]


def random_rotation(table: SampleTable, epochs: int, *, keep_fraction: float = 0.3) -> Selector:
  """Trains on a share of samples that is drawn anew, uniformly and without repeats, for each epoch.

  Args:
    table: the training set, N samples.
    epochs: unused.
    keep_fraction: share of the training set kept each epoch, in (0, 1].

  Raises:
    UserError: a fraction lies outside its range.
  """
  del epochs
  ranking.check_fraction("keep_fraction", keep_fraction)
  num_samples = table.labels.shape[0]

  def init(key: Array) -> EmptyState:
    del key
    return EmptyState()

  def select(key: Array, state: EmptyState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del state, epoch
    draw_key, order_key = jax.random.split(key)
    keep = ranking.uniform_subset(draw_key, num_samples, ranking.budget(keep_fraction, num_samples))
    return ranking.visiting_order(order_key, keep), {}

  def observe(state: EmptyState, signals: Signals) -> EmptyState:
    del signals
    return state

  return Selector(init, select, observe)
