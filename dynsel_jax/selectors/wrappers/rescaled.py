"""A wrapper that weights each chosen sample by the inverse of how often it has been chosen.

The estimator. Let a sample have been chosen in u of the t epochs so far, this one included. If the epochs are
exchangeable, as for draws with constant probabilities, then given u the sample is chosen in this epoch with probability
u / t. So, given the counts of all samples, the sum of (t / u) f over the epoch's choice has the sum of f over the
samples chosen at least once as its mean: inverse probability weighting (Horvitz and Thompson, 1952) with the empirical
frequency, which needs no smoothing because u is at least 1. RePB weights by E / u in the same spirit.

Where a method's probabilities drift, u / t is their mean over the past and not this epoch's: the weights then make up
for neglect over the run, and do not make the gradient of one epoch unbiased.

`N` is the number of training samples, `T` the number of epochs, `B` the global batch size.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import memory
from dynsel_jax.selectors.wrappers.full_data import Selected, lift
from dynsel_jax.types import SampleTable, Selector, SelectorState, Signals

__all__ = ["RescaledState", "rescaled"]


class RescaledState(NamedTuple):
  """The state of the wrapped selector, and the choices so far."""

  inner: SelectorState
  usage: memory.Usage  # number of epochs in which each sample was chosen
  sizes: Array  # [T] int32, samples chosen in each epoch; marks the epochs on the full data


def rescaled(selector: Selector, table: SampleTable, epochs: int) -> Selector:
  """Replaces the loss weights by inverse frequencies of being chosen.

  The weight is (t / u) M / S, for M samples chosen now and S at least once so far. With the loss normalised by the
  batch size, the mean of weight times f over the epoch's choice then estimates the mean of f over those S samples, and
  equal frequencies give equal weights. An epoch on the full data chooses with probability 1: it has weight 1 and does
  not count towards t. Weights are not capped: a sample chosen for the first time after many epochs weighs a lot.

  The inner selector's weights are ignored; the weights of `thin` still apply on top. A sample counts as chosen when it
  is observed as trained or, for a selector that thins and does not refresh, when it is observed at all.

  Args:
    selector: chooses.
    table: the training set, N samples.
    epochs: of the run, T.
  """
  num_samples = table.num_samples
  scored_are_chosen = selector.thin is not None and selector.refresh is None

  def init(key: Array) -> RescaledState:
    return RescaledState(selector.init(key), memory.empty_usage(num_samples), jnp.zeros(epochs, jnp.int32))

  def select(key: Array, state: RescaledState, epoch: Array) -> Selected:
    selection, info = selector.select(key, state.inner, epoch)
    past = jnp.arange(epochs, dtype=jnp.int32) < epoch
    full = jnp.sum(past & (state.sizes == num_samples), dtype=jnp.int32)
    partial = jnp.sum(past & (state.sizes > 0), dtype=jnp.int32) - full
    times = state.usage.visits - full + selection.keep.astype(jnp.int32)
    ever = jnp.sum(times > 0, dtype=jnp.float32)
    size = jnp.sum(selection.keep, dtype=jnp.int32)
    fraction = size.astype(jnp.float32) / jnp.maximum(ever, 1.0)
    inverse = (partial + 1).astype(jnp.float32) / jnp.maximum(times, 1).astype(jnp.float32)
    weights = jnp.where(size == num_samples, 1.0, inverse * fraction)
    largest = jnp.max(jnp.where(selection.keep, weights, 0.0))
    return selection._replace(weights=weights), {**info, "largest_weight": largest}

  def observe(state: RescaledState, signals: Signals) -> RescaledState:
    chosen = signals._replace(trained=jnp.ones_like(signals.trained)) if scored_are_chosen else signals
    new = memory.first_this_epoch(state.usage.last_epoch, chosen) & chosen.trained
    return RescaledState(
      inner=selector.observe(state.inner, signals),
      usage=memory.count_visits(state.usage, chosen),
      sizes=state.sizes.at[signals.epoch].add(jnp.sum(new, dtype=jnp.int32), mode="drop"),
    )

  return lift(selector, init, select, observe)._replace(loss_normalization="batch_size")
