"""The benchmark of the fast recipe: seconds and accuracy of `configs/cifar10_fast.py` over several seeds."""

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from configs import cifar10_fast
from dynsel_jax import cache, data
from dynsel_jax.offline import proxy_ranks
from dynsel_jax.runs import timing
from dynsel_jax.selectors.proxy import COLUMN
from dynsel_jax.training import evaluation, parallel, setup
from dynsel_jax.training.state import RunState
from experiments.benchmarks import integer, steps_of

__all__ = ["benchmark_fast"]


def benchmark_fast(
  path: str = "cifar10.npz", variants: str = "preset=94", seeds: str = "3", seconds: str = "60"
) -> None:
  """Prints the seconds of training and the accuracy of a run from each seed, and their means.

  Training is everything from the first selection to the last step, without loading and compiling, which the first run
  does before its clock starts; the accuracy is that after the last step. With `selector=proxy` the selecting and
  training of the small network is a part of it, trained anew for each seed.

  Args:
    path: an `.npz` file with `train_inputs`, `train_labels`, `test_inputs` and `test_labels`; a number is taken as the
      number of random images to try the benchmark on.
    variants: of the config.
    seeds: how many runs.
    seconds: after which no further run is begun.
  """
  runs, limit = integer("seeds", seeds), integer("seconds", seconds)
  start = time.perf_counter()
  source = steps_of.random_images(int(path), int(path)) if path.isdecimal() else _read(path)
  first: setup.Run | None = None
  taken: list[float] = []
  found: list[float] = []
  for seed in range(runs):
    if first is not None and time.perf_counter() - start > limit:
      break
    config = cifar10_fast.get_config(variants)
    config.seed = seed
    columns, before = _columns(config, source)
    run = setup.build(setup.parts(config, source, jax.devices()[:1]), setup.table_of(source, columns))
    first = first or run
    # A seed is an argument of the programs; they know a state by its functions, too.
    train = run.initial.train.replace(tx=first.initial.train.tx, apply_fn=first.initial.train.apply_fn)
    run = run._replace(programs=first.programs, initial=run.initial._replace(train=train))
    if not taken:
      _accuracy(run, config, _trained(run, config, epochs=1))
      print(f"ready after {time.perf_counter() - start:.1f} s: loaded, built and compiled", flush=True)
    begun = time.perf_counter()
    state = jax.block_until_ready(_trained(run, config, epochs=config.epochs))
    taken.append(before + time.perf_counter() - begun)
    found.append(_accuracy(run, config, state))
    of_proxy = f", {before:.2f} of them the proxy's" if before else ""
    print(f"seed {seed}: {found[-1]:.2%} after {taken[-1]:.2f} s{of_proxy}, {int(state.train.step)} steps", flush=True)
  print(f"{variants}: {statistics.mean(found):.2%} in {statistics.mean(taken):.2f} s, means of {len(found)} runs")


def _columns(config: ml_collections.ConfigDict, source: data.Source) -> tuple[Mapping[str, jax.Array], float]:
  """Returns the columns that the recipe's selector reads, and the seconds of training that they took."""
  if "proxy" not in config:
    return {}, 0.0
  with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    config = config.copy_and_resolve_references()
    config.cache_dir = folder  # a cached result would take no time
    made = proxy_ranks.made(config, source, timing.Timers())
  return {COLUMN: jnp.asarray(made["ranks"])}, float(made["seconds"])


def _read(path: str) -> data.Source:
  arrays = cache.read_arrays("path", path)
  parts = {split: {name: arrays[f"{split}_{name}"] for name in ("inputs", "labels")} for split in ("train", "test")}
  return data.from_arrays("cifar10", parts["train"], parts["test"], num_classes=10)


def _trained(run: setup.Run, config: ml_collections.ConfigDict, *, epochs: int) -> RunState:
  """Trains a run on the device alone for its first `epochs`, without a checkpoint or an evaluation."""
  programs, arrays, state = run.programs, run.arrays, run.devices.copy(run.initial)
  for epoch in range(epochs):
    state, _ = programs.plan(state, arrays, epoch)
    num_steps = -(-int(state.plan.size) // config.batch_size)
    for step in range(0, num_steps, programs.steps_per_call):
      state = programs.train(state, arrays, epoch, step, min(programs.steps_per_call, num_steps - step))
  return state


def _accuracy(run: setup.Run, config: ml_collections.ConfigDict, state: Any) -> float:
  done = evaluation.Evaluation(steps_of.evaluating(run, config, state.train)(), {}, None)
  return evaluation.values(run.recipe.task, parallel.fetch(done))["accuracy"]
