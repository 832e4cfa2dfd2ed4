"""Full-data epochs: which ones, what they hold, and that the inner selector lives on."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax.options import UserError
from dynsel_jax.selectors import ranking, wrappers
from dynsel_jax.types import Selection, Selector
from tests.support import simulation
from tests.support.simulation import NUM_SAMPLES

quick = functools.partial(jax.jit, compiler_options=simulation.QUICK)


class ProbeState(NamedTuple):
  observed: jax.Array  # [] int32, valid rows so far


def probe():
  """Selects sample 5 alone with every field of a `Selection` unusual, thins to row 1, refreshes sample 7."""

  def only(index, **fields):
    nobody = ranking.nothing(NUM_SAMPLES)
    return Selection(nobody.indices.at[0].set(index), nobody.weights.at[0].set(2.0), jnp.int32(1), **fields)

  return Selector(
    init=lambda key: ProbeState(jnp.int32(0)),
    select=lambda key, state, epoch: (only(5, learning_rate_multiplier=3.0), {"observed": state.observed, "one": 1.0}),
    observe=lambda state, signals: ProbeState(state.observed + jnp.sum(signals.index >= 0, dtype=jnp.int32)),
    thin=lambda key, state, signals: (jnp.array([1], jnp.int32), state.observed.astype(jnp.float32)[None]),
    refresh=lambda state, epoch: only(7),
  )


def full_epochs(epochs, **shares):
  selector = wrappers.annealed(probe(), simulation.table(), epochs, **shares)
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


@pytest.mark.parametrize("shares", [{"first": -0.1}, {"last": 1.5}])
def test_shares_out_of_range_are_named(shares):
  with pytest.raises(UserError, match=f"{next(iter(shares))}="):
    wrappers.annealed(probe(), simulation.table(), 8, **shares)


@pytest.mark.parametrize("epoch, full", [(0, True), (1, False), (2, False), (3, True)])
def test_annealed_replaces_whole_plans(epoch, full):
  selector = wrappers.annealed(probe(), simulation.table(), 4, first=0.25, last=0.25)
  state, key = ProbeState(jnp.int32(9)), jax.random.key(1)
  plan, info = quick(selector.select)(key, state, jnp.int32(epoch))
  simulation.assert_plan(plan)
  assert simulation.is_full(plan, key) == full
  assert bool(info["full_data"]) == full
  assert (int(info["observed"]), float(info["one"])) == ((0, 0.0) if full else (9, 1.0))
  assert float(plan.learning_rate_multiplier) == (1.0 if full else 3.0)
  assert bool(plan.thin) != full
  assert int(selector.refresh(state, jnp.int32(epoch)).size) == (0 if full else 1)


def test_annealed_passes_the_rest_through():
  inner = probe()
  selector = wrappers.annealed(inner, simulation.table(), 4)
  assert (selector.init, selector.observe, selector.thin) == (inner.init, inner.observe, inner.thin)
  bare = wrappers.annealed(inner._replace(thin=None, refresh=None), simulation.table(), 4)
  assert bare.thin is None and bare.refresh is None


def test_warmed_up_waits_for_the_last_sample():
  selector = wrappers.warmed_up(probe(), simulation.table(), 4)
  select, key = quick(selector.select), jax.random.key(1)
  state = selector.init(jax.random.key(0))
  everyone = np.arange(NUM_SAMPLES)
  for index, full in ((everyone[1:], True), ([-1, 5], True), ([0, -1], False)):
    state = selector.observe(state, simulation.signals(index))
    plan, info = select(key, state, jnp.int32(0))
    assert simulation.is_full(plan, key) == full == bool(info["full_data"])
  assert int(info["observed"]) == NUM_SAMPLES + 1  # the inner selector observed all along
  positions, weights = selector.thin(key, state, simulation.signals([3, 4]))
  assert (positions.tolist(), weights.tolist()) == ([1], [NUM_SAMPLES + 1.0])
  assert int(selector.refresh(state, jnp.int32(0)).indices[0]) == 7


def test_wrappers_nest_and_say_so_once():
  table = simulation.table()
  selector = wrappers.annealed(wrappers.warmed_up(probe(), table, 4), table, 4, last=0.25)
  select, key, unseen = quick(selector.select), jax.random.key(1), selector.init(jax.random.key(0))
  seen = selector.observe(unseen, simulation.signals(np.arange(NUM_SAMPLES)))
  for state, epoch, full in ((unseen, 0, True), (unseen, 3, True), (seen, 1, False), (seen, 3, True)):
    plan, info = select(key, state, jnp.int32(epoch))
    assert simulation.is_full(plan, key) == full == bool(info["full_data"])
