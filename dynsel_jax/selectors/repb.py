"""RePB: leaves out what had a low loss for its own step, readmits a part at random, and weights by past use.

Zhou et al., "Inconsistency Biases in Dynamic Data Pruning", ICLR 2026 (no arXiv number is known here). Losses are
compared only with those of the same window of a few steps, for which the model is nearly the same. Pruned samples come
back uniformly, and a sample that was used in n of E epochs has loss weight E / n.

The public text does not state the length of a window, the threshold within it, the share that comes back, whether the
weights are bounded, nor whether the last epochs take the full data. Here a window is one step's batch, the threshold
its mean loss, half of the pruned come back, weights are not bounded and the last epochs are like the others.

`N` is the number of training samples, `B` the global batch size.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import memory, ranking, wrappers
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["RePBState", "low_in_batch", "repb", "use_weights"]


class RePBState(NamedTuple):
  """What RePB remembers."""

  pruned: Array  # [N] bool, whether the loss was low in the step that last saw the sample
  usage: memory.Usage  # in how many epochs it was trained on


def low_in_batch(signals: Signals) -> Array:
  """Tells which samples have a loss below the mean of their batch, `[B]` bool.

  A loss that is not finite is left out of the mean and counts as low.
  """
  score, _ = ranking.guard(signals.loss)
  valid = (signals.index >= 0) & (score > -jnp.inf)
  total = jnp.sum(jnp.where(valid, score, 0.0))
  mean = total / jnp.maximum(jnp.sum(valid), 1).astype(jnp.float32)
  # The float32 mean of equal losses may come out above them all, and then every sample would be low.
  return score < jnp.minimum(mean, jnp.max(jnp.where(valid, score, -jnp.inf)))


def use_weights(visits: Array, epoch: Array) -> Array:
  """Returns E / n, both with the coming epoch counted in, `[N]` float32 of visits `[N]` int32."""
  return (epoch + 1).astype(jnp.float32) / (visits + 1).astype(jnp.float32)


def repb(table: SampleTable, epochs: int, *, readmitted_fraction: float = 0.5) -> Selector:
  """Trains on the samples that were not low when last seen, and on a random part of those that were.

  All samples are trained on, with weight 1, until each has been seen once. The weights average over the batch's
  samples: weighting "sum_to_n".

  Args:
    table: the training set, N samples.
    epochs: how many the run has.
    readmitted_fraction: share of the pruned samples that an epoch takes back, in (0, 1].

  Raises:
    UserError: a fraction lies outside its range.
  """
  ranking.check_fraction("readmitted_fraction", readmitted_fraction)
  num_samples = table.labels.shape[0]

  def init(key: Array) -> RePBState:
    del key
    return RePBState(pruned=jnp.zeros(num_samples, bool), usage=memory.no_usage(num_samples))

  def select(key: Array, state: RePBState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    draw_key, order_key = jax.random.split(key)
    num_pruned = jnp.sum(state.pruned, dtype=jnp.int32)
    num_readmitted = ranking.budget(readmitted_fraction, num_pruned)
    keep = ~state.pruned | ranking.uniform_subset(draw_key, num_samples, num_readmitted, state.pruned)
    weights = use_weights(state.usage.visits, epoch)
    info = {
      "pruned": num_pruned,
      "readmitted": num_readmitted,
      "largest_weight": jnp.max(jnp.where(keep, weights, 0.0)),
    }
    return ranking.visiting_order(order_key, keep, weights), info

  def observe(state: RePBState, signals: Signals) -> RePBState:
    return RePBState(
      pruned=memory.written(state.pruned, signals, low_in_batch(signals)), usage=memory.counted(state.usage, signals)
    )

  return wrappers.warmed_up(Selector(init, select, observe), table, epochs)
