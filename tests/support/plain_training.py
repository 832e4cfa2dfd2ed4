"""Trains `full` by the library and by a loop written by hand, and asserts that the bits agree.

A program of its own, so that it is compiled as a user's would be; from the root:
`python -m tests.support.plain_training WORKDIR`.
"""

import sys

# Before jax, whose settings it makes.
from tests import conftest  # noqa: F401

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dynsel_jax import batching, data, models, selectors
from dynsel_jax.data import gather
from dynsel_jax.training import schedules
from dynsel_jax.types import SampleTable
from tests.support import small_runs


def _plain_training(made):
  """The same training without any of this library's loop: a Flax module, optax's transformation, one jitted step."""
  source = data.load("digits")
  module = models.create("resnet_patch", source.num_classes, **_options(made))

  def inputs(raw):
    return gather.normalize(jnp.asarray(raw), source.mean, source.std)

  init_key, run_key = jax.random.split(jax.random.key(made.seed))
  model_key, _ = jax.random.split(init_key)
  images, labels = np.asarray(source.train["inputs"]), np.asarray(source.train["labels"])
  variables = jax.jit(lambda k: module.init(k, inputs(images[:1]), jnp.ones(1, bool), train=False))(model_key)
  params, batch_stats = variables["params"], variables["batch_stats"]
  decay = jax.tree.map(lambda p: p.ndim > 1, params)
  tx = optax.chain(optax.add_decayed_weights(5e-4, decay), optax.trace(0.9, nesterov=True))
  opt_state = tx.init(params)
  schedule = schedules.cosine(made.learning_rate)

  @jax.jit
  def step(params, batch_stats, opt_state, raw, labels, valid, progress):
    def mean_loss(params):
      (logits, _), new = module.apply(
        {"params": params, "batch_stats": batch_stats}, inputs(raw), valid, train=True, mutable=["batch_stats"]
      )
      losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
      return jnp.sum(losses * (valid / jnp.sum(valid))), new["batch_stats"]

    grads, batch_stats = jax.grad(mean_loss, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = jax.tree.map(lambda p, u: p - schedule(progress) * u, params, updates)
    return params, batch_stats, opt_state

  selector = selectors.create("full", SampleTable(len(labels), jnp.asarray(labels), source.num_classes), made.epochs)

  @jax.jit
  def plan_of(key, epoch):
    select_key, order_key = jax.random.split(key)
    return batching.order(order_key, selector.select(select_key, (), epoch)[0])

  size, num_steps = made.batch_size, -(-len(labels) // made.batch_size)
  for epoch in range(made.epochs):
    key = jax.random.fold_in(jax.random.fold_in(run_key, epoch), batching.Purpose.SELECT)
    plan = np.asarray(plan_of(key, jnp.int32(epoch)).indices)
    for number in range(num_steps):
      index = plan[number * size : (number + 1) * size]
      padded = np.pad(index, (0, size - len(index)))
      valid = (np.arange(size) < len(index)).astype(np.float32)
      progress = jnp.float32((epoch + np.float32(number / num_steps)) / np.float32(made.epochs))
      params, batch_stats, opt_state = step(
        params, batch_stats, opt_state, images[padded], labels[padded], valid, progress
      )
  return params, batch_stats


def _options(made):
  return {k: v for k, v in made.model.to_dict().items() if k not in ("name", "dtype")}


def main(workdir):
  made = small_runs.config("full", model="resnet_patch")
  _, state = small_runs.train(made, workdir)
  params, batch_stats = _plain_training(made)
  jax.tree.map(np.testing.assert_array_equal, state.train.params, params)
  jax.tree.map(np.testing.assert_array_equal, state.train.batch_stats, batch_stats)
  print("the same bits")


if __name__ == "__main__":
  main(sys.argv[1])
