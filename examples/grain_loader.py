"""Grain reads what a method selects, in its order, ahead of the training step; records carry index and weight.

pip install grain scikit-learn
python examples/grain_loader.py
"""

import grain
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import dynsel_jax
from dynsel_jax.adapters.grain import epoch_dataset

B = 64


class Digits:
  """A data source as Grain wants it: a length, and a record for each index."""

  def __init__(self, part):
    images, labels = load_digits(return_X_y=True)
    self.images, self.labels = images[part], labels[part]

  def __len__(self):
    return len(self.images)

  def __getitem__(self, index):
    return {"image": self.images[index], "label": self.labels[index]}


def scaled(record):
  """Any transformation of yours: decoding, augmenting, tokenizing."""
  return {**record, "image": np.asarray(record["image"] / 16, np.float32)}


@jax.jit
def train_step(params, image, label, weight):
  """Returns the new parameters and the loss of each sample `[b]`."""

  def loss(params):
    losses = -jnp.take_along_axis(jax.nn.log_softmax(image @ params), label[:, None], axis=1)[:, 0]
    return jnp.mean(weight * losses), losses

  gradient, losses = jax.grad(loss, has_aux=True)(params)
  return params - 0.5 * gradient, losses


def train(method="infobatch", epochs=30):
  """Returns the test accuracy, and the fraction of the samples that was trained on."""
  source, test = Digits(slice(0, 1440)), Digits(slice(1440, None))
  params = jnp.zeros((64, 10))
  sampler = dynsel_jax.Sampler(method, num_samples=len(source), epochs=epochs, batch_size=B, seed=0)
  for epoch in sampler.epochs():
    dataset = epoch_dataset(source, epoch).map(scaled).batch(B)
    for batch in dataset.to_iter_dataset(grain.ReadOptions(num_threads=2)):
      params, losses = train_step(params, batch["image"], batch["label"], batch["weight"])
      sampler.observe(batch["index"], losses)  # this is what counts a batch as done
  accuracy = np.mean(np.argmax(test.images / 16 @ params, axis=1) == test.labels)
  return float(accuracy), sampler.realised_keep_fraction


if __name__ == "__main__":
  for name in ("full", "infobatch"):
    print("{}: test accuracy {:.1%} with {:.0%} of the samples".format(name, *train(name)))
