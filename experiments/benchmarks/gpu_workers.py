"""Worker processes of the benchmark `gpu`: each compiles one program, then is timed whenever its parent asks.

    python -m experiments.benchmarks.gpu_workers NAME SIZE FOLDER     # the command by which the parent starts one

A worker prints a line of JSON when it is ready, and answers each line that it reads: "time" with the milliseconds of
several repetitions by label, "profile" with nothing but the file FOLDER/kernels_NAME.txt. At the end of its input it
ends. `SIZE` is "full" for a GPU, "tiny" to try the benchmark on a CPU.
"""

import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynsel_jax import selectors
from dynsel_jax.factors import fit, sae
from dynsel_jax.training import parallel
from dynsel_jax.training import steps as train_steps
from dynsel_jax.types import SampleTable
from experiments import programs
from experiments.benchmarks import gpu_kernels, gpu_torch, gpu_variants, selecting, steps_of

__all__ = ["WORKERS", "Worker"]

Timed = Mapping[str, tuple[Callable[[], Any], int]]  # label -> a call that is awaited by its caller, units in it


class Worker(NamedTuple):
  """What a worker measures, and what is set in its environment."""

  make: Callable[..., Timed]  # make(size, options) -> Timed
  options: Mapping[str, Any] = {}
  variant: str = ""  # one of `gpu_variants.VARIANTS`


def steps(size: str, *, selector: str = "full", batch: int = 128, meta: int = 0, looped: bool = True) -> Timed:
  """Steps of a run on random images: `STEPS_PER_CALL` in one call on the device, or as many calls of one."""
  run, config = steps_of.built(size, selector, batch, meta)
  programs = parallel.create_programs(run.recipe, run.devices, looped=looped)
  epoch = config.epochs // 2  # where a method that thins does so
  state, _ = programs.plan(run.devices.copy(run.initial), run.arrays, epoch)
  train = programs.train_thinned if run.recipe.selector.thin is not None else programs.train
  count = 2 if size == "tiny" else parallel.STEPS_PER_CALL

  def call() -> Any:
    nonlocal state
    if looped:
      state = train(state, run.arrays, epoch, 0, count)
    else:
      for step in range(count):
        state = train(state, run.arrays, epoch, step, 1)
    return state.usage

  return {"step": (call, count)}


def seeds(size: str, *, count: int) -> Timed:
  """Steps of several seeds of one config in one program, by `vmap`; a unit is one step of all of them."""
  run, _ = steps_of.built(size, "full", 128, 0)
  keys = jax.random.split(jax.random.key(0), count)
  epoch, number = jnp.int32(0), 2 if size == "tiny" else parallel.STEPS_PER_CALL

  def take(state: Any, key: jax.Array) -> Any:
    arrays = run.arrays._replace(key=key)
    body = lambda step, held: train_steps.train(run.recipe, held, arrays, epoch, step, jnp.int32(0))  # noqa: E731
    return train_steps.checked(parallel.repeated(jnp.int32(0), jnp.int32(number), body, state))

  def begin(state: Any, key: jax.Array) -> Any:
    return train_steps.plan(run.recipe, state, run.arrays._replace(key=key), epoch, jnp.int32(0))[0]

  states = jax.jit(jax.vmap(begin, in_axes=(None, 0)))(run.initial, keys)
  program = jax.jit(jax.vmap(take), donate_argnums=0)

  def call() -> Any:
    nonlocal states
    states = program(states, keys)
    return states.usage

  return {"step": (call, number)}


def flax(size: str) -> Timed:
  """The loop that one writes by hand in Flax."""
  run, config = steps_of.built(size, "full", 128, 0)
  plain = steps_of.plain_flax(run, config)
  count = 2 if size == "tiny" else parallel.STEPS_PER_CALL

  def call() -> Any:
    for number in range(count):
      result = plain(number)
    return result.step

  return {"step": (call, count)}


def evaluation(size: str) -> Timed:
  """One pass over the test set, as after every epoch of a run."""
  run, config = steps_of.built(size, "full", 128, 0)
  return {"10,000 images": (steps_of.evaluating(run, config, run.initial.train), 1)}


def products(size: str) -> Timed:
  """A large matrix product: the rate that the card reaches."""
  side = 256 if size == "tiny" else 8192
  one, other = (jax.random.normal(key, (side, side), jnp.bfloat16) for key in jax.random.split(jax.random.key(0)))
  product = jax.jit(lambda x, y: (x @ y).astype(jnp.bfloat16))
  return {f"bfloat16 product of {side}": (functools.partial(product, one, other), 1)}


