"""InfoBatch: drops a fraction of the samples below the mean loss, and gives the rest of them a larger weight.

Qin et al., "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", arXiv 2303.04947, Sec. 2.

With the last loss l of each sample and its mean over all of them:

    l >= mean(l)    kept, with weight 1
    l <  mean(l)    kept with probability 1 - r, with weight 1 / (1 - r)

`N` is the number of training samples.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import check_fraction
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers.annealed import annealed
from dynsel_jax.selectors.wrappers.warmed_up import warmed_up
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["InfoBatchState", "infobatch", "prune"]


class InfoBatchState(NamedTuple):
  """The state of InfoBatch."""

  last_loss: Array  # [N] float32, 0 until a sample has been seen


def prune(key: Array, loss: Array, prune_probability: float) -> tuple[Array, Array, dict[str, Array]]:
  """Prunes the samples with a low loss, and gives those of them that stay a larger loss weight.

  A loss is low if it lies below the mean (Eq. 3). Of n low samples exactly floor((1 - r) n) stay, drawn uniformly. A
  non-finite loss is left out of the mean and counts as low.

  Args:
    key: consumed.
    loss: `[N]` float32.
    prune_probability: r, in [0, 1).

  Returns:
    Keep `[N]` bool; loss weight `[N]` float32, 1 / (1 - r) for low samples, else 1; scalars for the log.
  """
  score, non_finite = ranking.sanitize(loss)
  finite = score > -jnp.inf
  mean = jnp.sum(jnp.where(finite, score, 0.0)) / jnp.maximum(jnp.sum(finite), 1).astype(jnp.float32)
  # The float32 mean of equal losses may round to above them all, and then every sample would be low.
  threshold = jnp.minimum(mean, jnp.max(score))
  low = score < threshold
  num_low = jnp.sum(low, dtype=jnp.int32)
  stays = ranking.budget(1.0 - prune_probability, num_low, least=0)
  keep = ~low | ranking.uniform_subset(key, loss.shape[0], stays, low)
  weights = jnp.where(low, jnp.float32(1.0 / (1.0 - prune_probability)), jnp.float32(1.0))
  return keep, weights, {"mean_loss": mean, "below_mean": num_low, "non_finite": non_finite}


def infobatch(
  table: SampleTable, epochs: int, *, prune_probability: float = 0.5, full_data_from: float = 0.875
) -> Selector:
  """Trains on every sample whose last loss is at or above the mean, and on a random part of the rest.

  All samples are trained on, with weight 1, until each has been seen once, and again at the end of training. The
  paper's code starts to prune at once, from equal initial losses. As there, the weighted loss is averaged over the
  batch's samples.

  Args:
    table: the training set, N samples.
    epochs: of the run, T.
    prune_probability: r, fraction of the samples below the mean loss that is dropped, in [0, 1).
    full_data_from: delta, in [0, 1]; epochs t > delta T, counted from 1, take the full data.

  Raises:
    UserError: a value lies outside its range.
  """
  check_fraction("prune_probability", prune_probability, zero=True, one=False)
  check_fraction("full_data_from", full_data_from, zero=True)

  def init(key: Array) -> InfoBatchState:
    del key
    return InfoBatchState(last_loss=jnp.zeros(table.num_samples, jnp.float32))

  def select(key: Array, state: InfoBatchState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del epoch
    keep, weights, info = prune(key, state.last_loss, prune_probability)
    return Selection(keep, weights), info

  def observe(state: InfoBatchState, signals: Signals) -> InfoBatchState:
    return InfoBatchState(last_loss=memory.scatter(state.last_loss, signals, signals.loss))

  selector = warmed_up(Selector(init, select, observe, loss_normalization="batch_size"), table, epochs)
  return annealed(selector, table, epochs, first=0.0, last=1.0 - full_data_from)
