"""One step: weights, multipliers, evaluation, and the program that runs several steps in a call."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax.data import gather
from dynsel_jax.training import evaluation, parallel, steps
from tests.support import small_runs


@pytest.fixture(scope="module")
def built():
  return small_runs.build(small_runs.config("full", learning_rate=0.1, schedule__warmup=0.0))


def _after_one_step(run, *, multiplier=1.0, **plan):
  """The state after one step on a plan with some of its fields changed, and with that learning rate multiplier."""
  state, _ = run.programs.plan(run.devices.copy(run.initial), run.arrays, 0)
  state = state._replace(
    plan=state.plan._replace(**{name: run.devices.place(value) for name, value in plan.items()}),
    learning_rate_multiplier=run.devices.place(jnp.float32(multiplier)),
  )
  return parallel.fetch(run.programs.train(state, run.arrays, 0, 0, 1))


def _moved(run, new):
  return np.concatenate(
    [
      np.ravel(a - b)
      for a, b in zip(jax.tree.leaves(new.train.params), jax.tree.leaves(run.initial.train.params), strict=True)
    ]
  )


@pytest.mark.parametrize(("loss_normalization", "factor"), [("weight_sum", 1.0), ("batch_size", 2.0)])
def test_weights_are_divided_by_their_sum_or_by_the_number_of_samples(loss_normalization, factor):
  made = small_runs.config("full", loss_normalization=loss_normalization, optimizer__weight_decay=0.0)
  run = small_runs.build(made)
  assert run.recipe.selector.loss_normalization == loss_normalization
  plain = _moved(run, _after_one_step(run))
  double = _moved(run, _after_one_step(run, weights=jnp.full(1442, 2.0)))
  np.testing.assert_allclose(double, factor * plain, rtol=1e-3, atol=1e-7)


def test_a_weight_of_zero_takes_a_sample_out(built):
  weights = jnp.ones(1442).at[64:128].set(0.0)  # the second half of the first batch
  state, _ = built.programs.plan(built.devices.copy(built.initial), built.arrays, 0)
  first_half = state.plan.indices.at[64:].set(-1)
  one = _after_one_step(built, weights=weights)
  other = _after_one_step(built, indices=first_half)
  np.testing.assert_allclose(_moved(built, one), _moved(built, other), rtol=1e-4, atol=1e-7)


def test_the_learning_rate_multiplier_scales_the_step(built):
  plain = _after_one_step(built)
  double = _after_one_step(built, multiplier=2.0)
  np.testing.assert_allclose(_moved(built, double), 2 * _moved(built, plain), rtol=1e-4, atol=1e-7)
  assert double.meters.learning_rate == pytest.approx(2 * plain.meters.learning_rate)


def test_padding_counts_nowhere(built):
  state, _ = built.programs.plan(built.devices.copy(built.initial), built.arrays, 0)
  chosen = np.asarray(state.plan.indices[:10])
  new = _after_one_step(built, indices=state.plan.indices.at[10:].set(-1))
  np.testing.assert_array_equal(np.flatnonzero(new.usage.visits), np.sort(chosen))
  assert new.meters.forward_visits == new.meters.backward_visits == 10
  assert new.meters.weight_sum == 10
  np.testing.assert_array_equal(np.isfinite(new.usage.last_loss), new.usage.visits > 0)


def test_evaluation_sees_every_test_sample_once_whatever_the_batch():
  made = small_runs.config("full", eval_batch_size=100)  # 355 test samples: the last batch is padded
  run = small_runs.build(made, 2)
  done = evaluation.empty(evaluation.shapes(run.recipe, run.initial.train, run.arrays, 355))
  done = run.devices.place(done)
  for step in range(4):
    done = run.programs.evaluate(done, run.initial.train, run.arrays, step, 1)
  test = run.source.test
  variables = {"params": run.initial.train.params, "batch_stats": run.initial.train.batch_stats}
  logits, _ = run.recipe.module.apply(
    variables,
    gather.normalize(jnp.asarray(test["inputs"]), run.source.mean, run.source.std),
    jnp.ones(355, bool),
    train=False,
  )
  losses = -np.asarray(jax.nn.log_softmax(logits))[np.arange(355), test["labels"]]
  sums = {name: (float(total), int(count)) for name, (total, count) in done.sums.items()}
  right = np.count_nonzero(np.argmax(logits, axis=1) == test["labels"])
  assert sums == {"accuracy": (right, 355), "loss": (pytest.approx(losses.sum(), rel=1e-5), 355)}
  values = evaluation.values(run.recipe.task, parallel.fetch(done))
  assert values == {"accuracy": right / 355, "loss": pytest.approx(losses.mean(), rel=1e-5)}


def test_several_steps_in_one_call_are_the_steps_taken_one_by_one():
  run = small_runs.build(small_runs.config("infobatch"), 2)
  looped = parallel.create_programs(run.recipe, run.devices, looped=True)
  ends = []
  for programs, counts in ((run.programs, [1] * 7), (looped, [5, 2])):
    state, _ = programs.plan(run.devices.copy(run.initial), run.arrays, 0)
    step = 0
    for count in counts:
      state = programs.train(state, run.arrays, 0, step, count)
      step += count
    ends.append(parallel.fetch(state))
  assert looped.steps_per_call > 1
  assert ends[0].train.step == ends[1].train.step == 7
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ends[0].train, ends[1].train)
  np.testing.assert_array_equal(ends[0].usage.visits, ends[1].usage.visits)


def test_what_is_not_finite_is_noticed_at_the_latest_at_the_end_of_a_call(built):
  looped = parallel.create_programs(built.recipe, built.devices, looped=True)

  def first_bad(programs, count):
    state, _ = programs.plan(built.devices.copy(built.initial), built.arrays, 0)
    state = state._replace(learning_rate_multiplier=built.devices.place(jnp.float32(np.inf)))
    return int(programs.train(state, built.arrays, 0, 0, count).meters.non_finite_step)

  assert first_bad(built.programs, 1) == 1
  assert first_bad(looped, 1) == 1  # of its parameters: the loss was finite
  assert first_bad(looped, 3) == 2  # of its loss


def test_a_samples_view_depends_on_epoch_and_index_alone():
  made = small_runs.config("full", dataset__augmentations=("crop", "flip"))
  run = small_runs.build(made)
  inputs = jax.jit(lambda epoch, index: steps._model_inputs(run.recipe, run.arrays, epoch, index)["inputs"])
  one = inputs(jnp.int32(3), jnp.array([5, 9, 200], jnp.int32))
  other = inputs(jnp.int32(3), jnp.array([200, 5, 1], jnp.int32))
  np.testing.assert_array_equal(one[0], other[1])
  np.testing.assert_array_equal(one[2], other[0])
  later = inputs(jnp.int32(4), jnp.array([5, 9, 200], jnp.int32))
  assert not np.array_equal(one, later)


def test_a_thinned_step_computes_little_beyond_what_it_must():
  run, zero = small_runs.build(small_runs.config("es", model="resnet_patch", model__width=40)), jnp.int32(0)

  def operations(step):
    analysis = (
      jax.jit(functools.partial(step, run.recipe)).lower(run.initial, run.arrays, zero, zero, zero).cost_analysis()
    )
    if analysis is None:
      pytest.skip(f"XLA counts no operations for {jax.default_backend()} before it compiles")
    return analysis["flops"]

  # A forward pass over B and both passes over b = B / 4: (B + b + 2 b) / (3 B) = 0.583.
  assert 0.5 < operations(steps.train_thinned) / operations(steps.train) < 0.6


def test_programs_that_nobody_can_call_any_more_are_freed(built):
  """Otherwise a process would keep those of all its runs, 20 MB each."""

  def made():
    inner = built.recipe.selector
    selector = inner._replace(select=lambda key, state, epoch: inner.select(key, state, epoch))
    programs = parallel.create_programs(built.recipe._replace(selector=selector), built.devices)
    return programs, weakref.ref(selector.select)

  (kept, of_kept), (dropped, of_dropped) = made(), made()
  for programs in (kept, dropped):
    programs.plan(built.devices.copy(built.initial), built.arrays, 0)
  del programs, dropped
  gc.collect()
  assert of_dropped() is None
  assert of_kept() is not None
  kept.plan(built.devices.copy(built.initial), built.arrays, 1)


def test_a_copy_of_a_state_holds_nothing_of_its_run(built):
  def own(number):
    return number

  copied, held = built.devices.copy(jax.tree_util.Partial(own, jnp.float32(2))), weakref.ref(own)
  assert copied.args[0] == 2
  del own, copied
  gc.collect()
  assert held() is None
