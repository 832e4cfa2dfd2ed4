"""A wrapper that leaves out the samples that look mislabelled: those which the model contradicts most persistently.

CCS (Zheng et al., "Coverage-centric Coreset Selection for High Pruning Rates", arXiv 2210.15809) drops the hardest
share of samples before it selects, by AUM, the sum over epochs of the label's probability minus the largest other one
(the area under the margin of Pleiss et al., arXiv 2001.10528, in CCS's code). Here the mean margin over the epochs in
which a sample was observed does the same while the run goes on, and each class loses its share, so that a hard class is
not taken for a mislabelled one.

`N` is the number of training samples, n_c of them of class c, `B` the global batch size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import UserError
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers import Plan, lifted, members, replanned
from dynsel_jax.types import SampleTable, Selector, SelectorState, Signals

__all__ = ["GuardedState", "noise_guarded"]

_PURPOSE = 10_002  # of the wrapper's key, apart from those that the inner selector folds and splits


class GuardedState(NamedTuple):
  """The inner state, and each sample's margins."""

  inner: SelectorState  # of the wrapped selector
  margin_sum: Array  # [N] float32, over the epochs in which the sample was observed
  observations: Array  # [N] int32, how many those are
  last_epoch: Array  # [N] int32, the last of them, -1 if never


def noise_guarded(
  selector: Selector, table: SampleTable, epochs: int, *, drop: float = 0.1, first: float = 0.1
) -> Selector:
  """Leaves out, in each class, the samples with the lowest mean margin.

  In their place come random samples that the inner selector did not choose, with the mean weight of the selection, so
  that its size stays if there are enough. A meta-batch holds none of the suspects either, as it is drawn from the plan.
  One that is left out is seen no more, unless the inner selector's `refresh` names it, so its mean stays as it is: who
  is suspected changes little after the start. The log's `suspected` counts them.

  Args:
    selector: chooses. It observes every epoch.
    table: the training set, N samples.
    epochs: how many the run has, T.
    drop: share of each class to leave out, floor(drop n_c) of its observed samples, in [0, 1).
    first: share of the epochs at the start, floor(first T) of them, in which nothing is left out, in [0, 1]. Margins
      say little before the model has learnt something.

  Raises:
    UserError: a share lies outside its range.
  """
  if not 0 <= drop < 1:
    raise UserError(f"drop={drop} must lie in [0, 1)")
  ranking.check_fraction("first", first, zero=True)
  num_samples = table.labels.shape[0]
  layout = ranking.class_layout(table.labels, table.num_classes)
  counts = jnp.asarray([ranking.budget(drop, int(size), least=0) for size in layout.sizes], jnp.int32)
  begin = ranking.budget(first, epochs, least=0)

  def init(key: Array) -> GuardedState:
    return GuardedState(
      inner=selector.init(key),
      margin_sum=jnp.zeros(num_samples, jnp.float32),
      observations=jnp.zeros(num_samples, jnp.int32),
      last_epoch=jnp.full(num_samples, -1, jnp.int32),
    )

  def select(key: Array, state: GuardedState, epoch: Array) -> Plan:
    selection, info = selector.select(key, state.inner, epoch)
    suspect_key, tie_key = jax.random.split(jax.random.fold_in(key, _PURPOSE))
    observed = state.observations > 0
    mean = state.margin_sum / jnp.maximum(state.observations, 1).astype(jnp.float32)
    suspected = ranking.top_by_class(suspect_key, -mean, layout, counts, observed) & (epoch >= begin)
    chosen = members(selection).astype(jnp.float32)
    keep = ranking.top(tie_key, chosen, selection.size, ~suspected)
    return replanned(key, selection, keep), {**info, "suspected": jnp.sum(suspected, dtype=jnp.int32)}

  def observe(state: GuardedState, signals: Signals) -> GuardedState:
    new = memory.is_new(state.last_epoch, signals)
    # Margins lie in [-1, 1]; one that is not a number is the worst.
    margin = jnp.where(jnp.isfinite(signals.margin), signals.margin, -1.0)
    return GuardedState(
      inner=selector.observe(state.inner, signals),
      margin_sum=memory.written(state.margin_sum, signals, memory.read(state.margin_sum, signals) + margin, new),
      observations=memory.written(state.observations, signals, memory.read(state.observations, signals) + 1, new),
      last_epoch=memory.written(state.last_epoch, signals, signals.epoch, new),
    )

  return lifted(selector, init, select, observe)
