"""BLS, Batch Loss Score: a running average of the batch's mean loss stands in for each member's own loss.

Zhou et al., "Batch Loss Score for Dynamic Data Pruning", arXiv 2604.04681. For losses that cannot be had for a sample
alone. `scored_by_batch` wraps any selector that looks at losses; `bls_infobatch` and `bls_seta` are the paper's two.
What a score starts from is not in the public text; here it is the first batch's mean.

`N` is the number of training samples, `B` the global batch size.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.infobatch import infobatch
from dynsel_jax.selectors.seta import seta
from dynsel_jax.selectors.wrappers import lifted
from dynsel_jax.types import SampleTable, Selection, Selector, SelectorState, Signals

__all__ = ["BLSState", "bls_infobatch", "bls_seta", "scored_by_batch"]


class BLSState(NamedTuple):
  """The scores, and the state of the selector that reads them."""

  inner: SelectorState
  score: Array  # [N] float32, running average of the mean loss of the batches that held the sample
  last_epoch: Array  # [N] int32, when the score was last moved, -1 if never


def scored_by_batch(selector: Selector, table: SampleTable, *, history_weight: float = 0.7) -> Selector:
  """Replaces the losses that a selector observes by batch loss scores.

  A member's score becomes alpha score + (1 - alpha) mean loss of the batch. A score that is not finite starts afresh.
  Losses that are not finite are left out of the mean.

  Args:
    selector: decides. Its `thin`, if it has one, is given the losses as they are.
    table: the training set, N samples.
    history_weight: alpha, weight of the old score, in [0, 1].

  Raises:
    UserError: the weight lies outside its range.
  """
  ranking.check_fraction("history_weight", history_weight, zero=True)
  num_samples = table.labels.shape[0]

  def init(key: Array) -> BLSState:
    return BLSState(
      inner=selector.init(key),
      score=jnp.zeros(num_samples, jnp.float32),
      last_epoch=jnp.full(num_samples, -1, jnp.int32),
    )

  def select(key: Array, state: BLSState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    return selector.select(key, state.inner, epoch)

  def observe(state: BLSState, signals: Signals) -> BLSState:
    valid = (signals.index >= 0) & jnp.isfinite(signals.loss)
    mean = jnp.sum(jnp.where(valid, signals.loss, 0.0)) / jnp.sum(valid).astype(jnp.float32)
    new = memory.is_new(state.last_epoch, signals)
    old = memory.read(state.score, signals)
    has_history = (memory.read(state.last_epoch, signals) >= 0) & jnp.isfinite(old)
    moved = jnp.where(has_history, history_weight * old + (1.0 - history_weight) * mean, mean)
    moved = jnp.where(new, moved, old)
    return BLSState(
      inner=selector.observe(state.inner, signals._replace(loss=moved)),
      score=memory.written(state.score, signals, moved),
      last_epoch=memory.written(state.last_epoch, signals, signals.epoch, new),
    )

  return lifted(selector, init, select, observe)


def bls_infobatch(
  table: SampleTable,
  epochs: int,
  *,
  history_weight: float = 0.7,
  prune_probability: float = 0.5,
  full_data_from: float = 0.875,
) -> Selector:
  """InfoBatch over batch loss scores.

  Args:
    table: the training set, N samples.
    epochs: how many the run has.
    history_weight: as in `scored_by_batch`.
    prune_probability: as in `infobatch`.
    full_data_from: as in `infobatch`.
  """
  inner = infobatch(table, epochs, prune_probability=prune_probability, full_data_from=full_data_from)
  return scored_by_batch(inner, table, history_weight=history_weight)


def bls_seta(
  table: SampleTable,
  epochs: int,
  *,
  history_weight: float = 0.7,
  pool_fraction: float = 0.9,
  num_groups: int = 5,
  window_share: float = 0.9,
  whole_pool_from: float = 0.875,
) -> Selector:
  """SeTa over batch loss scores.

  Args:
    table: the training set, N samples.
    epochs: how many the run has.
    history_weight: as in `scored_by_batch`.
    pool_fraction: as in `seta`.
    num_groups: as in `seta`.
    window_share: as in `seta`.
    whole_pool_from: as in `seta`.
  """
  inner = seta(
    table,
    epochs,
    pool_fraction=pool_fraction,
    num_groups=num_groups,
    window_share=window_share,
    whole_pool_from=whole_pool_from,
  )
  return scored_by_batch(inner, table, history_weight=history_weight)
