"""The benchmark of selecting: one epoch's selection and order, every method, against InfoBatch in numpy."""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dynsel_jax import batching, selectors
from dynsel_jax.types import Plan, SampleTable, Selector
from experiments.benchmarks import clock, seconds_of

__all__ = ["IMAGENET_SIZE", "after_an_epoch", "benchmark_selecting", "planned"]

IMAGENET_SIZE = 1_281_167


def _numpy_infobatch(losses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Selects and orders by InfoBatch (arXiv 2303.04947) in numpy: threshold, draw, weights, shuffle."""
  low = np.flatnonzero(losses < losses.mean())
  kept = rng.choice(low, int(0.5 * len(low)), replace=False)
  weights = np.ones(len(losses), np.float32)
  weights[kept] = 2.0
  indices = np.concatenate([np.flatnonzero(losses >= losses.mean()), kept])
  rng.shuffle(indices)
  return indices


def benchmark_selecting() -> None:
  """Prints the seconds of one `select` and `order`, for every method, at 50,000 samples and at ImageNet's number."""
  rng = np.random.default_rng(0)
  for size, classes in ((50_000, 100), (IMAGENET_SIZE, 1000)):
    losses = rng.lognormal(0, 1, size).astype(np.float32)
    labels = rng.permutation(np.arange(size) % classes).astype(np.int32)
    reference = statistics.median(seconds_of(functools.partial(_numpy_infobatch, losses, rng)) for _ in range(5))
    print(f"N = {size:,}: infobatch in numpy {clock(reference)}")
    names = {column for name in selectors.METHODS for column in selectors.columns(name)}
    columns = {column: jnp.asarray(rng.random(size), jnp.float32) for column in names}
    table = SampleTable(size, jnp.asarray(labels), classes, columns)
    for name in selectors.METHODS:
      selector = selectors.create(name, table, 200)
      if "projection" in selector.reads:  # takes every sample, and needs gigabytes to have observed them
        continue
      state = after_an_epoch(selector, losses, labels)
      plan = functools.partial(jax.jit(planned(selector)), jax.random.key(1), state, jnp.int32(100))
      jax.block_until_ready(plan())
      taken = statistics.median(seconds_of(plan) for _ in range(5))
      print(f"  {name:18} {clock(taken)}, ratio {taken / reference:.2f}")


def planned(selector: Selector) -> Callable[[jax.Array, Any, jax.Array], Plan]:
  """Returns the function that selects and orders an epoch's samples."""

  def plan(key: jax.Array, state: Any, epoch: jax.Array) -> Plan:
    select_key, order_key = jax.random.split(key)
    selection, _ = selector.select(select_key, state, epoch)
    return batching.order(order_key, selection)

  return plan


def after_an_epoch(selector: Selector, losses: np.ndarray, labels: np.ndarray) -> Any:
  """Returns the selector's state after an epoch on all samples."""
  probability, index = jnp.exp(-jnp.asarray(losses)), jnp.arange(len(labels), dtype=jnp.int32)
  extras = {"confidence": jnp.maximum(probability, 1 - probability), "correct": probability > 0.5}
  signals = batching.signals(index, jnp.asarray(losses), jnp.int32(0), **extras)
  return jax.jit(selector.observe)(selector.init(jax.random.key(0)), signals)
