"""Steps on random images of CIFAR-10's size: ours, and a loop that one writes by hand in Flax.

`stepping` and `one_by_one` make calls of several steps, to be timed beside each other.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax.training import train_state

from configs import cifar10
from dynsel_jax import data
from dynsel_jax.training import evaluation, setup
from dynsel_jax.training.state import RunState, TrainState

__all__ = ["built", "evaluating", "one_by_one", "plain_flax", "random_images", "stepping"]


def random_images(num_train: int, num_test: int) -> data.Source:
  """Returns random pixels in CIFAR-10's shape: the time of a step does not depend on the pixels."""
  rng = np.random.default_rng(0)

  def dataset(size: int) -> data.Dataset:
    return {
      "inputs": rng.integers(0, 256, (size, 32, 32, 3), np.uint8),
      "labels": rng.integers(0, 10, size).astype(np.int32),
    }

  return data.from_arrays("synthetic", dataset(num_train), dataset(num_test), num_classes=10)


def built(
  size: str, selector: str, batch_size: int, meta_batch_size: int
) -> tuple[setup.Run, ml_collections.ConfigDict]:
  """Builds a run on one device: ResNet-18 in bfloat16 on 50,000 images, or with `size` "tiny" a small one."""
  variants = f"selector={selector}" + (",size=cpu" if size == "tiny" else "")
  config = cifar10.get_config(variants)
  config.model.dtype = "bfloat16"
  config.batch_size, config.meta_batch_size = batch_size, meta_batch_size
  source = random_images(*((2_048, 512) if size == "tiny" else (50_000, 10_000)))
  return setup.build(setup.parts(config, source, jax.devices()[:1]), setup.table_of(source)), config


def evaluating(run: setup.Run, config: ml_collections.ConfigDict, state: TrainState) -> Callable[[], Any]:
  """Returns a call that evaluates the test set once, and returns the sums of the metrics."""
  num_samples = data.num_samples(run.source.test)
  shapes = evaluation.shapes(run.recipe, state, run.arrays, num_samples)
  num_steps, most = -(-num_samples // config.eval_batch_size), run.programs.steps_per_call

  def call() -> Any:
    done = run.devices.place(evaluation.empty(shapes))
    for step in range(0, num_steps, most):
      done = run.programs.evaluate(done, state, run.arrays, step, min(most, num_steps - step))
    return done.sums

  return call


def stepping(run: setup.Run, epoch: int, steps: int, *, thinned: bool = False) -> Callable[[], RunState]:
  """Returns a call that takes the first `steps` of an epoch of a run, each by a call of its program."""
  state, _ = run.programs.plan(run.devices.copy(run.initial), run.arrays, epoch)
  program = run.programs.train_thinned if thinned else run.programs.train

  def call() -> RunState:
    nonlocal state
    for step in range(steps):
      state = program(state, run.arrays, epoch, step, 1)
    return state

  return call


def one_by_one(take: Callable[[int], Any], steps: int) -> Callable[[], Any]:
  """Returns a call that takes the steps of a loop written by hand, each awaited; `take` is given a step's number."""

  def call() -> Any:
    for step in range(steps):
      result = jax.block_until_ready(take(step))
    return result

  return call


class _PlainState(train_state.TrainState):
  batch_stats: Any


def plain_flax(run: setup.Run, config: ml_collections.ConfigDict) -> Callable[[int], Any]:
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
