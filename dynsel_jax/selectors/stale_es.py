"""Stale ES: evolved sampling from the losses that were last seen, without a forward pass to choose by.

The sampling weight w and the score s are those of "Data-Efficient Training by Evolved Sampling", arXiv 2509.23461,
Eq. 3.1; the use made of them here is this project's own. ES draws from the losses of the step at hand, for which every
member of a meta-batch needs a forward pass. On a GPU that pass can cost what the smaller backward pass saves. Here the
samples of a whole epoch are drawn by the weights of their last visits, and the steps train on whole batches: as many
backward passes as ES's, no forward pass beside them, and one step where ES takes B / b. The price is that a weight may
be several epochs old. ESWP leaves out samples by s, in which the last loss has the weight 1 - beta2; here it has
1 - beta1, as in ES's draw.

`N` is the number of training samples, `B` and `b` the sizes of ES's meta-batch and mini-batch.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax import options
from dynsel_jax.selectors import memory, ranking, thinning
from dynsel_jax.selectors.evolved import draw_samples, evolve
from dynsel_jax.selectors.wrappers.annealed import annealed
from dynsel_jax.selectors.wrappers.warmed_up import warmed_up
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["StaleState", "stale_es"]


class StaleState(NamedTuple):
  """The state of stale ES."""

  score: Array  # [N] float32, s in units of the loss; not finite after a non-finite loss
  weight: Array  # [N] float32, w as of the last visit, in units of the loss; not finite after a non-finite loss
  last_epoch: Array  # [N] int32, epoch of the last visit, -1 if never


def stale_es(
  table: SampleTable,
  epochs: int,
  *,
  beta1: float = 0.2,
  beta2: float = 0.9,
  keep_fraction: float = 0.25,
  weights: str = "none",
  anneal_first: float = 0.05,
  anneal_last: float = 0.05,
) -> Selector:
  """Trains each epoch on a part of the training set, drawn without replacement by the weights of the last visits.

  All samples are trained on until each has been seen once. A sample whose last loss is not finite is drawn when no
  other is left.

  Args:
    table: the training set, N samples.
    epochs: of the run.
    beta1: weight of the past in the sampling weight, in [0, 1]; with 0, w is the last loss.
    beta2: weight of the past in the score, in [0, 1].
    keep_fraction: fraction drawn for each epoch, in (0, 1]; the default is ES's b / B.
    weights: loss weights, "none" or "inverse_probability": then the mean over the drawn samples of weight times
      gradient is an unbiased estimate of the training set's mean gradient; the loss is normalised by the batch size.
    anneal_first: fraction of the epochs at the start that train on the full data, in [0, 1].
    anneal_last: the same at the end.

  Raises:
    UserError: a value lies outside its range.
  """
  options.check_fraction("beta1", beta1, zero=True)
  options.check_fraction("beta2", beta2, zero=True)
  options.check_choice("weights", weights, thinning.WEIGHTS)
  options.check_fraction("anneal_first", anneal_first, zero=True)
  options.check_fraction("anneal_last", anneal_last, zero=True)
  num_samples = table.num_samples
  initial = 1.0 / num_samples
  count = ranking.keep_count(keep_fraction, num_samples)

  def init(key: Array) -> StaleState:
    del key
    unseen = jnp.full(num_samples, initial, jnp.float32)
    return StaleState(unseen, unseen, jnp.full(num_samples, -1, jnp.int32))

  def select(key: Array, state: StaleState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    keep, loss_weights = draw_samples(key, state.weight, count, weights)
    age = jnp.mean((epoch - state.last_epoch).astype(jnp.float32))
    _, non_finite = ranking.sanitize(state.weight)
    return Selection(keep, loss_weights), {"mean_age": age, "non_finite": non_finite}

  def observe(state: StaleState, signals: Signals) -> StaleState:
    return _remember(state, signals, initial, beta1, beta2)

  selector = Selector(init, select, observe, loss_normalization=thinning.normalization(weights))
  selector = warmed_up(selector, table, epochs)
  return annealed(selector, table, epochs, first=anneal_first, last=anneal_last)


def _remember(state: StaleState, signals: Signals, initial: float, beta1: float, beta2: float) -> StaleState:
  """Updates w and s of the batch's samples, once an epoch; the betas and `initial` are those of `evolve`."""
  new = memory.first_this_epoch(state.last_epoch, signals)
  weight, score = evolve(memory.gather(state.score, signals), signals.loss, initial, beta1, beta2)
  return StaleState(
    score=memory.scatter(state.score, signals, score, new),
    weight=memory.scatter(state.weight, signals, weight, new),
    last_epoch=memory.scatter(state.last_epoch, signals, signals.epoch, new),
  )
