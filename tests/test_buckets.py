"""Length buckets: how a plan is grouped, what a step is cut to, and that cutting changes no number of a run."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies

from configs import rsd15k
from dynsel_jax.training import buckets, parallel, trainer
from dynsel_jax.types import Plan
from tests.support import small_runs

N = 23
BUCKETS = buckets.Buckets((3, 5, 9), 0)


def _inputs(counts):
  return np.where(np.arange(9) < np.asarray(counts)[:, None], 7, 0).astype(np.int32)


@functools.partial(jax.jit, static_argnums=3)
def _regrouped(key, plan, bucket, batch_size):
  return buckets.shuffle_batches(key, buckets.group(plan, bucket), batch_size)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
  order=strategies.permutations(range(N)),
  bucket=strategies.lists(strategies.integers(0, 3), min_size=N, max_size=N),
  size=strategies.integers(0, N),
  batch_size=strategies.sampled_from([1, 4, 23, 30]),
  seed=strategies.integers(0, 1 << 20),
)
def test_batches_are_those_of_the_sorted_order_and_come_in_a_random_one(order, bucket, size, batch_size, seed):
  bucket = np.array(bucket, np.int32)
  weight_of = np.random.default_rng(0).random(N).astype(np.float32)
  taken = np.arange(N) < size
  indices = np.where(taken, order, -1).astype(np.int32)
  weights = np.where(taken, weight_of[order], 0).astype(np.float32)
  plan = Plan(indices, weights, jnp.int32(size))
  found = jax.tree.map(np.asarray, _regrouped(jax.random.key(seed), plan, bucket, batch_size))

  by_bucket = indices[:size][np.argsort(bucket[indices[:size]], kind="stable")]
  cut = size // batch_size * batch_size
  whole, wanted = (rows[:cut].reshape(-1, batch_size).tolist() for rows in (found.indices, by_bucket))
  assert sorted(whole) == sorted(wanted)
  np.testing.assert_array_equal(found.indices[cut:size], by_bucket[cut:])
  np.testing.assert_array_equal(found.indices[size:], -1)
  np.testing.assert_array_equal(found.weights, np.where(taken, weight_of[found.indices], 0))
  assert found.size == size


def test_the_order_of_batches_is_the_keys_and_every_one_comes_first():
  indices = np.arange(N, dtype=np.int32)
  plan = Plan(indices, np.ones(N, np.float32), jnp.int32(N))
  firsts = [int(_regrouped(jax.random.key(seed), plan, np.zeros(N, np.int32), 4).indices[0]) // 4 for seed in range(60)]
  assert set(firsts) == set(range(5))


def test_a_step_is_cut_to_the_shortest_length_that_holds_its_longest_text():
  inputs = _inputs([2, 3, 4, 5, 6, 9])
  assert buckets.of_rows(BUCKETS, jnp.asarray(inputs)).tolist() == [0, 0, 1, 1, 2, 2]

  @jax.jit
  def seen(index, rows):
    cut = buckets.cutting(BUCKETS, {"inputs": jnp.asarray(inputs)}, index)
    # Other arrays of a batch, though as wide, are left as they are.
    return cut(
      lambda batch: (jnp.int32(batch["inputs"].shape[1]), jnp.sum(batch["inputs"]), jnp.sum(batch["whole"])),
      {"inputs": rows, "whole": rows},
    )

  for batch, length in (([0, 1], 3), ([1, 2], 5), ([3, -1], 5), ([0, 4], 9), ([-1, -1], 3)):
    index = np.array(batch, np.int32)
    width, total, whole = seen(index, inputs[np.maximum(index, 0)][:1])  # the first row, as if of one device of two
    assert width == length
    assert total == inputs[max(batch[0], 0), :length].sum()
    assert whole == inputs[max(batch[0], 0)].sum()


@pytest.fixture(autouse=True)
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


def _config(tmp_path, selector, dropout=0.0, lengths=2):
  """Each length is a branch of the step's program, which takes its time to compile."""
  made = rsd15k.get_config(f"size=smoke,selector={selector}")
  made.dataset.length_buckets = lengths
  small_runs.planted_texts(made, tmp_path)
  made.update(batch_size=16, eval_batch_size=10, epochs=3, checkpoint_every_steps=0)
  made.model.update(vocabulary=20, layers=1, dropout=dropout)
  return made


