"""Measures speed as ratios against a reference that is timed in the same program.

    python -m experiments.benchmark step          a training step against a hand-written Flax loop
    python -m experiments.benchmark thinned       a step of ES, on a quarter of the batch it scores, against a plain one
    python -m experiments.benchmark decoder       a decoder's steps, plain and thinned, and the memory of its loss
    python -m experiments.benchmark sae           a step of the sparse autoencoder against a matrix product and PyTorch
    python -m experiments.benchmark scoring       both factor scores of 1.28 million samples from stored codes
    python -m experiments.benchmark sampler       a batch through a Sampler, every method, against a numpy permutation
    python -m experiments.benchmark selecting     one epoch's selection and order, every method, against numpy
    python -m experiments.benchmark stream        images/s of a streamed set's loader against the cores' decoding limit
    python -m experiments.benchmark subset        training seconds of `random` at 30 % against `full`, on digits
    python -m experiments.benchmark subset cifar10    the same on CIFAR-10, two epochs of each

Seconds are medians of repeated calls, each awaited. A ratio is the median over pairs of calls, made alternately. Let
nothing else run at the same time.
"""

import contextlib
import functools
import inspect
import io
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax.training import train_state

from configs import cifar10, digits
from dynsel_jax import batching, data, offline, options, selectors
from dynsel_jax.training import setup
from dynsel_jax.training.state import RunState
from dynsel_jax.types import Plan, SampleTable, Selector
from experiments.benchmarks import alternate, factors, language, sampler, seconds_of, stream

IMAGENET_SIZE = 1_281_167


class _PlainState(train_state.TrainState):
  batch_stats: Any


def _plain_flax(run: setup.Run, config: ml_collections.ConfigDict) -> Callable[[int], Any]:
  """Builds a training loop as one writes it by hand: numpy gathers the batches, one jitted step donates its state."""
  recipe, variables = run.recipe, jax.tree.map(jnp.copy, run.initial.train)
  decay = jax.tree.map(lambda p: p.ndim > 1, variables.params)
  tx = optax.chain(optax.add_decayed_weights(5e-4, decay), optax.sgd(config.learning_rate, 0.9, nesterov=True))
  # On one device there is no mapped axis for batch statistics to be reduced over.
  module = recipe.module.clone(axis_name=None)
  state = _PlainState.create(apply_fn=module.apply, params=variables.params, tx=tx, batch_stats=variables.batch_stats)
  images, labels = np.asarray(run.source.train["inputs"]), np.asarray(run.source.labels)
  order = np.random.default_rng(0).permutation(len(labels)).astype(np.int32)
  valid = np.ones(config.batch_size, bool)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state: _PlainState, key: jax.Array, index: jax.Array, inputs: jax.Array, labels: jax.Array) -> _PlainState:
    inputs = recipe.task.inputs(key, index, {"inputs": inputs})["inputs"]

    def mean_loss(params: Any) -> tuple[jax.Array, Any]:
      (logits, _), new = state.apply_fn(
        {"params": params, "batch_stats": state.batch_stats}, inputs, valid, train=True, mutable=["batch_stats"]
      )
      return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new["batch_stats"]

    grads, batch_stats = jax.grad(mean_loss, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads, batch_stats=batch_stats)

  key = jax.random.key(0)

  def call(number: int) -> Any:
    nonlocal state
    index = order[number * config.batch_size : (number + 1) * config.batch_size]
    state = step(state, key, index, images[index], labels[index])
    return state

  return call


def _synthetic_cifar() -> data.Source:
  """Returns random pixels in CIFAR's shape: the time of a step does not depend on the pixels."""
  rng = np.random.default_rng(0)

  def dataset(size: int) -> data.Dataset:
    return {
      "inputs": rng.integers(0, 256, (size, 32, 32, 3), np.uint8),
      "labels": rng.integers(0, 10, size).astype(np.int32),
    }

  return data.from_arrays("synthetic", dataset(12_800), dataset(500), num_classes=10)


def _built(config: ml_collections.ConfigDict) -> setup.Run:
  """Builds a run on synthetic data on one device."""
  source = _synthetic_cifar()
  return setup.build(setup.parts(config, source, jax.devices()[:1]), setup.table_of(source))


def benchmark_step(model: str = "resnet_patch") -> None:
  """Prints the seconds of our step and of the plain Flax step, at batch size 128 on 32x32 images."""
  config = cifar10.get_config(f"size=cpu,selector=full,model={model}")
  run = _built(config)
  plain = _plain_flax(run, config)
  state, _ = run.programs.plan(run.devices.copy(run.initial), run.arrays, 0)
  steps = 10

  def ours() -> RunState:
    nonlocal state
    for step in range(steps):
      state = run.programs.train(state, run.arrays, 0, step, 1)
    return state

  def reference() -> Any:
    for step in range(steps):
      result = jax.block_until_ready(plain(step))
    return result

  first, second, ratio = alternate(ours, reference, 15)
  print(f"step {model}: ours {first / steps * 1e3:.1f} ms, plain Flax {second / steps * 1e3:.1f} ms, ratio {ratio:.3f}")


