"""Picking the rows of a scored meta-batch to train on: the building blocks of `thin`.

Pure and jit-able, except `batch_budget` and `normalization`. Positions are sorted, so that picking the whole batch
changes nothing. Padding is picked only when fewer than b rows are valid, and then with weight 0.

`N` is the number of training samples, `B` the global batch size, `b` the number of rows to train on.
"""

from collections.abc import Mapping
from fractions import Fraction

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import UserError
from dynsel_jax.selectors import radix_select, ranking
from dynsel_jax.selectors.memory import EmptyState
from dynsel_jax.types import Selection, Selector, Signals, ThinFn

__all__ = [
  "WEIGHTS",
  "batch_budget",
  "inverse_probability",
  "log_weight",
  "normalization",
  "rank_rows",
  "sample_rows",
  "stateless",
  "top_rows",
]

WEIGHTS = ("none", "inverse_probability")  # kinds of loss weights of sampled rows


def batch_budget(batch_fraction: float, batch_size: int) -> int:
  """Returns b = batch_fraction * batch_size.

  Raises:
    UserError: b is not an integer.
  """
  count = Fraction(batch_fraction).limit_denominator(10**9) * batch_size
  if count.denominator != 1:
    raise UserError(
      f"batch_fraction={batch_fraction} of batch_size={batch_size} is {float(count):g} samples, not an integer"
    )
  return int(count)


def normalization(weights: str) -> str:
  """Returns the `loss_normalization` of a selector with one of the `WEIGHTS`.

  Inverse probabilities make the mean over the drawn samples unbiased, not the weighted mean.
  """
  return "weight_sum" if weights == "none" else "batch_size"


def log_weight(weight: Array) -> Array:
  """Returns the logarithm of sampling weights, float32 and finite.

  A weight that is zero or not finite becomes the smallest normal number: such a sample is drawn only when no other is
  left, and then by chance.

  Args:
    weight: float32 of any shape, at least 0.
  """
  score, _ = ranking.sanitize(weight)
  return jnp.log(jnp.maximum(score, jnp.finfo(jnp.float32).tiny))


def inverse_probability(log_weights: Array, noisy: Array, chosen: Array, where: Array) -> Array:
  """Returns loss weights that undo the preference of a weighted draw.

  Given the noise of all others, a sample is chosen with the probability q that its own noise lifts it above the highest
  one that was not chosen. So the sum of f / q over the chosen samples is an unbiased estimate of the sum of f over all.
  The weight is 1 / q times the fraction that is chosen: the mean of weight * f over the chosen samples estimates the
  mean of f, and equal probabilities give weights around 1.

  Source: the importance-weighted estimator of Kool, van Hoof and Welling, arXiv 1903.06059.

  Args:
    log_weights: `[N]` float32, finite.
    noisy: `[N]` float32, from `ranking.add_gumbel_noise`.
    chosen: `[N]` bool, the samples with the highest `noisy`.
    where: `[N]` bool, the candidates.

  Returns:
    `[N]` float32, meaningful for the chosen.
  """
  threshold = jnp.max(jnp.where(where & ~chosen, noisy, -jnp.inf))
  probability = -jnp.expm1(-jnp.exp(log_weights - threshold))
  fraction = jnp.sum(chosen, dtype=jnp.float32) / jnp.maximum(jnp.sum(where, dtype=jnp.float32), 1.0)
  return fraction / probability


def rank_rows(key: Array, score: Array, valid: Array) -> Array:
  """Returns the positions of the batch from the highest score to the lowest, padding last, `[B]` int32.

  Args:
    key: breaks ties.
    score: `[B]` float32; a NaN is the worst.
    valid: `[B]` bool, False on padding.
  """
  ties = ranking.tie_breakers(key, score.shape[0])
  return jnp.lexsort((ties, ~radix_select.sortable_bits(score), ~valid)).astype(jnp.int32)


def top_rows(key: Array, score: Array, signals: Signals, count: int) -> tuple[Array, Array]:
  """Picks the rows with the highest scores.

  Args:
    key: breaks ties.
    score: `[B]` float32; a NaN is the worst.
    signals: the scored meta-batch.
    count: b.

  Returns:
    Positions `[b]` int32, ascending; loss weights `[b]` float32, 1 and 0 on padding.
  """
  valid = signals.index >= 0
  positions = jnp.sort(rank_rows(key, score, valid)[:count])
  return positions, valid[positions].astype(jnp.float32)


def sample_rows(key: Array, log_weights: Array, signals: Signals, count: int, *, weights: str) -> tuple[Array, Array]:
  """Draws rows without replacement, each time in proportion to the remaining weights.

  Args:
    key: consumed.
    log_weights: `[B]` float32, unnormalised; -inf or NaN for a weight of zero, with `weights` "none" only.
    signals: the scored meta-batch.
    count: b.
    weights: "none" gives every row the loss weight 1; "inverse_probability" is the function of that name.

  Returns:
    Positions `[b]` int32, ascending; loss weights `[b]` float32, 0 on padding.
  """
  noise_key, tie_key = jax.random.split(key)
  noisy = ranking.add_gumbel_noise(noise_key, log_weights)
  positions, chosen_weights = top_rows(tie_key, noisy, signals, count)
  if weights == "none":
    return positions, chosen_weights
  valid = signals.index >= 0
  chosen = jnp.zeros_like(valid).at[positions].set(True) & valid
  inverse = inverse_probability(log_weights, noisy, chosen, valid)
  return positions, jnp.where(valid[positions], inverse[positions], 0.0)


def stateless(num_samples: int, thin: ThinFn, info: Mapping[str, Array] = {}, reads: tuple[str, ...] = ()) -> Selector:
  """Builds the selector that visits every sample in every epoch, thins each meta-batch, and remembers nothing.

  Args:
    num_samples: N.
    thin: picks the rows of a meta-batch.
    info: logged in every epoch.
    reads: names that `thin` needs beside the loss.
  """

  def init(key: Array) -> EmptyState:
    del key
    return EmptyState()

  def select(key: Array, state: EmptyState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del key, state, epoch
    return Selection(keep=jnp.ones(num_samples, bool)), dict(info)

  def observe(state: EmptyState, signals: Signals) -> EmptyState:
    del signals
    return state

  return Selector(init, select, observe, thin, reads=reads)
