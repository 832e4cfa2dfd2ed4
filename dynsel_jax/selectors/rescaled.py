"""A wrapper that weights each chosen sample by the inverse of how often it has been chosen.

The estimator. Let a sample have been chosen in u of the t epochs so far, this one included. Where the epochs are
exchangeable, as for draws whose chances do not change, the sample was chosen in this one with probability u / t, given
u. So the sum of (t / u) f over the epoch's choice has, given all samples' counts, exactly the sum of f over the samples
chosen at least once as its mean: inverse probability weighting (Horvitz and Thompson, 1952) with the empirical
frequency, which needs no smoothing as u is at least 1. RePB weights by E / u in the same spirit.

Where a method's chances drift, u / t is the mean chance of the past and not this epoch's: the weights then make up for
what was neglected over the run, and do not make one epoch's gradient unbiased.

`N` is the number of training samples, `T` the number of epochs, `B` the global batch size.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import memory
from dynsel_jax.selectors.wrappers import Plan, lifted, members
from dynsel_jax.types import SampleTable, Selector, SelectorState, Signals

__all__ = ["RescaledState", "rescaled"]


class RescaledState(NamedTuple):
  """The inner state, and what was chosen so far."""

  inner: SelectorState  # of the wrapped selector
  usage: memory.Usage  # epochs in which each sample was chosen
  sizes: Array  # [T] int32, samples chosen in each epoch; tells the epochs of full data


def rescaled(selector: Selector, table: SampleTable, epochs: int) -> Selector:
  """Replaces the loss weights by inverse frequencies of being chosen.

  The weight is (t / u) M / S, for M samples chosen now and S at least once so far: then the mean over the epoch's
  choice of weight times f estimates the mean of f over those S samples, with weighting "sum_to_n", and equal
  frequencies give equal weights. An epoch on the full data is known to choose with probability 1: it has weight 1 and
  is not among the t. There is no cap: a sample chosen for the first time after many epochs weighs much.

  The inner selector's weights are not used; those of `thin` still apply, on top. A sample counts as chosen when it is
  observed and was trained on or, for a selector that thins and does not refresh, at all.

  Args:
    selector: chooses.
    table: the training set, N samples.
    epochs: how many the run has, T.
  """
  num_samples = table.labels.shape[0]
  scored_are_chosen = selector.thin is not None and selector.refresh is None

  def init(key: Array) -> RescaledState:
    return RescaledState(selector.init(key), memory.no_usage(num_samples), jnp.zeros(epochs, jnp.int32))

  def select(key: Array, state: RescaledState, epoch: Array) -> Plan:
    selection, info = selector.select(key, state.inner, epoch)
    past = jnp.arange(epochs, dtype=jnp.int32) < epoch
    full = jnp.sum(past & (state.sizes == num_samples), dtype=jnp.int32)
    partial = jnp.sum(past & (state.sizes > 0), dtype=jnp.int32) - full
    times = state.usage.visits - full + members(selection).astype(jnp.int32)
    ever = jnp.sum(times > 0, dtype=jnp.float32)
    share = selection.size.astype(jnp.float32) / jnp.maximum(ever, 1.0)
    inverse = (partial + 1).astype(jnp.float32) / jnp.maximum(times, 1).astype(jnp.float32)
    of_sample = jnp.where(selection.size == num_samples, 1.0, inverse * share)
    weights = jnp.where(selection.indices >= 0, of_sample[selection.indices], 0.0)
    return selection._replace(weights=weights), {**info, "largest_weight": jnp.max(weights)}

  def observe(state: RescaledState, signals: Signals) -> RescaledState:
    chosen = signals._replace(trained=jnp.ones_like(signals.trained)) if scored_are_chosen else signals
    new = memory.is_new(state.usage.last_epoch, chosen) & chosen.trained
    return RescaledState(
      inner=selector.observe(state.inner, signals),
      usage=memory.counted(state.usage, chosen),
      sizes=state.sizes.at[signals.epoch].add(jnp.sum(new, dtype=jnp.int32), mode="drop"),
    )

  return lifted(selector, init, select, observe)
