"""A selector of your own: it trains on what the model has forgotten or never knew, and on a random rest.

    pip install scikit-learn
    python examples/new_selector.py

In a run by config it is named by its path: `--config=configs/digits.py:selector=my_lab.forgotten:forgotten`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import dynsel_jax
from dynsel_jax import SampleTable, Selection, Selector, Signals
from dynsel_jax.options import check_fraction
from dynsel_jax.selectors import memory, ranking


class ForgottenState(NamedTuple):
  """The state: a pytree of arrays, which every checkpoint holds."""

  lowest: jax.Array  # [N] float32, the lowest loss that a sample has had
  last: jax.Array  # [N] float32, its last loss


def forgotten(table: SampleTable, epochs: int, *, keep_fraction: float = 0.5) -> Selector:
  """Keeps the samples whose last loss lies furthest above their lowest; unseen samples come first.

  Args:
    table: the training set, N samples.
    epochs: unused.
    keep_fraction: fraction kept each epoch, in (0, 1].
  """
  check_fraction("keep_fraction", keep_fraction)  # wrong options are refused here, before anything is compiled

  def init(key):
    del key
    return ForgottenState(jnp.full(table.num_samples, jnp.inf), jnp.full(table.num_samples, jnp.inf))

  def select(key, state: ForgottenState, epoch):
    rise = jnp.where(jnp.isinf(state.last), 1e9, state.last - state.lowest + 0.1 * state.last)
    return Selection(ranking.top_fraction(key, rise, keep_fraction)), {"unseen": jnp.sum(jnp.isinf(state.last))}

  def observe(state: ForgottenState, signals: Signals):
    last = memory.scatter(state.last, signals, signals.loss)  # leaves out the rows of padding
    return ForgottenState(lowest=jnp.fmin(state.lowest, last), last=last)

  return Selector(init, select, observe)


def train(method, epochs=20, **options):
  """Trains softmax regression on the digits; returns the test accuracy and the fraction of the samples used."""
  x, y = load_digits(return_X_y=True)
  x, params = x / 16, np.zeros((64, 10))
  sampler = dynsel_jax.Sampler(method, num_samples=1440, epochs=epochs, batch_size=64, seed=0, **options)
  for epoch in sampler.epochs():
    for index, weight in epoch:
      probability = np.asarray(jax.nn.softmax(x[index] @ params))
      sampler.observe(index, -np.log(probability[np.arange(len(index)), y[index]]))
      params -= 0.5 * x[index].T @ (weight[:, None] * (probability - np.eye(10)[y[index]])) / len(index)
  return np.mean(np.argmax(x[1440:] @ params, axis=1) == y[1440:]), sampler.realised_keep_fraction


if __name__ == "__main__":
  for name in ("full", "random", f"{__name__}:forgotten"):
    print("{}: test accuracy {:.1%} with {:.0%} of the samples".format(name, *train(name)))
