"""KAKURENBO: hides the samples with the lowest loss that the model gets right and is sure of.

Nguyen et al., "KAKURENBO: Adaptively Hiding Samples in Deep Neural Network Training", arXiv 2310.10102. Of the
candidates, the lowest losses, those that the model got wrong or is unsure of are moved back. The hidden samples get a
forward pass after the epoch, so that every loss is of the last epoch; the learning rate grows by what may be hidden.

The authors' CIFAR script takes the softmax over the batch rather than over the classes; here the confidence is a
probability over the classes. The candidates' share falls at the same shares of the run as theirs does at epochs 60,
120 and 160 of 200.

`N` is the number of training samples, `T` the number of epochs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import UserError
from dynsel_jax.selectors import memory, ranking, wrappers
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["KakurenboState", "hidden", "kakurenbo"]

_FALLS_AT = (0.3, 0.6, 0.8)  # shares of the run
_FACTORS = (1.0, 0.8, 0.6, 0.4)


class KakurenboState(NamedTuple):
  """What was last seen of each sample, in training or in the forward pass after an epoch."""

  last_loss: Array  # [N] float32
  correct: Array  # [N] bool
  confidence: Array  # [N] float32, probability of the predicted class
  last_epoch: Array  # [N] int32, -1 if never


def hidden(key: Array, score: Array, sure: Array, num_candidates: Array | int) -> tuple[Array, Array]:
  """Chooses the samples to hide.

  Args:
    key: breaks ties.
    score: `[N]` float32, the last loss.
    sure: `[N]` bool, whether the model was right with high confidence.
    num_candidates: how many of the lowest losses may be hidden, may be traced.

  Returns:
    `[N]` bool, and `[]` int32: how many candidates were moved back.
  """
  candidates = ranking.top(key, -score, num_candidates)
  return candidates & sure, jnp.sum(candidates & ~sure, dtype=jnp.int32)


def kakurenbo(
  table: SampleTable, epochs: int, *, max_hidden_fraction: float = 0.3, confidence_threshold: float = 0.7
) -> Selector:
  """Hides at most a share of the samples, and raises the learning rate by 1 / (1 - that share).

  The rate follows the share that may be hidden, not the one that is, as in the authors' code. A loss that is not
  finite counts as the lowest. All samples are trained on until each has been seen once.

  Args:
    table: the training set, N samples.
    epochs: how many the run has, T.
    max_hidden_fraction: F, share of the samples that may be hidden at the start, in [0, 1). It is 0.8 F from 0.3 T,
      0.6 F from 0.6 T and 0.4 F from 0.8 T.
    confidence_threshold: tau, in [0, 1]; a sample with less is not hidden.

  Raises:
    UserError: a value lies outside its range.
  """
  if not 0 <= max_hidden_fraction < 1:
    raise UserError(f"max_hidden_fraction={max_hidden_fraction} must lie in [0, 1)")
  ranking.check_fraction("confidence_threshold", confidence_threshold, zero=True)
  num_samples = table.labels.shape[0]
  falls_at = jnp.asarray([epochs - ranking.budget(1.0 - share, epochs, least=0) for share in _FALLS_AT], jnp.int32)
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
    tie_key, order_key = jax.random.split(key)
    stage = jnp.sum(epoch >= falls_at, dtype=jnp.int32)
    score, non_finite = ranking.guard(state.last_loss)
    sure = state.correct & (state.confidence >= confidence_threshold)
    hide, moved_back = hidden(tie_key, score, sure, budgets[stage])
    plan = ranking.visiting_order(order_key, ~hide)
    info = {"may_hide": budgets[stage], "moved_back": moved_back, "non_finite": non_finite}
    return plan._replace(learning_rate_multiplier=multipliers[stage]), info

  def observe(state: KakurenboState, signals: Signals) -> KakurenboState:
    return KakurenboState(
      last_loss=memory.written(state.last_loss, signals, signals.loss),
      correct=memory.written(state.correct, signals, signals.correct),
      confidence=memory.written(state.confidence, signals, signals.confidence),
      last_epoch=memory.written(state.last_epoch, signals, signals.epoch),
    )

  def refresh(state: KakurenboState, epoch: Array) -> Selection:
    # Their order is of no consequence, so any key will do.
    return ranking.visiting_order(jax.random.key(0), state.last_epoch != epoch)

  return wrappers.warmed_up(Selector(init, select, observe, refresh=refresh), table, epochs)
