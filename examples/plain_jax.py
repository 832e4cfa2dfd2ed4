"""A whole epoch inside `jax.jit`: selection, order, batches, losses and signals, with no index on the host.

    python examples/plain_jax.py

Needs JAX and NumPy alone. The model is a small perceptron, the data are random points labelled by a random teacher.
"""

import jax
import jax.numpy as jnp
import numpy as np

import dynsel_jax

N, B, FEATURES, CLASSES, RATE = 4096, 64, 16, 4, 0.3


def points(seed):
  """Returns points `[N, FEATURES]` and their classes `[N]`."""
  x = np.random.default_rng(seed).normal(size=(N, FEATURES)).astype(np.float32)
  teacher = np.random.default_rng(0).normal(size=(FEATURES, CLASSES))
  return jnp.asarray(x), jnp.asarray(np.argmax(np.sin(x) @ teacher, axis=1))


def network(params, x):
  """Returns logits `[b, CLASSES]`."""
  return jnp.tanh(x @ params["in"]) @ params["out"]


def sample_losses(params, x, y):
  """Returns the cross-entropy of each sample `[b]`."""
  return -jnp.take_along_axis(jax.nn.log_softmax(network(params, x)), y[:, None], axis=1)[:, 0]


def train(method="infobatch", epochs=30, **options):
  """Returns the test accuracy, and the fraction of plain training's steps that it took."""
  (x, y), (test_x, test_y) = points(seed=1), points(seed=2)
  selector = dynsel_jax.create(method, dynsel_jax.SampleTable(N), epochs, **options)
  state_key, key, in_key, out_key = jax.random.split(jax.random.key(0), 4)
  params = {
    "in": jax.random.normal(in_key, (FEATURES, 64)) / FEATURES**0.5,
    "out": jax.random.normal(out_key, (64, CLASSES)) / 8,
  }

  @jax.jit
  def run_epoch(params, state, epoch):
    select_key, order_key = dynsel_jax.epoch_keys(key, epoch)
    selection, _ = selector.select(select_key, state, epoch)
    plan = dynsel_jax.order(order_key, selection)
    rate = RATE * selection.learning_rate_multiplier

    def step(number, carry):
      params, state = carry
      index, weights = dynsel_jax.batch_of(plan, number, B)  # index is -1 behind the plan's end, the weight 0

      def loss(params):
        losses = sample_losses(params, x[index], y[index])
        divisor = selector.loss_normalization
        return dynsel_jax.weighted_mean(losses, weights, index, loss_normalization=divisor), losses

      gradients, losses = jax.grad(loss, has_aux=True)(params)
      params = jax.tree.map(lambda p, g: p - rate * g, params, gradients)
      return params, selector.observe(state, dynsel_jax.signals(index, losses, epoch))

    steps = (plan.size + B - 1) // B
    params, state = jax.lax.fori_loop(0, steps, step, (params, state))
    return params, state, steps

  state, steps = selector.init(state_key), 0
  for epoch in range(epochs):  # compiled once, whatever the size of the selection
    params, state, taken = run_epoch(params, state, jnp.int32(epoch))
    steps += int(taken)
  accuracy = jnp.mean(jnp.argmax(network(params, test_x), axis=1) == test_y)
  return float(accuracy), steps / (epochs * N / B)


if __name__ == "__main__":
  for name in ("full", "infobatch"):
    print("{}: test accuracy {:.1%} with {:.0%} of the steps".format(name, *train(name)))
