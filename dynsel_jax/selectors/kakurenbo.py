"""KAKURENBO: hides the samples with the lowest loss that the model predicts correctly and confidently.

Nguyen et al., "KAKURENBO: Adaptively Hiding Samples in Deep Neural Network Training", arXiv 2310.10102. The
candidates are the samples with the lowest losses; those predicted wrongly or without confidence are moved back. The
hidden samples get a forward pass after the epoch, so that every loss is from the last epoch; the learning rate grows
with the fraction that may be hidden.

The authors' CIFAR script takes the softmax over the batch rather than over the classes; here the confidence is a
probability over the classes. The fraction of candidates falls at the same fractions of the run as theirs does at epochs
60, 120 and 160 of 200.

With the last loss l, the prediction and its confidence of each sample, and the fraction F_t of this epoch:

    candidates    the floor(F_t N) samples with the lowest l
    hidden        the candidates that are predicted correctly with confidence >= tau
    rate          that of the schedule, times 1 / (1 - F_t)

`N` is the number of training samples, `T` the number of epochs.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import check_fraction
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers.warmed_up import warmed_up
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["KakurenboState", "hide_samples", "kakurenbo"]

_FALLS_AT = (0.3, 0.6, 0.8)  # fractions of the run
_FACTORS = (1.0, 0.8, 0.6, 0.4)


class KakurenboState(NamedTuple):
  """The last signals of each sample, from training or from the forward pass after an epoch."""

  last_loss: Array  # [N] float32
  correct: Array  # [N] bool
  confidence: Array  # [N] float32, probability of the predicted class
  last_epoch: Array  # [N] int32, -1 if never


def hide_samples(key: Array, score: Array, sure: Array, num_candidates: Array | int) -> tuple[Array, Array]:
  """Chooses the samples to hide.

  Args:
    key: breaks ties.
    score: `[N]` float32, the last loss.
    sure: `[N]` bool, whether the prediction was correct with high confidence.
    num_candidates: how many of the lowest losses may be hidden; may be traced.

  Returns:
    `[N]` bool, and `[]` int32: the number of candidates that were moved back.
  """
  candidates = ranking.top(key, -score, num_candidates)
  return candidates & sure, jnp.sum(candidates & ~sure, dtype=jnp.int32)


def kakurenbo(
  table: SampleTable, epochs: int, *, max_hidden_fraction: float = 0.3, confidence_threshold: float = 0.7
) -> Selector:
  """Hides at most a fraction F of the samples, and multiplies the learning rate by 1 / (1 - F).

  The rate follows the fraction that may be hidden, not the one that is, as in the authors' code. A non-finite loss
  counts as the lowest. All samples are trained on until each has been seen once.

  Args:
    table: the training set, N samples.
    epochs: of the run, T.
    max_hidden_fraction: F, fraction of the samples that may be hidden at the start, in [0, 1). It is 0.8 F from 0.3 T,
      0.6 F from 0.6 T and 0.4 F from 0.8 T.
    confidence_threshold: tau, in [0, 1]; a sample with a lower confidence is not hidden.

  Raises:
    UserError: a value lies outside its range.
  """
  check_fraction("max_hidden_fraction", max_hidden_fraction, zero=True, one=False)
  check_fraction("confidence_threshold", confidence_threshold, zero=True)
  num_samples = table.num_samples
  falls_at = jnp.asarray(
    [epochs - ranking.budget(1.0 - fraction, epochs, least=0) for fraction in _FALLS_AT], jnp.int32
  )
  fractions = [max_hidden_fraction * factor for factor in _FACTORS]
  budgets = jnp.asarray([ranking.budget(fraction, num_samples, least=0) for fraction in fractions], jnp.int32)
  multipliers = jnp.asarray([1.0 / (1.0 - fraction) for fraction in fractions], jnp.float32)

  def init(key: Array) -> KakurenboState:
    del key
    zeros = jnp.zeros(num_samples, jnp.float32)
    return KakurenboState(
      last_loss=zeros,
      correct=jnp.zeros(num_samples, bool),
      confidence=zeros,
      last_epoch=jnp.full(num_samples, -1, jnp.int32),
    )

  def select(key: Array, state: KakurenboState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    stage = jnp.sum(epoch >= falls_at, dtype=jnp.int32)
    score, non_finite = ranking.sanitize(state.last_loss)
    sure = state.correct & (state.confidence >= confidence_threshold)
    hide, moved_back = hide_samples(key, score, sure, budgets[stage])
    info = {"may_hide": budgets[stage], "moved_back": moved_back, "non_finite": non_finite}
    return Selection(keep=~hide, learning_rate_multiplier=multipliers[stage]), info

  def observe(state: KakurenboState, signals: Signals) -> KakurenboState:
    return KakurenboState(
      last_loss=memory.scatter(state.last_loss, signals, signals.loss),
      correct=memory.scatter(state.correct, signals, signals.extras["correct"]),
      confidence=memory.scatter(state.confidence, signals, signals.extras["confidence"]),
      last_epoch=memory.scatter(state.last_epoch, signals, signals.epoch),
    )

  def refresh(state: KakurenboState, epoch: Array) -> Array:
    return state.last_epoch != epoch

  return warmed_up(Selector(init, select, observe, refresh=refresh, reads=("correct", "confidence")), table, epochs)
