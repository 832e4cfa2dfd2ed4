"""Benchmark of the `Sampler`: what a batch costs a loop on the host, beside a numpy permutation and InfoBatch's own."""

import importlib
import time
from collections.abc import Mapping

import jax
import numpy as np

import dynsel_jax
from dynsel_jax import selectors
from experiments.benchmarks import integer

__all__ = ["benchmark_sampler"]

BATCH_SIZE, CLASSES, EPOCHS = 128, 100, 5  # of which the first compiles


def benchmark_sampler(num_samples: str = "50000") -> None:
  """Prints the microseconds of a batch through a `Sampler`, of every method, a permutation and InfoBatch's.

  A loop takes a batch's indices and weights, and observes its losses; `observed` is that, without what is done once an
  epoch, `applied` is the state's update at the end of the epoch divided by the batches, awaited. Selecting is left out:
  that is the benchmark of its name. Each is the least of several epochs.

  Args:
    num_samples: N.
  """
  size = integer("num_samples", num_samples, CLASSES)
  rng = np.random.default_rng(0)
  losses = rng.lognormal(0, 1, size).astype(np.float32)
  probability = np.exp(-losses)
  signals = {"confidence": np.maximum(probability, 1 - probability), "correct": probability > 0.5}
  names = {column for method in selectors.METHODS for column in selectors.columns(method)}
  columns = {name: rng.random(size).astype(np.float32) for name in names}
  labels = rng.permutation(np.arange(size) % CLASSES)
  plain = min(_permuted(size, rng) for _ in range(EPOCHS))
  print(f"N = {size:,}, batch {BATCH_SIZE}: microseconds of a batch; a numpy permutation {plain:.2f}")
  print(f"  {_of_infobatch(losses)}")
  for method in selectors.METHODS:
    made = dynsel_jax.Sampler(
      method, num_samples=size, epochs=200, batch_size=BATCH_SIZE, labels=labels, columns=columns
    )
    if "projection" in made.extras:  # what it reads is not a number a sample
      continue
    iterated, observed, applied = _epochs(made, losses, signals)
    of_a_sample = (observed + applied) / BATCH_SIZE
    print(
      f"  {method:18} iterated {iterated:6.2f}, observed {observed:6.2f}, applied {applied:6.2f};"
      f" observing takes {of_a_sample:.3f} a sample"
    )


def _permuted(size: int, rng: np.random.Generator) -> float:
  start = time.perf_counter()
  order = rng.permutation(size)
  batches = [order[first : first + BATCH_SIZE] for first in range(0, size, BATCH_SIZE)]
  return (time.perf_counter() - start) / len(batches) * 1e6


def _of_infobatch(losses: np.ndarray) -> str:
  """Times the code of InfoBatch's authors (arXiv 2303.04947) in the same way, if it is installed; returns a line."""
  name = "InfoBatch's own"
  try:
    infobatch, torch = map(importlib.import_module, ("infobatch", "torch"))
  except ImportError:
    return f"{name}: not installed; pip install torch git+https://github.com/NUS-HPC-AI-Lab/InfoBatch"
  made, values, taken = infobatch.InfoBatch(range(len(losses)), num_epochs=200), torch.from_numpy(losses), []
  sampler = made.sampler
  for _ in range(EPOCHS):
    sampler.reset()  # selects, which is left out
    start = time.perf_counter()
    batches = [
      torch.tensor(batch) for batch in torch.utils.data.BatchSampler(sampler.sample_indices, BATCH_SIZE, False)
    ]
    iterated = time.perf_counter() - start
    shown = [(index, values[index]) for index in batches]
    start = time.perf_counter()
    for index, given in shown:
      made.set_active_indices(index)
      made.update(given)  # a copy, which it scales in place
    taken.append([seconds / len(batches) * 1e6 for seconds in (iterated, time.perf_counter() - start)])
  iterated, observed = np.min(taken, axis=0)
  of_a_sample = observed / BATCH_SIZE
  return f"{name:18} iterated {iterated:6.2f}, observed {observed:6.2f}; observing takes {of_a_sample:.3f} a sample"


def _epochs(
  made: dynsel_jax.Sampler, losses: np.ndarray, signals: Mapping[str, np.ndarray]
) -> tuple[float, float, float]:
  """Returns the least microseconds of a batch: to iterate, to observe, and to apply what was observed."""
  taken = []
  for epoch in made.epochs():
    batches, number = iter(epoch), len(epoch)
    start = time.perf_counter()
    indices = [index for (index, _), _ in zip(batches, range(number), strict=False)]
    iterated = time.perf_counter() - start
    shown = [(i, losses[i], {name: signals[name][i] for name in made.extras}) for i in indices]
    start = time.perf_counter()
    for index, values, extras in shown:
      made.observe(index, values, **extras)
    observed = time.perf_counter() - start
    start = time.perf_counter()
    jax.block_until_ready(made.state_dict())
    taken.append([seconds / number * 1e6 for seconds in (iterated, observed, time.perf_counter() - start)])
    if epoch.number == EPOCHS:
      break
  iterated, observed, applied = np.min(taken[1:], axis=0)
  return float(iterated), float(observed), float(applied)
