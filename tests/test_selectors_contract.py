"""The contract of a selector with the training loop, for the whole registry, bare and wrapped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import batching, selectors
from dynsel_jax.selectors import wrappers
from tests.support import simulation, small_runs
from tests.support.simulation import BATCH_SIZE, EPOCHS, NUM_SAMPLES

OPTIONS: dict[str, dict[str, object]] = {}  # of a method whose defaults do not fit 53 samples and 8 epochs
QUEUES = ("uds",)  # methods whose memory is a queue, and so depends on the order of the steps
WRAPPERS = {
  "annealed": lambda selector, table: wrappers.annealed(selector, table, EPOCHS, first=0.25, last=0.25),
  "warmed_up": lambda selector, table: wrappers.warmed_up(selector, table, EPOCHS),
}


class Subject:
  """A selector, its compiled functions, and a run of it."""

  def __init__(self, name: str):
    method, _, wrapper = name.partition("-")
    self.table = simulation.table()
    selector = selectors.create(method, self.table, EPOCHS, **OPTIONS.get(method, {}))
    self.selector = WRAPPERS[wrapper](selector, self.table) if wrapper else selector
    self.program = simulation.compiled(self.selector)
    self.history = simulation.run(self.program)
    self.name = name


WRAPPED = [f"{method}-{wrapper}" for method in ("random",) for wrapper in WRAPPERS]


@pytest.fixture(scope="module", params=[*selectors.METHODS, *WRAPPED])
def subject(request):
  return Subject(request.param)


def test_selections_and_plans_are_valid(subject):
  for epoch in subject.history:
    simulation.assert_epoch(epoch)


def test_each_function_is_traced_once(subject):
  sizes = {epoch.chosen.size for epoch in subject.history}
  assert subject.program.init.traces == subject.program.select.traces == subject.program.observe.traces == 1
  if "annealed" in subject.name or subject.name == "infobatch":
    assert len(sizes) > 1  # else the claim would be empty


def test_state_can_be_checkpointed(subject):
  state = subject.program.init(jax.random.key(3))
  for leaf in jax.tree.leaves(state):
    assert isinstance(leaf, jax.Array) and leaf.size > 0
  for epoch in subject.history:
    assert jax.tree.structure(epoch.state) == jax.tree.structure(state)
    assert [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(epoch.state)] == [
      (x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(state)
    ]


def test_runs_repeat(subject):
  for first, second in zip(subject.history, simulation.run(subject.program, 3), strict=False):
    simulation.assert_same(first.selection, second.selection)
    simulation.assert_same(first.plan, second.plan)
    simulation.assert_same(first.state, second.state)


def test_observe_is_idempotent_and_order_free(subject):
  program, state = subject.program, subject.history[1].state
  first = simulation.signals([3, 9, 27, 1, 40, 41, 52, -1], epoch=2)
  second = simulation.signals([0, 8, -1, -1, 11, 12, 13, 14], epoch=2, trained=[True, False] * 4)
  expected = program.observe(program.observe(state, first), second)
  if subject.name not in QUEUES:
    simulation.assert_same(program.observe(program.observe(state, second), first), expected)
  simulation.assert_same(program.observe(program.observe(expected, first), second), expected)
  rows = np.array([5, 2, 7, 0, 1, 6, 4, 3])
  shuffled = simulation.map_rows(lambda values: values[rows], first)
  for left, right in zip(
    jax.tree.leaves(program.observe(program.observe(state, shuffled), second)), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(np.asarray(left), np.asarray(right), rtol=1e-6)  # a batch mean may round otherwise


def test_padding_is_never_read(subject):
  program, state = subject.program, subject.history[1].state
  padding = simulation.signals([-1] * BATCH_SIZE, epoch=2)
  simulation.assert_same(program.observe(state, padding), state)


def test_no_loss_leaves_a_sample_out_before_every_sample_has_one(subject):
  method, program = selectors.METHODS[subject.name.partition("-")[0]], subject.program
  if "loss" not in method.signal:
    pytest.skip("reads no losses")
  assert subject.selector.thin is not None or any(epoch.chosen.size < NUM_SAMPLES for epoch in subject.history[1:])
  for unseen in (0, NUM_SAMPLES // 2):  # the second is alone in its class
    state = program.init(jax.random.key(3))
    for index in simulation.batches(np.delete(np.arange(NUM_SAMPLES), unseen)):
      state = program.observe(state, simulation.signals(index, epoch=0))
    for epoch in (1, EPOCHS // 2):
      selection, _ = program.select(simulation.select_key(epoch), state, jnp.int32(epoch))
      assert np.all(selection.keep)


@pytest.mark.parametrize("fault", ["equal", "nan", "inf", "all nan", "negative"])
def test_odd_losses_still_give_a_plan(subject, fault):
  loss = np.full(NUM_SAMPLES, 1.5) if fault == "equal" else np.linspace(0.1, 3.0, NUM_SAMPLES)
  loss[slice(7, None if fault == "all nan" else 8)] = {"nan": np.nan, "inf": np.inf, "all nan": np.nan}.get(fault, 1.5)
  if fault == "negative":
    loss -= 4.0  # all of them: a loss of another kind than cross-entropy
  state = subject.history[0].state
  for epoch in (1, 2, 3, 4):
    outcome = simulation.run_epoch(subject.program, state, epoch, loss)
    simulation.assert_epoch(outcome)
    state = outcome.state
  assert all(np.isfinite(float(value)) for name, value in outcome.info.items() if fault == "equal")


def test_devices_agree(subject):
  batch = simulation.signals([3, 9, 27, 1, 40, 41, 52, -1], epoch=3)
  rows = simulation.map_rows(lambda values: values.reshape(2, -1, *values.shape[1:]), batch)._replace(
    epoch=jnp.full(2, 3, jnp.int32)
  )
  select_key, order_key = simulation.epoch_keys(4)

  def step(keys, state, shard):
    whole = simulation.map_rows(lambda values: jax.lax.all_gather(values, "batch", tiled=True), shard)
    state = subject.selector.observe(state, whole)
    selection, _ = subject.selector.select(keys[0], state, jnp.int32(4))
    return state, selection, batching.order(keys[1], selection)

  mapped = jax.pmap(step, axis_name="batch", in_axes=(None, None, 0), devices=small_runs.devices(2))
  state = subject.history[2].state
  result = jax.block_until_ready(mapped((select_key, order_key), state, rows))
  for device in range(2):
    local = jax.tree.map(lambda x, device=device: np.asarray(x)[device], result)
    for left, right in zip(jax.tree.leaves(local), jax.tree.leaves(jax.tree.map(lambda x: x[0], result)), strict=True):
      np.testing.assert_array_equal(left, right)
  alone = subject.program.observe(state, batch)
  select_key, order_key = simulation.epoch_keys(4)
  expected, _ = subject.program.select(select_key, alone, jnp.int32(4))
  np.testing.assert_array_equal(np.asarray(result[1].keep)[0], expected.keep)
  np.testing.assert_array_equal(np.asarray(result[2].indices)[0], simulation.order(order_key, expected).indices)


def test_thinned_positions_are_valid(subject):
  if subject.selector.thin is None:
    pytest.skip("does not thin")
  steps = [step for epoch in subject.history for step in epoch.thinned]
  assert steps and subject.program.thin.traces == 1
  for index, positions, weights in steps:
    assert positions.shape == weights.shape == steps[0][1].shape
    assert (positions.dtype, weights.dtype) == (np.int32, np.float32)
    assert np.unique(positions).size == positions.size
    assert np.all((positions >= 0) & (positions < BATCH_SIZE))
    assert np.all(np.isfinite(weights)) and np.all(weights >= 0)
    valid = index[positions] >= 0
    assert np.all(weights[~valid] == 0)
    assert valid.sum() == min(positions.size, (index >= 0).sum())


@pytest.mark.parametrize("name", [name for name in selectors.METHODS if "keep_fraction" in selectors.defaults(name)])
def test_keeping_everything_is_plain_training(name):
  options = {**OPTIONS.get(name, {}), "keep_fraction": 1.0}
  selector = selectors.create(name, simulation.table(), EPOCHS, **options)
  state = jax.jit(selector.init, compiler_options=simulation.QUICK)(jax.random.key(3))
  select = jax.jit(selector.select, compiler_options=simulation.QUICK)
  selection, _ = select(simulation.select_key(2), state, jnp.int32(2))
  assert np.all(selection.keep) and selection.weights is None
  assert simulation.is_full(selection._replace(thin=False), 2)
