"""Random subset: one uniform draw before training, kept throughout. What a static coreset has to beat.

`N` is the number of training samples.
"""

from typing import NamedTuple

import jax
from jax import Array

from dynsel_jax.selectors import ranking
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["RandomStaticState", "random_static"]


class RandomStaticState(NamedTuple):
  """The subset."""

  keep: Array  # [N] bool


def random_static(table: SampleTable, epochs: int, *, keep_fraction: float = 0.3) -> Selector:
  """Trains on the same uniformly drawn share of samples in every epoch.

  Args:
    table: the training set, N samples.
    epochs: unused.
    keep_fraction: share of the training set kept, in (0, 1].

  Raises:
    UserError: a fraction lies outside its range.
  """
  del epochs
  ranking.check_fraction("keep_fraction", keep_fraction)
  num_samples = table.labels.shape[0]

  def init(key: Array) -> RandomStaticState:
    count = ranking.budget(keep_fraction, num_samples)
    return RandomStaticState(keep=ranking.uniform_subset(key, num_samples, count))

  def select(key: Array, state: RandomStaticState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del epoch
    _, order_key = jax.random.split(key)
    return ranking.visiting_order(order_key, state.keep), {}

  def observe(state: RandomStaticState, signals: Signals) -> RandomStaticState:
    del signals
    return state

  return Selector(init, select, observe)
