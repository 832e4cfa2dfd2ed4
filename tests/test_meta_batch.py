"""A meta-batch larger than a step's batch: scored in one pass, trained on in a step of full size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dynsel_jax import batching, options
from dynsel_jax.data import gather
from dynsel_jax.runs.interruption import Interrupted
from dynsel_jax.training import parallel
from tests.support import small_runs

BATCH, META = 32, 128  # es trains on a quarter of a meta-batch


def config(**changes):
  return small_runs.config("es", **{"batch_size": BATCH, "meta_batch_size": META, **changes})


def test_a_step_is_a_score_of_the_meta_batch_and_a_plain_step_on_the_chosen():
  run = small_runs.build(config(selector__anneal_first=0.0, optimizer__momentum=0.0, optimizer__weight_decay=0.0))
  state, _ = run.programs.plan(run.devices.copy(run.initial), run.arrays, 0)
  index = np.asarray(state.plan.indices)[META : 2 * META]  # of the second step
  train, selector_state, key = run.initial.train, run.initial.selector, run.arrays.key
  new = parallel.fetch(run.programs.train_thinned(state, run.arrays, 0, 1, 1))

  images = gather.normalize(jnp.asarray(run.source.train["inputs"])[index], run.source.mean, run.source.std)
  labels = jnp.asarray(run.source.labels)[index]

  def losses(params, rows):
    variables = {"params": params, "batch_stats": train.batch_stats}
    logits, _ = run.recipe.module.apply(variables, images[rows], jnp.ones(len(rows), bool), train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])

  scored = losses(train.params, np.arange(META))
  for number in (0, batching.Purpose.THIN, 1):  # epoch, purpose, step
    key = jax.random.fold_in(key, number)
  signals = batching.signals(jnp.asarray(index), scored, jnp.int32(0), trained=jnp.zeros(META, bool))
  rows, _ = run.recipe.selector.thin(key, selector_state, signals)
  assert rows.shape == (BATCH,)
  trained = np.zeros(len(run.source.labels), int)
  trained[index[np.asarray(rows)]] = 1
  np.testing.assert_array_equal(new.usage.visits, trained)
  np.testing.assert_array_equal(np.flatnonzero(np.isfinite(new.usage.last_loss)), np.sort(index))
  np.testing.assert_allclose(new.usage.last_loss[index], scored, rtol=1e-4)

  gradient = jax.grad(lambda params: losses(params, np.asarray(rows)).mean())(train.params)
  steps = -(-len(run.source.labels) // META)
  rate = run.recipe.schedule(jnp.float32((0 + 1 / steps) / 2))  # of the first of two epochs
  expected = jax.tree.map(lambda p, g: p - rate * g, train.params, gradient)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), new.train.params, expected)


def test_whole_epochs_take_batches_and_thinned_ones_meta_batches(tmp_path):
  made = config(epochs=3, selector__anneal_first=0.34, selector__anneal_last=0.3)
  summary, _ = small_runs.train(made, tmp_path)
  whole, thinned = -(-1442 // BATCH), -(-1442 // META)
  assert [line["step"] for line in small_runs.lines(tmp_path)] == [whole, whole + thinned, 2 * whole + thinned]
  assert summary["backward_visits"] == 2 * 1442 + thinned * BATCH


def test_a_meta_batch_of_the_batch_is_the_same_bits(tmp_path):
  one = small_runs.train(config(batch_size=META, meta_batch_size=META, epochs=1), tmp_path / "one")[1]
  other = small_runs.train(config(batch_size=META, meta_batch_size=0, epochs=1), tmp_path / "other")[1]
  small_runs.same_state(one, other)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_stopped_in_a_thinned_epoch_it_continues_with_the_same_bits(tmp_path, monkeypatch, num_devices):
  made = config(selector__anneal_first=0.0, selector__anneal_last=0.0)
  _, alone = small_runs.train(made, tmp_path / "alone", num_devices)
  with monkeypatch.context() as patch:
    small_runs.interrupted_at(5, patch)
    with pytest.raises(Interrupted):
      small_runs.train(made, tmp_path / "stopped", num_devices)
  _, continued = small_runs.train(made, tmp_path / "stopped", num_devices)
  small_runs.same_state(continued, alone)


@pytest.mark.parametrize(
  ("selector", "size", "said"),
  [
    ("infobatch", META, "meta_batch_size=128: selector=infobatch trains on whole batches"),
    ("es", 16, "meta_batch_size=16 must be a multiple"),
    ("es", 4096, "meta_batch_size=4096 must be a multiple"),
  ],
)
def test_a_size_without_meaning_is_refused(selector, size, said):
  made = small_runs.config(selector, batch_size=BATCH, meta_batch_size=size)
  with pytest.raises(options.UserError, match=said):
    small_runs.build(made)
