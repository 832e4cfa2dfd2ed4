"""Wrappers that change who is chosen, or with which weight, against brute force and planted truth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsel_jax import selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers import WRAPPERS
from dynsel_jax.selectors.wrappers.class_balanced import class_balanced, class_quotas
from dynsel_jax.selectors.wrappers.noise_guarded import noise_guarded
from dynsel_jax.selectors.wrappers.rescaled import rescaled
from dynsel_jax.types import SampleTable, Selection, Selector, Volume
from tests.support import simulation
from tests.support.simulation import NUM_CLASSES, NUM_SAMPLES

quick = functools.partial(jax.jit, compiler_options=simulation.QUICK)
LABELS = np.asarray(simulation.table().labels)


def chooses(keep, weights=None):
  """A selector that always keeps the same samples and remembers nothing."""

  return Selector(
    init=lambda key: memory.EmptyState(),
    select=lambda key, state, epoch: (Selection(jnp.asarray(keep), weights), {"word": jax.random.bits(key)}),
    observe=lambda state, signals: state,
  )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 400), min_size=5, max_size=5), st.floats(0, 1))
def test_quotas_are_integers_and_exact(seed, sizes, part):
  layout = ranking.ClassLayout(jnp.zeros(1, jnp.int32), np.array(sizes, np.int32))
  size = int(part * sum(sizes))
  quotas = np.asarray(class_quotas(jax.random.key(seed), jnp.int32(size), layout))
  exact = size * np.array(sizes) / sum(sizes)
  assert quotas.sum() == size and np.all(np.abs(quotas - exact) < 1) and np.all((quotas >= 0) & (quotas <= sizes))


def test_quotas_of_a_large_set_do_not_overflow():
  sizes = np.array([700_000_001, 1, 299_999_999], np.int32)  # the product with the size has 60 bits
  layout = ranking.ClassLayout(jnp.zeros(1, jnp.int32), sizes)
  quotas = np.asarray(class_quotas(jax.random.key(0), jnp.int32(999_999_999), layout)).tolist()
  exact = [999_999_999 * int(n) / 1_000_000_001 for n in sizes]
  assert sum(quotas) == 999_999_999 and all(abs(a - b) < 1 for a, b in zip(quotas, exact, strict=True))


def test_a_class_too_small_for_one_sample_gets_one_at_its_rate():
  layout = ranking.class_layout(SampleTable(10, jnp.asarray([0] * 9 + [1], jnp.int32), 2))
  keys = jax.random.split(jax.random.key(2), 4000)
  quotas = jax.vmap(lambda key: class_quotas(key, jnp.int32(3), layout))(keys)
  assert np.mean(np.asarray(quotas[:, 1])) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 4000))


def test_balancing_cuts_and_fills_within_each_class():
  chosen = np.isin(LABELS, [0, 3]) | (np.arange(NUM_SAMPLES) == np.flatnonzero(LABELS == 1)[0])
  given = np.where(LABELS == 0, 3.0, 1.0).astype(np.float32)
  selector = class_balanced(chooses(chosen, jnp.asarray(given)), simulation.table(), 8)
  select = quick(selector.select)
  size = chosen.sum()
  kept = []
  for seed in range(5):
    selection, info = select(jax.random.key(seed), memory.EmptyState(), jnp.int32(0))
    simulation.assert_selection(selection)
    keep, weights = np.asarray(selection.keep), np.asarray(selection.weights)
    kept.append(keep)
    exact = size * np.bincount(LABELS, minlength=NUM_CLASSES) / NUM_SAMPLES
    assert np.all(np.abs(np.bincount(LABELS[keep], minlength=NUM_CLASSES) - exact) < 1)
    assert int(info["filled_in"]) == (keep & ~chosen).sum()
    assert not np.any(keep & ~chosen & (LABELS == 0))  # one of whose class too many were chosen
    np.testing.assert_allclose(weights[keep & chosen], given[keep & chosen])
    np.testing.assert_allclose(weights[keep & ~chosen], given[chosen].mean(), rtol=1e-6)
  assert all(keep[np.flatnonzero(LABELS == 1)[0]] for keep in kept)  # the inner choice comes first
  assert any(not np.array_equal(kept[0], keep) for keep in kept)


def test_balancing_a_balanced_selection_changes_nothing():
  table = SampleTable(40, jnp.asarray(np.arange(40) % 4, jnp.int32), 4)
  inner = chooses(np.arange(40) < 20)
  expected, _ = quick(inner.select)(jax.random.key(3), memory.EmptyState(), jnp.int32(0))
  selection, info = quick(class_balanced(inner, table, 8).select)(jax.random.key(3), memory.EmptyState(), jnp.int32(0))
  simulation.assert_same(selection, expected)
  assert int(info["filled_in"]) == 0


def test_rescaled_weights_make_an_unequal_draw_unbiased():
  n, epochs, size = 6, 3, 3
  table = SampleTable(n)
  log_weights = jnp.log(jnp.arange(1.0, n + 1))

  def select(key, state, epoch):
    del state, epoch
    return Selection(ranking.weighted_subset(key, log_weights, size)), {}

  selector = rescaled(Selector(lambda key: memory.EmptyState(), select, lambda state, signals: state), table, epochs)
  values = jnp.array([5.0, -3.0, 2.0, 0.0, 1.0, -2.0])
  seen = simulation.signals(np.arange(size))

  def errors(key):
    """Estimate minus truth over the samples seen so far in the last epoch, with the weights and without."""
    state, ever = selector.init(key), jnp.zeros(n, bool)
    for epoch in range(epochs):
      selection, _ = selector.select(jax.random.fold_in(key, epoch), state, jnp.int32(epoch))
      index = jnp.flatnonzero(selection.keep, size=size).astype(jnp.int32)
      state = selector.observe(state, seen._replace(index=index, epoch=jnp.int32(epoch)))
      ever = ever.at[index].set(True)
    truth = jnp.sum(jnp.where(ever, values, 0.0)) / jnp.sum(ever, dtype=jnp.float32)
    return jnp.mean(selection.weights[index] * values[index]) - truth, jnp.mean(values[index]) - truth

  weighted, plain = map(np.asarray, simulation.over_keys(errors, 20_000))
  assert abs(weighted.mean()) < 4 * weighted.std() / np.sqrt(20_000)
  assert abs(plain.mean()) > 10 * plain.std() / np.sqrt(20_000)


def test_rescaled_counts_only_epochs_that_choose():
  n = 4
  table = SampleTable(n)
  choices = [[0, 1, 2, 3], [0, 1], [0, 2], [0, 1, 2, 3], [0, 1]]

  def select(key, state, epoch):
    keeps = jnp.asarray([[i in choice for i in range(n)] for choice in choices])
    return Selection(keeps[epoch], jnp.full(n, 9.0)), {}

  selector = rescaled(Selector(lambda key: memory.EmptyState(), select, lambda state, signals: state), table, 5)
  step, observe = quick(selector.select), quick(selector.observe)
  state, weights = selector.init(jax.random.key(0)), []
  for epoch, indices in enumerate(choices):
    selection, _ = step(jax.random.key(epoch), state, jnp.int32(epoch))
    weights.append(np.where(selection.keep, selection.weights, 0.0))
    for batch in (indices[:2], indices[2:] or [-1, -1], indices[:2]):  # the first comes twice, as after a restart
      state = observe(state, simulation.signals(batch, epoch))
  assert state.sizes.tolist() == [4, 2, 2, 4, 2]
  np.testing.assert_allclose(
    weights,
    [
      [1, 1, 1, 1],
      [1, 1, 0, 0],  # t = 1, u = 1, M = 2 of S = 2
      [2 / 2 * 2 / 3, 0, 2 / 1 * 2 / 3, 0],  # t = 2, M = 2 of S = 3
      [1, 1, 1, 1],
      [3 / 3 * 2 / 3, 3 / 2 * 2 / 3, 0, 0],  # t = 3
    ],
    rtol=1e-6,
  )


def test_guard_leaves_out_the_planted_noise_of_each_class():
  n = 60
  labels = np.arange(n) % 3
  noisy = np.isin(np.arange(n) // 3, [2, 11])  # two of the twenty of each class
  rng = np.random.default_rng(0)
  margin = np.where(noisy, -0.6, 0.4) + rng.normal(0, 0.1, n) - 0.3 * (labels == 2)  # class 2 is hard
  hard = (labels == 2) & ~noisy
  table = SampleTable(n, jnp.asarray(labels, jnp.int32), 3)
  inner = chooses(noisy | (np.arange(n) < 12))
  selector = noise_guarded(inner, table, 10, drop=0.1, first=0.2)
  select, observe = quick(selector.select), quick(selector.observe)
  state, everyone = selector.init(jax.random.key(0)), np.arange(n)
  for epoch in range(4):
    selection, info = select(jax.random.key(epoch), state, jnp.int32(epoch))
    simulation.assert_selection(selection, n)
    keep = np.asarray(selection.keep)
    if epoch < 2:
      assert np.array_equal(keep, noisy | (everyone < 12)) and int(info["suspected"]) == 0
    else:
      assert not np.any(keep & noisy) and int(info["suspected"]) == noisy.sum()
      assert keep.sum() == (noisy | (everyone < 12)).sum()  # others take their places
      assert np.all(keep[:12][~noisy[:12]])  # the inner choice stays
    seen = simulation.signals(everyone, epoch)
    seen = seen._replace(extras={"margin": jnp.asarray(margin, jnp.float32)})
    state = observe(observe(state, seen), seen)
  assert state.observations.tolist() == [4] * n
  np.testing.assert_allclose(state.margin_sum / 4, margin, rtol=1e-5)
  assert np.any(margin[hard] < 0.2)


def test_guard_takes_a_nan_for_the_worst_margin():
  table = SampleTable(10, jnp.zeros(10, jnp.int32), 1)
  selector = noise_guarded(chooses(np.ones(10, bool)), table, 10, drop=0.1, first=0.0)
  seen = simulation.signals(np.arange(10))
  margin = seen.extras["margin"].at[4].set(jnp.nan)
  state = selector.observe(selector.init(jax.random.key(0)), seen._replace(extras={"margin": margin}))
  selection, _ = quick(selector.select)(jax.random.key(1), state, jnp.int32(1))
  assert selection.keep.tolist() == [index != 4 for index in range(10)]


def test_guard_spares_the_only_sample_of_a_class_and_the_unseen():
  selector = noise_guarded(chooses(np.ones(NUM_SAMPLES, bool)), simulation.table(), 8, drop=0.9, first=0.0)
  state, select = selector.init(jax.random.key(0)), quick(selector.select)
  selection, info = select(jax.random.key(1), state, jnp.int32(0))
  assert int(info["suspected"]) == 0 and np.all(selection.keep)
  state = quick(selector.observe)(state, simulation.signals(np.arange(NUM_SAMPLES)))
  selection, _ = select(jax.random.key(1), state, jnp.int32(1))
  assert selection.keep[NUM_SAMPLES // 2]


@pytest.mark.parametrize("fractions", [{"drop": 1.0}, {"drop": -0.1}, {"first": 1.1}])
def test_guard_names_a_fraction_out_of_range(fractions):
  with pytest.raises(UserError, match=f"{next(iter(fractions))}="):
    noise_guarded(chooses(np.ones(NUM_SAMPLES, bool)), simulation.table(), 8, **fractions)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_hands_its_key_on(name):
  inner = chooses(np.arange(NUM_SAMPLES) < 20)
  inner = inner._replace(volume=Volume(0.4, lambda keep_fraction: inner))
  selector = WRAPPERS[name].factory(inner, simulation.table(), 8)
  state = selector.observe(selector.init(jax.random.key(0)), simulation.signals(np.arange(NUM_SAMPLES)))
  _, info = quick(selector.select)(jax.random.key(6), state, jnp.int32(2))
  assert int(info["word"]) == int(jax.random.bits(jax.random.key(6)))


HARMLESS = {"annealed": {"first": 0.0, "last": 0.0}, "noise_guarded": {"drop": 0.0}, "rescaled": {}, "warmed_up": {}}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("method", ["random", "infobatch", "rcap"])
def test_a_wrapper_that_has_nothing_to_do_leaves_the_choice_as_it_is(method, name):
  bare, wrapped = (
    simulation.run(simulation.compiled(selectors.create(method, simulation.table(), 8, wrapped_in)), 4)
    for wrapped_in in ({}, {name: HARMLESS[name]})
  )
  for one, other in zip(bare[1:], wrapped[1:], strict=True):  # epoch 0 is on the full data where it is warmed up
    np.testing.assert_array_equal(one.selection.keep, other.selection.keep)
    np.testing.assert_array_equal(one.plan.indices, other.plan.indices)
    if name != "rescaled":
      np.testing.assert_array_equal(one.plan.weights, other.plan.weights)
