"""The method `proxy`: its ranks against a run written out, its batches against the small network's, and its resume."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import cifar10_fast
from dynsel_jax import batching, data, selectors
from dynsel_jax.batching import Purpose
from dynsel_jax.offline import proxy_ranks
from dynsel_jax.options import UserError
from dynsel_jax.runs import timing
from dynsel_jax.runs.interruption import Interrupted
from dynsel_jax.selectors.proxy import COLUMN
from dynsel_jax.selectors.wrappers.full_data import everything
from dynsel_jax.training import setup
from dynsel_jax.types import SampleTable
from tests.support import simulation, small_runs

BATCH = 128  # of the large network; the small one's is 256
quick = functools.partial(jax.jit, compiler_options=simulation.QUICK)


def config(cache, **changes):
  made = small_runs.config("proxy", batch_size=BATCH, cache_dir=str(cache), **changes)
  made.proxy.model.update(hidden=())  # few losses of a linear model are equal
  return made


def table(ranks):
  ranks = jnp.asarray(ranks, jnp.float32)
  return SampleTable(len(ranks), columns={COLUMN: ranks})


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
  """Ranks of two epochs, of whose steps the first, the fourth and so on train; plain SGD, images mirrored at random."""
  made = config(tmp_path_factory.mktemp("cache"), optimizer__momentum=0.0, optimizer__weight_decay=0.0)
  made.dataset.augmentations = ("flip",)
  made.proxy.update_every = 3
  source = data.prepare(made.dataset.to_dict())
  return made, source, proxy_ranks.made(made, source, timing.Timers())["ranks"]


def plan_of(run, selection, epoch):
  _, key = batching.epoch_keys(run.arrays.key, jnp.int32(epoch))
  return simulation.order(key, selection)


def test_ranks_are_those_of_a_run_written_out(ranked):
  made, source, ranks = ranked
  small = made.copy_and_resolve_references()
  small.model = made.proxy.model
  run = small_runs.build(_plain(small), source=source)
  params, schedule, module = run.initial.train.params, run.recipe.schedule, run.recipe.module
  labels, train = jnp.asarray(source.labels), {name: jnp.asarray(array) for name, array in source.train.items()}

  def losses(params, inputs, rows):
    logits, _ = module.apply({"params": params}, inputs, jnp.ones(len(inputs), bool), train=True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows])

  @quick
  def scored(params, epoch, index):
    key = batching.key_of(run.arrays.key, epoch, Purpose.AUGMENT)
    inputs = run.recipe.task.inputs(key, index, {name: array[index] for name, array in train.items()})["inputs"]
    return inputs, losses(params, inputs, index)

  @quick
  def moved(params, progress, inputs, index, rows):
    grads = jax.grad(lambda params: losses(params, inputs[rows], index[rows]).mean())(params)
    return jax.tree.map(lambda p, g: p - schedule(progress) * g, params, grads)

  expected, num_steps = np.zeros_like(ranks), -(-len(labels) // 256)
  for epoch in range(2):
    order = np.asarray(plan_of(run, everything(len(labels)), epoch).indices)
    for step in range(num_steps):
      index = order[step * 256 : (step + 1) * 256]
      inputs, found = scored(params, jnp.int32(epoch), index)
      hardest = np.argsort(-np.asarray(found))
      expected[index[hardest], epoch] = np.arange(1, len(index) + 1) / len(index)
      if step % 3 == 0:
        params = moved(params, np.float32((epoch + step / num_steps) / 2), inputs, index, np.sort(hardest[:BATCH]))
  assert np.abs(ranks - expected).max() < 0.05
  assert np.mean(np.abs(ranks - expected) > 1e-6) < 0.02


def _plain(made):
  plain = small_runs.config("full", batch_size=256)
  plain.model, plain.optimizer = made.model, made.optimizer
  plain.dataset.augmentations = made.dataset.augmentations
  return plain


def test_batches_are_the_small_networks_batches_cut(ranked):
  made, source, ranks = ranked
  run = setup.build(setup.parts(made, source, jax.devices()[:1]), setup.table_of(source, {COLUMN: jnp.asarray(ranks)}))
  for epoch in range(2):
    state, _ = run.programs.plan(run.devices.copy(run.initial), run.arrays, epoch)
    chosen = np.asarray(state.plan.indices)[: int(state.plan.size)]
    order = np.asarray(plan_of(run, everything(len(ranks)), epoch).indices)
    for step in range(len(order) // 256):
      batch = order[step * 256 : (step + 1) * 256]
      np.testing.assert_array_equal(chosen[step * BATCH : (step + 1) * BATCH], batch[ranks[batch, epoch] <= 0.5])
    assert len(chosen) == BATCH * (len(order) // 256) + len(order) % 256 // 2
  assert np.any((ranks[:, 0] <= 0.5) != (ranks[:, 1] <= 0.5))


def test_stopped_in_either_network_it_ends_with_the_same_bits(ranked, tmp_path, monkeypatch):
  made = ranked[0].copy_and_resolve_references()
  made.checkpoint_every_steps = 4
  whole = small_runs.train(made, tmp_path / "whole")
  assert whole[0]["seconds"]["proxy"] == 0  # the cache has the ranks
  assert abs(whole[0]["realised_keep_fraction"] - 0.5) < 0.001
  made.cache_dir = str(tmp_path / "other")
  for step, words in ((3, "network of the section proxy"), (6 * 2 + 3, "saved")):
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=words):
      small_runs.interrupted_at(step, patch)
      small_runs.train(made, tmp_path / "parts")
  parts = small_runs.train(made, tmp_path / "parts")
  assert parts[0]["seconds"]["proxy"] > 0
  small_runs.same_state(whole[1], parts[1])


def test_steps_that_train_begin_each_round():
  taken = []

  def noting(name):
    return lambda state, arrays, epoch, step, count: taken.append((name, step, count))

  program = proxy_ranks.now_and_then(4, noting("train"), noting("watch"))
  program(None, None, 0, 0, 6)
  program(None, None, 0, 6, 3)
  train, watch = (lambda *which, name=name: (name, *which) for name in ("train", "watch"))
  assert taken == [train(0, 1), watch(1, 3), train(4, 1), watch(5, 1), watch(6, 2), train(8, 1)]


def test_an_epoch_takes_the_ranks_of_its_own():
  ranks = np.array([[0.25, 1.0], [0.5, 0.75], [0.75, 0.5], [1.0, np.nan]])
  selector = selectors.create("proxy", table(ranks), 2)
  state = selector.init(jax.random.key(0))
  for epoch, keep, missing in ((0, [1, 1, 0, 0], 0), (1, [0, 0, 1, 0], 1)):
    selection, info = selector.select(jax.random.key(1), state, jnp.int32(epoch))
    assert np.asarray(selection.keep).tolist() == list(map(bool, keep)) and int(info["non_finite"]) == missing
  one = selectors.create("proxy", table(ranks[:, 0]), 2, keep_fraction=0.75)
  selection, _ = one.select(jax.random.key(1), one.init(jax.random.key(0)), jnp.int32(1))
  assert np.asarray(selection.keep).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
  "ranks, options, line",
  [
    (np.ones((4, 3)), {}, r"shape \(4, 3\); it must have one value for each of the 4 samples in each of epochs=2"),
    (np.ones((4, 2)), {}, "keeps no sample in epoch 1: no proxy_rank of it is at most keep_fraction=0.5"),
    (np.full(4, np.nan), {}, "proxy_rank contains no finite value"),
    (np.ones(4), {"keep_fraction": 0.0}, "keep_fraction=0.0"),
  ],
)
def test_wrong_ranks_are_named(ranks, options, line):
  with pytest.raises(UserError, match=line):
    selectors.create("proxy", table(ranks), 2, **options)


def test_ranks_by_epoch_are_no_static_score():
  with pytest.raises(UserError, match="only selector=proxy reads such a column"):
    selectors.create("top", table(np.ones((4, 2))), 2, column=COLUMN)


@pytest.mark.parametrize(
  "changes, line",
  [
    ({"proxy__update_every": 0}, "proxy.update_every=0 must be at least 1"),
    ({"proxy__model__hidden": (0,)}, "the network of the section proxy: model.hidden=.0,. must contain"),
  ],
)
def test_what_the_small_network_cannot_take_is_named_before_anything_is_written(changes, line, tmp_path):
  made = small_runs.config("proxy", cache_dir=str(tmp_path / "cache"), **changes)
  with pytest.raises(UserError, match=line):
    small_runs.train(made, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_the_fast_recipe_trains_on_half_batches_at_the_same_step():
  plain, half = (cifar10_fast.get_config(f"preset=96,selector={name}") for name in ("full", "proxy"))
  assert (half.batch_size, half.epochs, half.proxy.update_every) == (512, 45, 4)
  assert half.selector.keep_fraction == 0.5
  assert half.learning_rate * half.optimizer.weight_decay == pytest.approx(
    plain.learning_rate * plain.optimizer.weight_decay
  )
  assert half.learning_rate / half.batch_size == pytest.approx(plain.learning_rate / plain.batch_size)
  assert half.proxy.model.widths == (32, 64, 64) and half.proxy.model.convolutions == 2
  with pytest.raises(UserError, match="proxy=mlp: selector=full reads no ranks"):
    cifar10_fast.get_config("selector=full,proxy=mlp")


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 128, 1000])
@pytest.mark.parametrize("keep_fraction", [0.1, 0.3, 0.3333333, 0.5, 0.7, 1.0])
def test_the_kept_fraction_of_the_small_networks_batch_is_the_large_networks_batch(tmp_path, batch_size, keep_fraction):
  made = config(tmp_path, selector__keep_fraction=keep_fraction)
  made.batch_size = batch_size
  small, _ = proxy_ranks._config(made)
  ranks = np.arange(1, small.batch_size + 1, dtype=np.float32) / np.float32(small.batch_size)
  assert np.sum(ranks <= np.float32(keep_fraction)) == batch_size
