"""ES and ESWP, evolved sampling: train on the part of each meta-batch whose losses are high or rising.

"Data-Efficient Training by Evolved Sampling", arXiv 2509.23461, Eq. 3.1. Each sample has a score s, a moving average
of its losses l, and within its batch the sampling weight w:

  w = beta1 s + (1 - beta1) l,   then   s <- beta2 s + (1 - beta2) l,   s = 1 / N before training.

So w = s_new + (beta2 - beta1) (l - s_old): with beta1 < beta2 a rising loss counts more. ES draws b of the B samples of
a meta-batch by w and trains on them; ESWP also leaves out a fraction of the training set each epoch, by s, once every
sample has been seen: a score of 1 / N lies far below any loss, so that a sample without one would hardly ever be drawn.
The paper does not say whether the draws are with replacement; here they are without.

`N` is the number of training samples, `B` the global batch size, `b` the number of samples a thinned batch trains on.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax import options
from dynsel_jax.selectors import memory, ranking, thinning
from dynsel_jax.selectors.wrappers.annealed import annealed
from dynsel_jax.selectors.wrappers.warmed_up import warmed_up
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["EvolvedState", "draw_samples", "es", "eswp", "evolve"]


class EvolvedState(NamedTuple):
  """The state of evolved sampling."""

  score: Array  # [N] float32, s in units of the loss; not finite after a non-finite loss
  last_epoch: Array  # [N] int32, epoch of the last update, -1 if never


def evolve(score: Array, loss: Array, initial: float, beta1: float, beta2: float) -> tuple[Array, Array]:
  """Returns the sampling weight w and the new score s, given the old score and the current loss.

  A non-finite loss makes both non-finite, and the average then restarts from `initial`.

  Args:
    score: float32 of any shape.
    loss: float32 of the same shape.
    initial: s before training.
    beta1: weight of the score in w.
    beta2: weight of the old score in the new one.
  """
  past = jnp.where(jnp.isfinite(score), score, jnp.float32(initial))
  return beta1 * past + (1.0 - beta1) * loss, beta2 * past + (1.0 - beta2) * loss


def draw_samples(key: Array, weight: Array, count: int, weights: str) -> tuple[Array, Array | None]:
  """Draws the samples of an epoch without replacement, each time in proportion to the remaining sampling weights.

  Args:
    key: consumed.
    weight: `[N]` float32, at least 0; a sample whose weight is 0 or not finite is drawn when no other is left.
    count: how many samples; all N are kept without a draw.
    weights: loss weights, "none" or "inverse_probability".

  Returns:
    Keep `[N]` bool, and loss weights `[N]` float32 or None.
  """
  everyone = jnp.ones(weight.shape, bool)
  if count == weight.shape[0]:
    return everyone, None
  noise_key, tie_key = jax.random.split(key)
  log_weights = thinning.log_weight(weight)
  noisy = ranking.add_gumbel_noise(noise_key, log_weights)
  keep = ranking.top(tie_key, noisy, count)
  return keep, None if weights == "none" else thinning.inverse_probability(log_weights, noisy, keep, everyone)


def es(
  table: SampleTable,
  epochs: int,
  *,
  beta1: float = 0.2,
  beta2: float = 0.9,
  batch_fraction: float = 0.25,
  weights: str = "none",
  anneal_first: float = 0.05,
  anneal_last: float = 0.05,
) -> Selector:
  """Trains on a part of each meta-batch, drawn by sampling weight; all samples of the meta-batch update their scores.

  Args:
    table: the training set, N samples.
    epochs: of the run.
    beta1: weight of the past in the sampling weight, in [0, 1]; with both betas 0, w is the loss.
    beta2: weight of the past in the score, in [0, 1].
    batch_fraction: b / B, in (0, 1]; b must be an integer.
    weights: loss weights, "none" as in the paper or "inverse_probability": then the mean over the drawn samples of
      weight times gradient is an unbiased estimate of the meta-batch's mean gradient; the loss is normalised by the
      batch size.
    anneal_first: fraction of the epochs at the start that train on whole batches, in [0, 1].
    anneal_last: the same at the end.

  Raises:
    UserError: a value lies outside its range; from `thin`, b is not an integer.
  """
  evolved = _evolved(table, beta1, beta2, batch_fraction, 1.0, weights)
  return _annealed(evolved, table, epochs, anneal_first, anneal_last)


def eswp(
  table: SampleTable,
  epochs: int,
  *,
  beta1: float = 0.2,
  beta2: float = 0.8,
  batch_fraction: float = 0.25,
  keep_fraction: float = 0.8,
  weights: str = "none",
  anneal_first: float = 0.05,
  anneal_last: float = 0.05,
) -> Selector:
  """Trains as `es` does, on a part of the training set that is redrawn by score for each epoch.

  All samples are trained on, in whole batches, until each has been seen once.

  Args:
    table: the training set, N samples.
    epochs: of the run.
    beta1: as in `es`.
    beta2: as in `es`.
    batch_fraction: as in `es`.
    keep_fraction: fraction of the training set kept each epoch, the paper's 1 - r, in (0, 1].
    weights: as in `es`; "inverse_probability" accounts for both draws.
    anneal_first: fraction of the epochs at the start that train on the full data and whole batches, in [0, 1].
    anneal_last: the same at the end.

  Raises:
    UserError: a value lies outside its range; from `thin`, b is not an integer.
  """
  evolved = warmed_up(_evolved(table, beta1, beta2, batch_fraction, keep_fraction, weights), table, epochs)
  return _annealed(evolved, table, epochs, anneal_first, anneal_last)


def _evolved(
  table: SampleTable, beta1: float, beta2: float, batch_fraction: float, keep_fraction: float, weights: str
) -> Selector:
  options.check_fraction("beta1", beta1, zero=True)
  options.check_fraction("beta2", beta2, zero=True)
  options.check_fraction("batch_fraction", batch_fraction)
  options.check_choice("weights", weights, thinning.WEIGHTS)
  num_samples = table.num_samples
  initial = 1.0 / num_samples
  count = ranking.keep_count(keep_fraction, num_samples)

  def init(key: Array) -> EvolvedState:
    del key
    return EvolvedState(
      score=jnp.full(num_samples, initial, jnp.float32), last_epoch=jnp.full(num_samples, -1, jnp.int32)
    )

  def select(key: Array, state: EvolvedState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del epoch
    keep, loss_weights = draw_samples(key, state.score, count, weights)
    _, non_finite = ranking.sanitize(state.score)
    return Selection(keep, loss_weights), {"non_finite": non_finite}

  def observe(state: EvolvedState, signals: Signals) -> EvolvedState:
    new = memory.first_this_epoch(state.last_epoch, signals)
    _, score = evolve(memory.gather(state.score, signals), signals.loss, initial, beta1, beta2)
    return EvolvedState(
      score=memory.scatter(state.score, signals, score, new),
      last_epoch=memory.scatter(state.last_epoch, signals, signals.epoch, new),
    )

  def thin(key: Array, state: EvolvedState, signals: Signals) -> tuple[Array, Array]:
    budget = thinning.batch_budget(batch_fraction, signals.index.shape[0])
    weight, _ = evolve(memory.gather(state.score, signals), signals.loss, initial, beta1, beta2)
    return thinning.sample_rows(key, thinning.log_weight(weight), signals, budget, weights=weights)

  return Selector(init, select, observe, thin, loss_normalization=thinning.normalization(weights))


def _annealed(selector: Selector, table: SampleTable, epochs: int, first: float, last: float) -> Selector:
  options.check_fraction("anneal_first", first, zero=True)
  options.check_fraction("anneal_last", last, zero=True)
  return annealed(selector, table, epochs, first=first, last=last)
