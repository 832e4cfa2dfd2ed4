"""ES and ESWP, evolved sampling: train on the part of each meta-batch whose losses are high or rising.

"Data-Efficient Training by Evolved Sampling", arXiv 2509.23461, Eq. 3.1. Every sample has a score s, a moving average
of its losses l, and in its batch the sampling weight w:

  w = beta1 s + (1 - beta1) l,   then   s <- beta2 s + (1 - beta2) l,   s = 1 / N before training.

So w = s_new + (beta2 - beta1) (l - s_old): with beta1 < beta2 a rising loss counts more. ES draws b of the B samples of
a meta-batch by w and trains on them; ESWP also leaves out a share of the training set each epoch, by s. The paper's
text leaves open whether the draws are with replacement; here they are without.

`N` is the number of training samples, `B` the global batch size, `b` the number of samples a thinned batch trains on.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax import options
from dynsel_jax.selectors import memory, ranking, thinning, wrappers
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["EvolvedState", "es", "eswp", "evolve"]


class EvolvedState(NamedTuple):
  """What evolved sampling remembers of each sample."""

  score: Array  # [N] float32, s in nats; not finite where the last loss was not
  last_epoch: Array  # [N] int32, in which the score was last renewed, -1 if never


def evolve(score: Array, loss: Array, initial: float, beta1: float, beta2: float) -> tuple[Array, Array]:
  """Returns the sampling weight w and the new score s of samples with the score `score` and now the loss `loss`.

  A loss that is not finite makes both not finite, and the average then starts again from `initial`.

  Args:
    score: float32 of any shape.
    loss: float32 of the same shape, in nats.
    initial: s before training.
    beta1: share of the score in the weight.
    beta2: share of the old score in the new one.
  """
  past = jnp.where(jnp.isfinite(score), score, jnp.float32(initial))
  return beta1 * past + (1.0 - beta1) * loss, beta2 * past + (1.0 - beta2) * loss


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
  """Trains on a part of each meta-batch, drawn by sampling weight; all its samples renew their scores.

  Args:
    table: the training set, N samples.
    epochs: how many the run has.
    beta1: share of the past in the sampling weight, in [0, 1]; with both betas 0, w is the loss.
    beta2: share of the past in the score, in [0, 1].
    batch_fraction: b / B, in (0, 1]; b must be whole.
    weights: loss weights, "none" as in the paper or "inverse_probability": then the mean over the drawn samples of
      weight times gradient is an unbiased estimate of that over the meta-batch, with weighting "sum_to_n".
    anneal_first: share of the epochs at the start that train on whole batches, in [0, 1].
    anneal_last: the same at the end.

  Raises:
    UserError: a value lies outside its range; from `thin`, b is no whole number.
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
  """Trains as `es` on a part of the training set, drawn by score anew for each epoch.

  Args:
    table: the training set, N samples.
    epochs: how many the run has.
    beta1: as in `es`.
    beta2: as in `es`.
    batch_fraction: as in `es`.
    keep_fraction: share of the training set kept each epoch, the paper's 1 - r, in (0, 1].
    weights: as in `es`; "inverse_probability" weights for both draws.
    anneal_first: share of the epochs at the start that train on the full data and whole batches, in [0, 1].
    anneal_last: the same at the end.

  Raises:
    UserError: a value lies outside its range; from `thin`, b is no whole number.
  """
  evolved = _evolved(table, beta1, beta2, batch_fraction, keep_fraction, weights)
  return _annealed(evolved, table, epochs, anneal_first, anneal_last)


def _evolved(
  table: SampleTable, beta1: float, beta2: float, batch_fraction: float, keep_fraction: float, weights: str
) -> Selector:
  options.check_fraction("beta1", beta1, zero=True)
  options.check_fraction("beta2", beta2, zero=True)
  options.check_fraction("batch_fraction", batch_fraction)
  options.check_fraction("keep_fraction", keep_fraction)
  options.check_choice("weights", weights, thinning.WEIGHTS)
  num_samples = table.labels.shape[0]
  initial = 1.0 / num_samples
  count = ranking.budget(keep_fraction, num_samples)

  def init(key: Array) -> EvolvedState:
    del key
    return EvolvedState(
      score=jnp.full(num_samples, initial, jnp.float32), last_epoch=jnp.full(num_samples, -1, jnp.int32)
    )

  def kept(key: Array, score: Array) -> tuple[Array, Array | None]:
    """Draws the epoch's samples: membership `[N]` bool and loss weights `[N]` float32."""
    everyone = jnp.ones(num_samples, bool)
    if count == num_samples:
      return everyone, None
    noise_key, tie_key = jax.random.split(key)
    log_weights = thinning.log_weight(score)
    noisy = ranking.perturbed(noise_key, log_weights)
    keep = ranking.top(tie_key, noisy, count)
    return keep, None if weights == "none" else thinning.inverse_probability(log_weights, noisy, keep, everyone)

  def select(key: Array, state: EvolvedState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del epoch
    draw_key, order_key = jax.random.split(key)
    keep, loss_weights = kept(draw_key, state.score)
    _, non_finite = ranking.guard(state.score)
    return ranking.visiting_order(order_key, keep, loss_weights), {"non_finite": non_finite}

  def observe(state: EvolvedState, signals: Signals) -> EvolvedState:
    new = memory.is_new(state.last_epoch, signals)
    _, score = evolve(memory.read(state.score, signals), signals.loss, initial, beta1, beta2)
    return EvolvedState(
      score=memory.written(state.score, signals, score, new),
      last_epoch=memory.written(state.last_epoch, signals, signals.epoch, new),
    )

  def thin(key: Array, state: EvolvedState, signals: Signals) -> tuple[Array, Array]:
    budget = thinning.batch_budget(batch_fraction, signals.index.shape[0])
    weight, _ = evolve(memory.read(state.score, signals), signals.loss, initial, beta1, beta2)
    return thinning.drawn(key, thinning.log_weight(weight), signals, budget, weights=weights)

  return Selector(init, select, observe, thin)


def _annealed(selector: Selector, table: SampleTable, epochs: int, first: float, last: float) -> Selector:
  options.check_fraction("anneal_first", first, zero=True)
  options.check_fraction("anneal_last", last, zero=True)
  return wrappers.annealed(selector, table, epochs, first=first, last=last)
