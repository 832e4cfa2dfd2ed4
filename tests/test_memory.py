"""Per-sample state: written once an epoch, and never for padding."""

import jax.numpy as jnp
import numpy as np

from dynsel_jax.selectors import memory
from tests.support import simulation
from tests.support.simulation import NUM_SAMPLES


def test_scatter_leaves_out_padding_and_what_is_masked():
  signals = simulation.signals([4, -1, 0, 7])
  values = memory.scatter(jnp.zeros(NUM_SAMPLES), signals, jnp.array([1.0, 2.0, 3.0, 4.0]))
  assert {i: float(values[i]) for i in np.flatnonzero(values)} == {4: 1.0, 0: 3.0, 7: 4.0}
  flags = memory.scatter(jnp.zeros(NUM_SAMPLES, bool), signals, jnp.bool_(True), jnp.array([True, True, True, False]))
  assert np.flatnonzero(flags).tolist() == [0, 4]
  np.testing.assert_array_equal(memory.gather(values, signals), [1.0, 3.0, 3.0, 4.0])  # padding gets sample 0


def test_a_sample_is_first_once_an_epoch():
  last_epoch = jnp.full(NUM_SAMPLES, -1, jnp.int32)
  signals = simulation.signals([4, -1, 0], epoch=0)
  assert memory.first_this_epoch(last_epoch, signals).tolist() == [True, False, True]
  last_epoch = memory.scatter(last_epoch, signals, signals.epoch)
  assert not memory.first_this_epoch(last_epoch, signals).any()
  assert memory.first_this_epoch(last_epoch, simulation.signals([4, 5], epoch=1)).tolist() == [True, True]


def test_usage_counts_each_epoch_once_and_only_training():
  usage = memory.empty_usage(NUM_SAMPLES)
  for epoch, index, trained in ((0, [1, 2, -1], True), (0, [1, 3, -1], True), (1, [1, 2, 3], [True, False, True])):
    usage = memory.count_visits(usage, simulation.signals(index, epoch, trained))
  assert usage.visits[:5].tolist() == [0, 2, 1, 2, 0]
  assert int(usage.visits.sum()) == 5
  assert usage.last_epoch[:4].tolist() == [-1, 1, 0, 1]
