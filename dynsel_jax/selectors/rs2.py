"""RS2, repeated random sampling: a random subset each epoch, with or without replacement over the epochs.

Okanovic et al., "Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning", arXiv 2305.18424.

    epoch e of a pass keeps    permutation[e k], ..., permutation[e k + k - 1]

`N` is the number of training samples, `k` the number kept each epoch.
"""

import math
from typing import NamedTuple

import jax
from jax import Array

from dynsel_jax.selectors import permutation, ranking
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["RS2State", "rs2"]


class RS2State(NamedTuple):
  """The source of the permutations."""

  key_words: Array  # [words of a key] uint32, key data that the passes' permutations are drawn from


def rs2(table: SampleTable, epochs: int, *, keep_fraction: float = 0.3, replacement: bool = False) -> Selector:
  """Trains on a random fraction of the samples each epoch, none of them twice in an epoch.

  Without replacement an epoch takes the next k samples of a permutation; a pass is the ceil(N / k) epochs that use it
  up. The last epoch of a pass fills up from the start of the same permutation, as the paper's code does, so that each
  pass sees every sample, some twice; the next pass has a new permutation. The selection is a function of the state and
  the epoch alone, so that a resumed run continues where it stopped.

  Args:
    table: the training set, N samples.
    epochs: unused.
    keep_fraction: fraction of the training set kept each epoch, in (0, 1]; k is its floor, the paper's code rounds.
    replacement: draw each epoch from the whole training set.

  Raises:
    UserError: a fraction lies outside its range.
  """
  del epochs
  num_samples = table.num_samples
  count = ranking.keep_count(keep_fraction, num_samples)
  epochs_per_pass = math.ceil(num_samples / count)

  def init(key: Array) -> RS2State:
    return RS2State(key_words=jax.random.key_data(key))

  def next_of_permutation(state: RS2State, epoch: Array) -> Array:
    pass_key = jax.random.fold_in(jax.random.wrap_key_data(state.key_words), epoch // epochs_per_pass)
    place = permutation.permutation(pass_key, num_samples)  # of each sample in the pass
    start = (epoch % epochs_per_pass) * count
    return (place - start) % num_samples < count

  def select(key: Array, state: RS2State, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    if replacement:
      return Selection(keep=ranking.uniform_subset(key, num_samples, count)), {}
    return Selection(keep=next_of_permutation(state, epoch)), {"pass": epoch // epochs_per_pass}

  def observe(state: RS2State, signals: Signals) -> RS2State:
    del signals
    return state

  return Selector(init, select, observe)
