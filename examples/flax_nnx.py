"""A `Sampler` in a Flax NNX loop, stopped in the middle of an epoch and continued with the same samples.

pip install flax optax scikit-learn
python examples/flax_nnx.py
"""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import dynsel_jax


class Net(nnx.Module):
  """Any model of yours."""

  def __init__(self, rngs: nnx.Rngs):
    self.hidden, self.head = nnx.Linear(64, 128, rngs=rngs), nnx.Linear(128, 10, rngs=rngs)

  def __call__(self, x):
    """Returns logits `[b, 10]`."""
    return self.head(nnx.relu(self.hidden(x)))


@nnx.jit
def train_step(model, optimizer, x, y, weight):
  """Minimises the weighted loss, and returns the loss of each sample `[b]`."""

  def loss(model):
    losses = optax.softmax_cross_entropy_with_integer_labels(model(x), y)
    return jnp.sum(weight * losses) / jnp.count_nonzero(weight), losses

  gradients, losses = nnx.grad(loss, has_aux=True)(model)
  optimizer.update(model, gradients)
  return losses


def train(method="infobatch", epochs=30, stop_after=None, checkpoint=None):
  """Returns the test accuracy, the samples in the order of training, and a checkpoint."""
  images, labels = load_digits(return_X_y=True)
  images = np.asarray(images / 16, np.float32)
  x, y = images[:1440], labels[:1440]
  model = Net(nnx.Rngs(0))
  optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
  sampler = dynsel_jax.Sampler(method, num_samples=len(x), epochs=epochs, batch_size=64, seed=0)
  if checkpoint:
    nnx.update((model, optimizer), checkpoint["model"])
    sampler.load_state_dict(checkpoint["sampler"])
  seen = []
  for epoch in sampler.epochs():
    for index, weight in epoch.padded():  # a short last batch is filled up, so that train_step compiles once
      losses = train_step(model, optimizer, x[index], y[index], weight)
      sampler.observe(index, losses)
      seen.append(index[index >= 0].tolist())
      if len(seen) == stop_after:
        break
    if len(seen) == stop_after:
      break
  accuracy = float(np.mean(np.argmax(model(images[1440:]), axis=1) == labels[1440:]))
  return accuracy, seen, {"model": nnx.state((model, optimizer)), "sampler": sampler.state_dict()}


if __name__ == "__main__":
  for name in ("full", "infobatch"):
    accuracy, seen, _ = train(name)
    visits = sum(map(len, seen)) / (30 * 1440)
    print(f"{name}: test accuracy {accuracy:.1%} with {visits:.0%} of the samples")
  whole, checkpoint = train()[1], train(stop_after=200)[2]
  print("stopped and continued, the same samples:", train(checkpoint=checkpoint)[1] == whole[200:])
