"""RePB: prunes samples with a low loss within their own step, readmits a part at random, and weights by past use.

Zhou et al., "Inconsistency Biases in Dynamic Data Pruning", ICLR 2026 (no arXiv number is known here). A loss is
compared only with the losses of the same window of a few steps, in which the model hardly changes. Pruned samples are
readmitted uniformly, and a sample that was used in n of E epochs has loss weight E / n.

The public text does not state the length of a window, the threshold within it, the fraction that is readmitted, whether
the weights are bounded, nor whether the last epochs take the full data. Here a window is the batch of one step, the
threshold its mean loss, half of the pruned samples are readmitted, weights are not bounded, and the last epochs are
like the others.

    pruned    l < mean of l over the batch in which the sample was last trained on
    kept      those that are not pruned, and a uniform part of the others
    weight    E / n, where n of the E epochs so far, the coming one included, train on the sample

`N` is the number of training samples, `B` the global batch size.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers.warmed_up import warmed_up
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["RePBState", "low_in_batch", "repb", "use_weights"]


class RePBState(NamedTuple):
  """The state of RePB."""

  pruned: Array  # [N] bool, whether the loss was low in the step that last saw the sample
  usage: memory.Usage  # number of epochs in which each sample was trained on


def low_in_batch(signals: Signals) -> Array:
  """Marks the samples with a loss below the mean of their batch, `[B]` bool.

  A non-finite loss is left out of the mean and counts as low.
  """
  score, _ = ranking.sanitize(signals.loss)
  valid = (signals.index >= 0) & (score > -jnp.inf)
  total = jnp.sum(jnp.where(valid, score, 0.0))
  mean = total / jnp.maximum(jnp.sum(valid), 1).astype(jnp.float32)
  # The float32 mean of equal losses may round to above them all, and then every sample would be low.
  return score < jnp.minimum(mean, jnp.max(jnp.where(valid, score, -jnp.inf)))


def use_weights(visits: Array, epoch: Array) -> Array:
  """Returns E / n, both including the coming epoch, `[N]` float32 from visits `[N]` int32."""
  return (epoch + 1).astype(jnp.float32) / (visits + 1).astype(jnp.float32)


def repb(table: SampleTable, epochs: int, *, readmitted_fraction: float = 0.5) -> Selector:
  """Trains on the samples whose last loss was not low in its batch, and on a random part of the others.

  All samples are trained on, with weight 1, until each has been seen once. The weighted loss is averaged over the
  batch's samples.

  Args:
    table: the training set, N samples.
    epochs: of the run.
    readmitted_fraction: fraction of the pruned samples that an epoch readmits, in (0, 1].

  Raises:
    UserError: a fraction lies outside its range.
  """
  ranking.check_fraction("readmitted_fraction", readmitted_fraction)
  num_samples = table.num_samples

  def init(key: Array) -> RePBState:
    del key
    return RePBState(pruned=jnp.zeros(num_samples, bool), usage=memory.empty_usage(num_samples))

  def select(key: Array, state: RePBState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    num_pruned = jnp.sum(state.pruned, dtype=jnp.int32)
    num_readmitted = ranking.budget(readmitted_fraction, num_pruned)
    keep = ~state.pruned | ranking.uniform_subset(key, num_samples, num_readmitted, state.pruned)
    weights = use_weights(state.usage.visits, epoch)
    info = {
      "pruned": num_pruned,
      "readmitted": num_readmitted,
      "largest_weight": jnp.max(jnp.where(keep, weights, 0.0)),
    }
    return Selection(keep, weights), info

  def observe(state: RePBState, signals: Signals) -> RePBState:
    return RePBState(
      pruned=memory.scatter(state.pruned, signals, low_in_batch(signals)),
      usage=memory.count_visits(state.usage, signals),
    )

  return warmed_up(Selector(init, select, observe, loss_normalization="batch_size"), table, epochs)
