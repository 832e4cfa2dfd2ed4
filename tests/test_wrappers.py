"""Full-data epochs: which ones, what they hold, and that the inner selector lives on."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax.options import UserError
from dynsel_jax.selectors import wrappers
from dynsel_jax.types import Selection, Selector
from tests.support import simulation
from tests.support.simulation import NUM_SAMPLES

quick = functools.partial(jax.jit, compiler_options=simulation.QUICK)


class ProbeState(NamedTuple):
  observed: jax.Array  # [] int32, valid rows so far


def probe():
  """Selects sample 5 alone with every field of a `Selection` unusual, thins to row 1, refreshes sample 7."""

  def only(index):
    return jnp.zeros(NUM_SAMPLES, bool).at[index].set(True)

  def select(key, state, epoch):
    del key, epoch
    unusual = Selection(only(5), jnp.full(NUM_SAMPLES, 2.0), learning_rate_multiplier=3.0)
    return unusual, {"observed": state.observed, "one": 1.0}

  return Selector(
    init=lambda key: ProbeState(jnp.int32(0)),
    select=select,
    observe=lambda state, signals: ProbeState(state.observed + jnp.sum(signals.index >= 0, dtype=jnp.int32)),
    thin=lambda key, state, signals: (jnp.array([1], jnp.int32), state.observed.astype(jnp.float32)[None]),
    refresh=lambda state, epoch: only(7),
    reads=("margin",),
    loss_normalization="batch_size",
  )


def full_epochs(epochs, **fractions):
  selector = wrappers.annealed(probe(), simulation.table(), epochs, **fractions)
  state, key = selector.init(jax.random.key(0)), jax.random.key(1)
  info = quick(jax.vmap(lambda epoch: selector.select(key, state, epoch)[1]))(jnp.arange(epochs, dtype=jnp.int32))
  return [epoch + 1 for epoch in np.flatnonzero(info["full_data"])]  # counted from 1


@pytest.mark.parametrize(
  "epochs, first, last, expected",
  [
    (200, 0.0, 0.15, list(range(171, 201))),
    (30, 0.0, 0.15, list(range(26, 31))),  # t > 25.5
    (20, 0.05, 0.05, [1, 20]),
    (10, 0.3, 0.0, [1, 2, 3]),  # 0.3 * 10 in floats is 3 by luck, 0.7 * 10 is not 7
    (10, 0.7, 0.3, list(range(1, 11))),
    (7, 0.2, 0.2, [1, 6, 7]),  # t <= 1.4, t > 5.6
    (5, 0.0, 0.0, []),
    (1, 0.05, 0.05, [1]),
  ],
)
def test_annealed_epochs_count_from_one(epochs, first, last, expected):
  assert full_epochs(epochs, first=first, last=last) == expected


@pytest.mark.parametrize("fractions", [{"first": -0.1}, {"last": 1.5}])
def test_fractions_out_of_range_are_named(fractions):
  with pytest.raises(UserError, match=f"{next(iter(fractions))}="):
    wrappers.annealed(probe(), simulation.table(), 8, **fractions)


@pytest.mark.parametrize("epoch, full", [(0, True), (1, False), (2, False), (3, True)])
def test_annealed_replaces_whole_selections(epoch, full):
  selector = wrappers.annealed(probe(), simulation.table(), 4, first=0.25, last=0.25)
  state = ProbeState(jnp.int32(9))
  selection, info = quick(selector.select)(jax.random.key(1), state, jnp.int32(epoch))
  simulation.assert_selection(selection)
  assert simulation.is_full(selection) == full
  assert bool(info["full_data"]) == full
  assert (int(info["observed"]), float(info["one"])) == ((0, 0.0) if full else (9, 1.0))
  assert float(selection.learning_rate_multiplier) == (1.0 if full else 3.0)
  assert bool(selection.thin) != full
  assert np.unique(selection.weights).tolist() == [1.0 if full else 2.0]
  assert np.flatnonzero(selector.refresh(state, jnp.int32(epoch))).tolist() == ([] if full else [7])


def test_annealed_passes_the_rest_through():
  inner = probe()
  selector = wrappers.annealed(inner, simulation.table(), 4)
  assert (selector.init, selector.observe, selector.thin) == (inner.init, inner.observe, inner.thin)
  assert (selector.reads, selector.loss_normalization) == (("margin",), "batch_size")
  bare = wrappers.annealed(inner._replace(thin=None, refresh=None), simulation.table(), 4)
  assert bare.thin is None and bare.refresh is None


def test_warmed_up_waits_for_the_last_sample():
  selector = wrappers.warmed_up(probe(), simulation.table(), 4)
  select, state = quick(selector.select), selector.init(jax.random.key(0))
  everyone = np.arange(NUM_SAMPLES)
  for index, full in ((everyone[1:], True), ([-1, 5], True), ([0, -1], False)):
    state = selector.observe(state, simulation.signals(index))
    selection, info = select(jax.random.key(1), state, jnp.int32(0))
    assert simulation.is_full(selection) == full == bool(info["full_data"])
  assert int(info["observed"]) == NUM_SAMPLES + 1  # the inner selector observed all along
  positions, weights = selector.thin(jax.random.key(2), state, simulation.signals([3, 4]))
  assert (positions.tolist(), weights.tolist()) == ([1], [NUM_SAMPLES + 1.0])
  assert np.flatnonzero(selector.refresh(state, jnp.int32(0))).tolist() == [7]
  assert (selector.reads, selector.loss_normalization) == (("margin",), "batch_size")


def test_wrappers_nest_and_say_so_once():
  table = simulation.table()
  selector = wrappers.annealed(wrappers.warmed_up(probe(), table, 4), table, 4, last=0.25)
  select, unseen = quick(selector.select), selector.init(jax.random.key(0))
  seen = selector.observe(unseen, simulation.signals(np.arange(NUM_SAMPLES)))
  for state, epoch, full in ((unseen, 0, True), (unseen, 3, True), (seen, 1, False), (seen, 3, True)):
    selection, info = select(jax.random.key(1), state, jnp.int32(epoch))
    assert simulation.is_full(selection, epoch) == full == bool(info["full_data"])