def benchmark_thinned(model: str = "resnet_patch") -> None:
  """Prints the seconds of a step that scores 128 images and trains on 32 of them, and of a plain step on all 128.

  If a backward pass takes as long as two forward passes, the ratio is (128 + 32 + 64) / (3 * 128) = 0.583.
  """
  config = cifar10.get_config(f"size=cpu,selector=es,model={model}")
  run = _built(config)
  epoch, steps = config.epochs // 2, 10  # an epoch in the middle, where ES thins

  def repeated(program: Callable[..., RunState]) -> Callable[[], RunState]:
    state, _ = run.programs.plan(run.devices.copy(run.initial), run.arrays, epoch)

    def call() -> RunState:
      nonlocal state
      for step in range(steps):
        state = program(state, run.arrays, epoch, step, 1)
      return state

    return call

  thinned, plain, ratio = alternate(repeated(run.programs.train_thinned), repeated(run.programs.train), 25)
  print(f"thinned {model}: {thinned / steps * 1e3:.1f} ms, plain {plain / steps * 1e3:.1f} ms, ratio {ratio:.3f}")


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
    print(f"N = {size:,}: infobatch in numpy {reference:.4f} s")
    names = {column for name in selectors.METHODS for column in selectors.columns(name)}
    columns = {column: jnp.asarray(rng.random(size), jnp.float32) for column in names}
    table = SampleTable(size, jnp.asarray(labels), classes, columns)
    for name in selectors.METHODS:
      selector = selectors.create(name, table, 200)
      state = _after_an_epoch(selector, losses, labels)
      plan = functools.partial(jax.jit(_planned(selector)), jax.random.key(1), state, jnp.int32(100))
      jax.block_until_ready(plan())
      taken = statistics.median(seconds_of(plan) for _ in range(5))
      print(f"  {name:18} {taken:.4f} s, ratio {taken / reference:.2f}")


def _planned(selector: Selector) -> Callable[[jax.Array, Any, jax.Array], Plan]:
  """Returns the function that selects and orders an epoch's samples."""

  def plan(key: jax.Array, state: Any, epoch: jax.Array) -> Plan:
    select_key, order_key = jax.random.split(key)
    selection, _ = selector.select(select_key, state, epoch)
    return batching.order(order_key, selection)

  return plan


def _after_an_epoch(selector: Selector, losses: np.ndarray, labels: np.ndarray) -> Any:
  """Returns the selector's state after an epoch on all samples."""
  probability, index = jnp.exp(-jnp.asarray(losses)), jnp.arange(len(labels), dtype=jnp.int32)
  extras = {"confidence": jnp.maximum(probability, 1 - probability), "correct": probability > 0.5}
  signals = batching.signals(index, jnp.asarray(losses), jnp.int32(0), **extras)
  return jax.jit(selector.observe)(selector.init(jax.random.key(0)), signals)


def benchmark_subset(name: str = "digits") -> None:
  """Prints the training seconds of `random` at keep_fraction 0.3 against those of `full`, for the same epochs."""
  options.check_choice("data set", name, SUBSETS)
  get_config, epochs, pairs = SUBSETS[name]

  def training_seconds(selector: str) -> float:
    config = get_config(f"size=cpu,selector={selector}")
    config.epochs = epochs
    config.checkpoint_every_steps = 0  # writing a checkpoint in the background would slow the training that is timed
    with tempfile.TemporaryDirectory() as workdir, contextlib.redirect_stdout(io.StringIO()):
      return offline.train_and_evaluate(config, workdir).summary["seconds"]["training"]

  taken = [(training_seconds("random"), training_seconds("full")) for _ in range(pairs)]
  random, full = (statistics.median(column) for column in zip(*taken, strict=True))
  ratio = statistics.median(one / other for one, other in taken)
  print(f"subset {name}: random {random:.3f} s, full {full:.3f} s, ratio {ratio:.3f}")


SUBSETS = {"cifar10": (cifar10.get_config, 2, 1), "digits": (digits.get_config, 30, 5)}  # epochs, pairs of runs
BENCHMARKS: dict[str, Callable[..., None]] = {
  "decoder": language.benchmark_decoder,
  "sae": factors.benchmark_sae,
  "sampler": sampler.benchmark_sampler,
  "scoring": factors.benchmark_scoring,
  "selecting": benchmark_selecting,
  "step": benchmark_step,
  "stream": stream.benchmark_stream,
  "subset": benchmark_subset,
  "thinned": benchmark_thinned,
}


def main(arguments: Sequence[str]) -> int:
  """Runs the benchmark named by the first argument, with the other arguments; returns the exit status."""
  try:
    name, *given = arguments or [""]
    options.check_choice("benchmark", name, BENCHMARKS)
    most = len(inspect.signature(BENCHMARKS[name]).parameters)
    if len(given) > most:
      raise options.UserError(f"benchmark {name}: unexpected argument {given[most]!r}; it takes at most {most}")
    BENCHMARKS[name](*given)
  except options.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