@pytest.mark.parametrize("selector", ["infobatch", "es", "kakurenbo"])  # weights, thinned steps, scoring afterwards
def test_cutting_changes_no_number(selector, tmp_path, monkeypatch):
  made = _config(tmp_path, selector)
  run = small_runs.build(made)
  assert len(run.recipe.buckets.lengths) == 2
  _, state = small_runs.train(made, tmp_path / "cut")
  monkeypatch.setattr(buckets, "cutting", lambda *_: lambda function, batch: function(batch))
  _, whole = small_runs.train(made, tmp_path / "whole")
  for one, other in zip(small_runs.lines(tmp_path / "cut"), small_runs.lines(tmp_path / "whole"), strict=True):
    for field in ("train_loss", "test_loss", "weight_sum"):
      np.testing.assert_allclose(one[field], other[field], rtol=1e-4)
    assert one["forward_visits"] == other["forward_visits"]
  np.testing.assert_array_equal(state.usage.visits, whole.usage.visits)
  np.testing.assert_allclose(state.usage.last_loss, whole.usage.last_loss, rtol=1e-3)


def test_thinned_steps_with_dropout_are_the_same_on_two_devices(tmp_path):
  made = _config(tmp_path, "es", dropout=0.1)
  made.selector.anneal_first = made.selector.anneal_last = 0.0
  (_, one), (_, two) = (small_runs.train(made, tmp_path / str(count), count) for count in (1, 2))
  np.testing.assert_array_equal(one.usage.visits, two.usage.visits)
  np.testing.assert_allclose(one.usage.last_loss, two.usage.last_loss, rtol=1e-3)


def test_a_run_through_all_lengths_traces_nothing_after_its_programs(tmp_path, monkeypatch):
  seen, marks = [], []
  compile_programs = trainer.Trainer.compile

  def marking(self):
    compile_programs(self)
    marks.append(len(seen))

  def listener(event, seconds, **details):
    del seconds
    if "trace" in event or "compile" in event:
      seen.append((event, details))

  monkeypatch.setattr(trainer.Trainer, "compile", marking)
  jax.monitoring.register_event_duration_secs_listener(listener)
  small_runs.train(_config(tmp_path, "kakurenbo"), tmp_path / "run")
  jax.monitoring.unregister_event_duration_listener(listener)
  assert marks[0] > 0
  assert seen[marks[0] :] == []


def test_every_step_of_a_plan_holds_texts_of_similar_length(tmp_path):
  made = _config(tmp_path, "full", lengths=4)
  run = small_runs.build(made)
  indices = []
  for epoch in (0, 1):
    state, _ = run.programs.plan(run.devices.copy(run.initial), run.arrays, epoch)
    indices.append(np.asarray(state.plan.indices))
    assert sorted(indices[-1]) == list(range(96))
  assert not np.array_equal(*indices)
  lengths = np.array(run.recipe.buckets.lengths)
  of_sample = np.searchsorted(lengths, np.sum(run.source.train["inputs"] != 0, axis=1))
  for of_epoch in indices:
    batches = of_sample[of_epoch].reshape(-1, 16)
    assert np.all(np.sort(batches.min(axis=1))[1:] >= np.sort(batches.max(axis=1))[:-1])  # ranges that at most touch
    assert lengths[batches.max(axis=1)].sum() < 0.95 * 6 * lengths[-1]
    assert batches.max(axis=1).tolist() != sorted(batches.max(axis=1))


def test_steps_of_every_length_in_one_call_are_the_steps_taken_one_by_one(tmp_path):
  made = _config(tmp_path, "full", dropout=0.1)
  run = small_runs.build(made, 2)
  looped = parallel.create_programs(run.recipe, run.devices, looped=True)
  ends = []
  for programs, counts in ((run.programs, [1] * 6), (looped, [6])):
    state, _ = programs.plan(run.devices.copy(run.initial), run.arrays, 0)
    for step, count in enumerate(counts):
      state = programs.train(state, run.arrays, 0, step, count)
    ends.append(parallel.fetch(state))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ends[0].train, ends[1].train)


def test_images_have_no_buckets():
  run = small_runs.build(small_runs.config("full"))
  assert run.recipe.buckets is None
