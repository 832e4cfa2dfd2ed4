"""A wrapper that replaces each loss by its rank among the losses of its class, before a selector reads it.

Losses of different sources differ severalfold, and a method that reads raw losses then mostly chooses by source (of
language models: before tuning, 0.9 nats a token for one kind of task and 9.3 for another). Ranks within the class, or
domain, are alike in all classes: a threshold, a quantile or a weight treats each class as it treats the others.

`N` is the number of training samples, `B` the global batch size.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import UserError
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.rho_loss import COLUMN
from dynsel_jax.selectors.wrappers.full_data import Selected, lift
from dynsel_jax.types import SampleTable, Selector, SelectorState, Signals

__all__ = ["RankedState", "rank_within", "ranked_by_class"]


class RankedState(NamedTuple):
  """The state of the wrapped selector, and the losses that ranks refer to."""

  inner: SelectorState
  loss: Array  # [N] float32, of the last epoch in which the sample was observed, NaN if never
  before: Array  # [N] float32, of the epoch before that, likewise
  last_epoch: Array  # [N] int32, of `loss`, -1 if never


def rank_within(loss: Array, group: Array, others: Array, other_group: Array) -> Array:
  """Returns the rank of each loss among those of its group, as a fraction in (0, 1), `[B]` float32.

  It is the fraction of `others` of the same group that are smaller, equal ones counting half. A loss that is not finite
  is returned as it is. Takes O((N + B) log B): each of the others is looked up in the sorted batch.

  Args:
    loss: `[B]` float32.
    group: `[B]` int32.
    others: `[N]` float32; those that are not finite do not count. Each group of `group` must have one that does.
    other_group: `[N]` int32.
  """
  order, size = jnp.lexsort((loss, group)), loss.shape[0]
  groups, losses = group[order], loss[order]  # by group, within it by loss, NaN last

  def count(begins: Callable[[Array, Array], Array]) -> Array:
    """Counts for each sorted loss the others for which `begins(group, loss)` is no longer true, `[B]` int32."""
    known = jnp.isfinite(others)
    length = jnp.zeros(others.shape, jnp.int32)  # of the beginning of the batch where it is true, by bisection
    for bit in reversed(range(size.bit_length())):
      longer = length + (1 << bit)
      last = jnp.minimum(longer, size) - 1
      length = jnp.where((longer <= size) & begins(groups[last], losses[last]), longer, length)
    return jnp.cumsum(jnp.zeros(size + 1, jnp.int32).at[jnp.where(known, length, size)].add(1))[:size]

  below = count(lambda group, loss: (group < other_group) | (group == other_group) & (loss <= others))
  up_to = count(lambda group, loss: (group < other_group) | (group == other_group) & (loss < others))
  in_earlier, in_own = count(lambda group, loss: group <= other_group), count(lambda group, loss: group < other_group)
  smaller, equal, total = (
    (a - b).astype(jnp.float32) for a, b in ((below, in_earlier), (up_to, below), (in_own, in_earlier))
  )
  rank = jnp.zeros(size, jnp.float32).at[order].set((smaller + 0.5 * equal) / jnp.maximum(total, 1.0))
  return jnp.where(jnp.isfinite(loss), rank, loss)


def ranked_by_class(selector: Selector, table: SampleTable, epochs: int) -> Selector:
  """Gives the inner selector ranks in (0, 1) for losses: the fraction of its class that a sample's loss exceeds.

  A loss is compared with the last losses of its class from the epochs before, and with those of its class in the same
  batch; in the first epoch the batch is all there is. So the order of an epoch's steps does not matter. A rank has no
  unit: what a selector makes of the losses' size, such as a threshold at their mean, it now makes of ranks, whose mean
  in each class is about 1/2. Other signals are passed on as they are.

  Args:
    selector: reads ranks as if they were losses, in `observe` and in `thin`.
    table: the training set, N samples.
    epochs: unused.

  Raises:
    UserError: the table has no labels, or the selector subtracts another loss, which has a unit.
  """
  del epochs
  if COLUMN in selector.reads:
    raise UserError(f"wrap=ranked_by_class gives ranks for losses, from which {COLUMN!r} in nats cannot be subtracted")
  labels, num_samples = ranking.class_layout(table).labels, table.num_samples

  def init(key: Array) -> RankedState:
    never = jnp.full(num_samples, jnp.nan, jnp.float32)
    return RankedState(selector.init(key), never, never, jnp.full(num_samples, -1, jnp.int32))

  def select(key: Array, state: RankedState, epoch: Array) -> Selected:
    return selector.select(key, state.inner, epoch)

  def ranked(state: RankedState, signals: Signals) -> Signals:
    reference = jnp.where(state.last_epoch < signals.epoch, state.loss, state.before)
    group = memory.gather(labels, signals)
    in_batch = jnp.where(signals.index >= 0, signals.loss, jnp.nan)
    others, groups = jnp.concatenate([reference, in_batch]), jnp.concatenate([labels, group])
    return signals._replace(loss=rank_within(signals.loss, group, others, groups))

  def observe(state: RankedState, signals: Signals) -> RankedState:
    new = memory.first_this_epoch(state.last_epoch, signals)
    return RankedState(
      inner=selector.observe(state.inner, ranked(state, signals)),
      loss=memory.scatter(state.loss, signals, signals.loss, new),
      before=memory.scatter(state.before, signals, memory.gather(state.loss, signals), new),
      last_epoch=memory.scatter(state.last_epoch, signals, signals.epoch, new),
    )

  def thin(key: Array, state: RankedState, signals: Signals) -> tuple[Array, Array]:
    assert selector.thin is not None
    return selector.thin(key, state.inner, ranked(state, signals))

  made = lift(selector, init, select, observe, reads=("labels",))
  return made if selector.thin is None else made._replace(thin=thin)