def selections(size: str) -> Timed:
  """Selecting and ordering one epoch of 1.28 million samples."""
  num_samples = 10_000 if size == "tiny" else selecting.IMAGENET_SIZE
  rng = np.random.default_rng(0)
  losses = rng.lognormal(0, 1, num_samples).astype(np.float32)
  labels = rng.permutation(np.arange(num_samples) % 1000).astype(np.int32)
  names = ("random", "infobatch", "rrd", "eswp", "ucb", "rcap", "seta")
  read = {column for name in names for column in selectors.columns(name)}
  columns = {column: jnp.asarray(rng.random(num_samples), jnp.float32) for column in sorted(read)}
  table = SampleTable(num_samples, jnp.asarray(labels), 1000, columns)
  timed = {}
  for name in names:
    selector = selectors.create(name, table, 200)
    state = selecting.after_an_epoch(selector, losses, labels)
    plan = jax.jit(selecting.planned(selector))
    timed[name] = (functools.partial(plan, jax.random.key(1), state, jnp.int32(100)), 1)
  return timed


def autoencoder(size: str) -> Timed:
  """Steps of the sparse autoencoder, and the matrix product that each begins with."""
  rows, width, latents = (64, 32, 128) if size == "tiny" else (4096, 768, 6144)
  features = jnp.asarray(np.random.default_rng(0).standard_normal((3 * rows, width), np.float32))
  plan = fit.make_fit(3 * rows, width, num_latents=latents, k=32, batch_size=rows)
  key = jax.random.key(0)
  state, normalizer = jax.jit(plan.init)(key), jax.jit(sae.fit_normalizer)(features)
  advance = jax.jit(functools.partial(plan.advance, num_steps=3))
  product = jax.jit(lambda x, weights: x @ weights.T)
  return {
    "step": (functools.partial(advance, key, state, normalizer, features), 3),
    "its matrix product": (functools.partial(product, features[:rows], state.params.W_enc), 1),
  }


ES = {"selector": "es"}
WORKERS: dict[str, Worker] = {  # the most wanted first
  "full": Worker(steps),
  "torch_compile": Worker(gpu_torch.timed, {"compiled": True}),  # compiles on the CPU, and so disturbs `full` little
  "es_meta": Worker(steps, {**ES, "meta": 512}),
  "es": Worker(steps, ES),
  "full_512": Worker(steps, {"batch": 512}),
  "matrix": Worker(products),
  "torch": Worker(gpu_torch.timed),
  "flax": Worker(flax),
  **{f"full+{name}": Worker(steps, variant=name) for name in gpu_variants.VARIANTS},
  "seeds_4": Worker(seeds, {"count": 4}),
  "full_one_by_one": Worker(steps, {"looped": False}),
  "selecting": Worker(selections),
  "autoencoder": Worker(autoencoder),
  "evaluating": Worker(evaluation),
}


def _timed(timed: Timed, seconds: float) -> dict[str, list[float]]:
  """Returns the milliseconds of a unit by label, each label for about `seconds` and at least three calls."""
  taken: dict[str, list[float]] = {}
  for label, (call, units) in timed.items():
    taken[label] = []
    end = time.perf_counter() + seconds
    while len(taken[label]) < 3 or time.perf_counter() < end:
      start = time.perf_counter()
      _wait(call())
      taken[label].append((time.perf_counter() - start) / units * 1e3)
  return taken


def _wait(result: Any) -> None:
  jax.block_until_ready(result)  # PyTorch's calls await themselves


def serve(name: str, size: str, folder: str) -> None:
  """Makes the worker `name`, and answers its parent."""
  worker, start = WORKERS[name], float(os.environ.get("STARTED", time.time()))
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # a library's prints must not mix with the answers
  imported = time.time() - start

  def answer(content: Any) -> None:
    print(json.dumps(content), file=answers, flush=True)

  with gpu_variants.patched(worker.variant), contextlib.redirect_stdout(sys.stderr):
    timed = worker.make(size, **worker.options)
    made = time.time() - start
    for call, _ in timed.values():
      _wait(call())
    answer({"imported": imported, "made": made, "ready": time.time() - start})
    for line in sys.stdin:
      if line.strip() == "time":
        answer(_timed(timed, 0.0 if size == "tiny" else 0.3))
      else:
        call, units = timed["step"]
        gpu_kernels.write(folder, name, lambda: _wait(call()), units)  # noqa: B023
        answer("profiled")


if __name__ == "__main__":
  programs.keep()
  serve(*sys.argv[1:])
