"""A wrapper that leaves out the samples that look mislabelled: those that the model contradicts most persistently.

CCS (Zheng et al., "Coverage-centric Coreset Selection for High Pruning Rates", arXiv 2210.15809) drops the hardest
fraction of the samples before it selects, by AUM, the sum over epochs of the label's probability minus the largest
other one (the area under the margin of Pleiss et al., arXiv 2001.10528, in CCS's code). Here the mean margin over the
epochs in which a sample was observed does the same during the run. Each class loses the same fraction, so that a hard
class is not mistaken for a mislabelled one.

`N` is the number of training samples, n_c of them of class c, `B` the global batch size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import check_fraction
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers.full_data import Selected, lift
from dynsel_jax.selectors.wrappers.replacing import replace_samples
from dynsel_jax.types import SampleTable, Selector, SelectorState, Signals

__all__ = ["GuardedState", "noise_guarded"]

_PURPOSE = 10_002  # folded into the key that the inner selector also gets


class GuardedState(NamedTuple):
  """The state of the wrapped selector, and each sample's margins."""

  inner: SelectorState
  margin_sum: Array  # [N] float32, over the epochs in which the sample was observed
  observations: Array  # [N] int32, number of those epochs
  last_epoch: Array  # [N] int32, the last of them, -1 if never


def noise_guarded(
  selector: Selector, table: SampleTable, epochs: int, *, drop: float = 0.1, first: float = 0.1
) -> Selector:
  """Leaves out, in each class, the samples with the lowest mean margin.

  They are replaced by random samples that the inner selector did not choose, with the mean weight of the selection, so
  that its size stays the same if there are enough. Meta-batches hold none of the suspects either. A suspect is not
  observed again unless the inner selector's `refresh` names it, so its mean margin stays as it is: the set of suspects
  changes little after the start. The log's `suspected` counts them.

  Args:
    selector: chooses. It observes every epoch.
    table: the training set, N samples.
    epochs: of the run, T.
    drop: fraction of each class to leave out, floor(drop n_c) of its observed samples, in [0, 1).
    first: fraction of the epochs at the start, floor(first T) of them, in which nothing is left out, in [0, 1].
      Margins say little before the model has learnt something.

  Raises:
    UserError: a fraction lies outside its range.
  """
  check_fraction("drop", drop, zero=True, one=False)
  check_fraction("first", first, zero=True)
  num_samples = table.num_samples
  layout = ranking.class_layout(table)
  counts = jnp.asarray([ranking.budget(drop, int(size), least=0) for size in layout.sizes], jnp.int32)
  begin = ranking.budget(first, epochs, least=0)

  def init(key: Array) -> GuardedState:
    return GuardedState(
      inner=selector.init(key),
      margin_sum=jnp.zeros(num_samples, jnp.float32),
      observations=jnp.zeros(num_samples, jnp.int32),
      last_epoch=jnp.full(num_samples, -1, jnp.int32),
    )

  def select(key: Array, state: GuardedState, epoch: Array) -> Selected:
    selection, info = selector.select(key, state.inner, epoch)
    suspect_key, tie_key = jax.random.split(jax.random.fold_in(key, _PURPOSE))
    observed = state.observations > 0
    mean = state.margin_sum / jnp.maximum(state.observations, 1).astype(jnp.float32)
    suspected = ranking.top_by_class(suspect_key, -mean, layout, counts, observed) & (epoch >= begin)
    size = jnp.sum(selection.keep, dtype=jnp.int32)
    keep = ranking.top(tie_key, selection.keep.astype(jnp.float32), size, ~suspected)
    return replace_samples(selection, keep), {**info, "suspected": jnp.sum(suspected, dtype=jnp.int32)}

  def observe(state: GuardedState, signals: Signals) -> GuardedState:
    new = memory.first_this_epoch(state.last_epoch, signals)
    margin = signals.extras["margin"]
    margin = jnp.where(jnp.isfinite(margin), margin, -1.0)  # margins lie in [-1, 1]: NaN counts as the worst
    return GuardedState(
      inner=selector.observe(state.inner, signals),
      margin_sum=memory.scatter(state.margin_sum, signals, memory.gather(state.margin_sum, signals) + margin, new),
      observations=memory.scatter(state.observations, signals, memory.gather(state.observations, signals) + 1, new),
      last_epoch=memory.scatter(state.last_epoch, signals, signals.epoch, new),
    )

  return lift(selector, init, select, observe, reads=("labels", "margin"))
