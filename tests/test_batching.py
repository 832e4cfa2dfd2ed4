"""From a selection to batches and the loss of a step: properties of the order, and twins written out in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsel_jax import batching, selectors
from dynsel_jax.selectors import permutation
from dynsel_jax.selectors.wrappers.full_data import everything
from dynsel_jax.types import LOSS_NORMALIZATIONS, Plan, Selection
from tests.support import simulation
from tests.support.simulation import BATCH_SIZE, NUM_SAMPLES

SIZES = (1, 37, 4999)  # one sample; an order that is sorted; one that is not
quick = functools.partial(jax.jit, compiler_options=simulation.QUICK)
batch_of = quick(batching.batch_of, static_argnames=("batch_size", "num_shards"))
loss_scale = quick(batching.loss_scale, static_argnums=2)
weighted_mean = quick(batching.weighted_mean, static_argnames="loss_normalization")


def ordered(keep, seed=0, weights=None):
  """The plan of a selection, whose weights may be None."""
  selection = Selection(jnp.asarray(keep), None if weights is None else jnp.asarray(weights, jnp.float32))
  return selection, simulation.order(jax.random.key(seed), selection)


def random_mask(seed, n, fraction):
  return np.random.default_rng(seed).random(n) < fraction


def visited(plan):
  return np.asarray(plan.indices)[: int(plan.size)]


SELECTIONS = given(
  n=st.sampled_from(SIZES), seed=st.integers(0, 2**31), fractions=st.tuples(st.floats(0, 1), st.floats(0, 1))
)


@settings(max_examples=40, deadline=None)
@SELECTIONS
def test_an_order_is_a_permutation_of_the_kept_with_their_weights(n, seed, fractions):
  keep = random_mask(seed, n, fractions[0])
  weights = np.where(keep, np.random.default_rng(seed + 1).exponential(size=n), np.nan)  # the others' are not read
  for given_weights in (None, weights):
    selection, plan = ordered(keep, seed, given_weights)
    simulation.assert_plan(plan, selection)


@settings(max_examples=40, deadline=None)
@SELECTIONS
def test_two_kept_samples_come_in_the_same_order_whatever_else_is_kept(n, seed, fractions):
  one, other = (random_mask(seed + i, n, fraction) for i, fraction in enumerate(fractions))
  both = one & other
  orders = [visited(ordered(keep, seed)[1]) for keep in (one, other)]
  np.testing.assert_array_equal(*(order[both[order]] for order in orders))


@pytest.mark.parametrize("n", [200, 6000])
def test_an_order_filters_one_permutation(n):
  whole = visited(ordered(np.ones(n, bool))[1])
  np.testing.assert_array_equal(whole, permutation.permutation(jax.random.key(0), n))
  keep = random_mask(n, n, 0.3)
  weights = np.arange(n, dtype=np.float32) + 1
  _, plan = ordered(keep, weights=weights)
  np.testing.assert_array_equal(visited(plan), whole[keep[whole]])
  np.testing.assert_array_equal(plan.weights[: int(plan.size)], weights[visited(plan)])
  assert not np.array_equal(whole, visited(ordered(np.ones(n, bool), seed=1)[1]))


def test_plans_of_everything_and_of_nothing():
  selection = everything(50)
  assert not selection.thin and selection.weights is None and float(selection.learning_rate_multiplier) == 1.0
  plan = simulation.order(jax.random.key(0), selection)
  np.testing.assert_array_equal(plan.indices, permutation.permutation(jax.random.key(0), 50))
  assert plan.weights.tolist() == [1.0] * 50 and int(plan.size) == 50
  empty = batching.empty_plan(50)
  assert np.all(empty.indices == -1) and int(empty.size) == 0 and not empty.weights.any()
  simulation.assert_same(empty, ordered(np.zeros(50, bool))[1])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), fraction=st.floats(0, 1), shape=st.sampled_from([(8, 1), (8, 2), (8, 8), (12, 3)]))
def test_batches_and_their_shards_hold_the_plan_in_its_order(seed, fraction, shape):
  batch_size, num_shards = shape
  keep = random_mask(seed, NUM_SAMPLES, fraction)
  _, plan = ordered(keep, seed, np.random.default_rng(seed).exponential(size=NUM_SAMPLES))
  steps = -(-NUM_SAMPLES // batch_size) + 1  # also behind the end of the whole set
  index, weights = np.full(steps * batch_size, -1), np.zeros(steps * batch_size, np.float32)
  index[: keep.sum()], weights[: keep.sum()] = visited(plan), plan.weights[: keep.sum()]
  for step in range(steps):
    rows = slice(step * batch_size, (step + 1) * batch_size)
    whole = batch_of(plan, jnp.int32(step), batch_size=batch_size)
    assert (whole[0].dtype, whole[1].dtype) == (jnp.int32, jnp.float32)
    shards = [
      batch_of(plan, jnp.int32(step), batch_size=batch_size, shard=jnp.int32(shard), num_shards=num_shards)
      for shard in range(num_shards)
    ]
    for column, expected in enumerate((index[rows], weights[rows])):
      np.testing.assert_array_equal(whole[column], expected)
      np.testing.assert_array_equal(np.concatenate([shard[column] for shard in shards]), expected)


BATCHES = given(
  seed=st.integers(0, 2**31),
  num_padded=st.integers(0, BATCH_SIZE),
  normalization=st.sampled_from(LOSS_NORMALIZATIONS),
  zeros=st.integers(0, BATCH_SIZE),
)


def a_batch(seed, num_padded, zeros):
  """Index, losses and weights of a batch, some of the weights 0; padding holds what must never be read."""
  rng = np.random.default_rng(seed)
  index = rng.permutation(NUM_SAMPLES)[:BATCH_SIZE].astype(np.int32)
  losses, weights = rng.exponential(size=(2, BATCH_SIZE)).astype(np.float32)
  weights[rng.permutation(BATCH_SIZE)[:zeros]] = 0.0
  padded = rng.permutation(BATCH_SIZE)[:num_padded]
  index[padded], losses[padded], weights[padded] = -1, np.nan, 7.0
  return index, losses, weights


@settings(max_examples=60, deadline=None)
@BATCHES
def test_the_loss_of_a_step_is_that_of_its_valid_rows(seed, num_padded, normalization, zeros):
  index, losses, weights = a_batch(seed, num_padded, zeros)
  total, divisor = 0.0, 0.0
  for row in range(BATCH_SIZE):
    if index[row] >= 0:
      total += float(weights[row]) * float(losses[row])
      divisor += float(weights[row]) if normalization == "weight_sum" else 1.0
  expected = total / divisor if divisor else 0.0  # nothing to train on
  found = weighted_mean(losses, weights, index, loss_normalization=normalization)
  assert (found.shape, found.dtype) == ((), jnp.float32)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  scale = np.asarray(loss_scale(index, weights, normalization))
  assert not np.any(scale[(index < 0) | (weights == 0)])
  np.testing.assert_allclose(np.sum((scale.astype(float) * losses)[index >= 0]), expected, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@BATCHES
def test_the_shards_of_a_batch_add_up_to_its_loss(seed, num_padded, normalization, zeros):
  index, _, weights = a_batch(seed, num_padded, zeros)
  whole = loss_scale(index, weights, normalization)
  rows = [array.reshape(4, -1) for array in (index, weights)]
  shards = over_shards(normalization)(*rows)
  np.testing.assert_allclose(np.concatenate(shards), whole, rtol=1e-6)


@functools.cache
def over_shards(normalization):
  """`loss_scale` of the shards of a batch, each of which knows the others through the sum over an axis alone."""
  total = functools.partial(jax.lax.psum, axis_name="batch")
  return quick(jax.vmap(lambda i, w: batching.loss_scale(i, w, normalization, total), axis_name="batch"))


def test_weights_of_one_make_the_plain_mean_under_either_normalization():
  index, losses, _ = a_batch(0, 3, 0)
  for normalization in LOSS_NORMALIZATIONS:
    found = weighted_mean(losses, np.ones(BATCH_SIZE, np.float32), index, loss_normalization=normalization)
    np.testing.assert_allclose(found, losses[index >= 0].mean(), rtol=1e-6)
  doubled = np.full(BATCH_SIZE, 2.0, np.float32)
  assert float(weighted_mean(losses, doubled, index)) == pytest.approx(losses[index >= 0].mean())  # by weight_sum
  found = weighted_mean(losses, doubled, index, loss_normalization="batch_size")
  assert float(found) == pytest.approx(2 * losses[index >= 0].mean())


def test_signals_fill_in_what_is_left_out():
  index, loss = jnp.array([4, -1, 0], jnp.int32), jnp.array([1.0, 2.0, 3.0])
  plain = batching.signals(index, loss, 3)
  assert (plain.trained.tolist(), plain.extras) == ([True, False, True], {})
  assert (plain.epoch.dtype, plain.epoch.shape, int(plain.epoch)) == (jnp.int32, (), 3)
  assert plain.index is index and plain.loss is loss
  scored = batching.signals(index, loss, jnp.int32(3), trained=jnp.zeros(3, bool), correct=index > 0, margin=loss)
  assert scored.trained.tolist() == [False] * 3
  assert list(scored.extras) == ["correct", "margin"]


@pytest.mark.parametrize("name", ["infobatch", "kakurenbo", "rcap"])
def test_all_epochs_run_in_one_program(name):
  """The loop of somebody who compiles everything does what the loop of the simulation does."""
  table, epochs = simulation.table(), 4
  selector = selectors.create(name, table, epochs)
  seen = [simulation.signals(np.arange(NUM_SAMPLES), epoch) for epoch in range(epochs)]
  recorded = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)

  def train_epoch(state, inputs):
    epoch, sample = inputs
    select_key, order_key = simulation.epoch_keys(epoch)
    selection, _ = selector.select(select_key, state, epoch)
    plan = batching.order(order_key, selection)

    def step(carry, number):
      state, loss_sum = carry
      index, weights = batching.batch_of(plan, number, BATCH_SIZE)
      batch = simulation.map_rows(lambda values: values[jnp.maximum(index, 0)], sample)
      loss = batching.weighted_mean(batch.loss, weights, index, loss_normalization=selector.loss_normalization)
      state = selector.observe(state, batching.signals(index, batch.loss, epoch, **batch.extras))
      return (state, loss_sum + loss), None

    (state, loss_sum), _ = jax.lax.scan(step, (state, jnp.float32(0)), jnp.arange(-(-NUM_SAMPLES // BATCH_SIZE)))
    if selector.refresh is not None:
      hidden = jnp.where(selector.refresh(state, epoch), jnp.arange(NUM_SAMPLES, dtype=jnp.int32), -1)
      scored = batching.signals(hidden, sample.loss, epoch, trained=jnp.zeros(NUM_SAMPLES, bool), **sample.extras)
      state = selector.observe(state, scored)
    return state, (plan, loss_sum)

  state = selector.init(jax.random.key(3))
  state, (plans, losses) = quick(functools.partial(jax.lax.scan, train_epoch))(
    state, (jnp.arange(epochs, dtype=jnp.int32), recorded)
  )
  history = simulation.run(simulation.compiled(selector), epochs)
  for epoch, outcome in enumerate(history):
    simulation.assert_same(Plan(*(leaf[epoch] for leaf in plans)), outcome.plan)
  simulation.assert_same(state, history[-1].state)
  assert np.all(np.isfinite(losses)) and np.all(np.asarray(losses) > 0)
