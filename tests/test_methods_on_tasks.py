"""Every method that reads nothing but losses can train on every task: its functions take what the task gives.

`setup.build` traces each function of a method on a task's signals; a method of each kind is traced through its steps.
What they compute is the matter of the contract test, and `test_regression` and `test_masked_image` have whole runs.
"""

import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import pytest

from configs import diabetes, digits, mae, pretrain_text
from dynsel_jax import data, selectors
from dynsel_jax.models import vit, vit_mae
from dynsel_jax.training import parallel, setup, steps
from tests.support import language, simulation, small_runs

LOSS_ALONE = [name for name in selectors.METHODS if not selectors.create(name, simulation.table(), 8).reads]
CONFIGS = {"classification": digits, "language_model": pretrain_text, "masked_image": mae, "regression": diabetes}


@pytest.fixture(scope="module", autouse=True)
def tiny():
  with pytest.MonkeyPatch.context() as patch, jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes types
    patch.setitem(vit.ENCODERS, "vit_micro", vit.Sizes(2, 8, 1, 2, 8))
    patch.setitem(vit_mae.DECODERS, "vit_micro", vit.Sizes(2, 8, 1, 2, 8))
    patch.setattr(parallel.Devices, "build", lambda self, function, *rest: jax.eval_shape(function, *rest))
    yield


@functools.cache
def _parts(task):
  made = CONFIGS[task].get_config("size=smoke")
  made.batch_size = 32
  with tempfile.TemporaryDirectory() as folder:
    if task == "language_model":
      made.dataset.train = made.dataset.test = language.documents(pathlib.Path(folder, "rows.jsonl"), 40)
    return setup.parts(made, data.prepare(made.dataset.to_dict()), small_runs.devices(1))


def test_most_methods_read_losses_alone():
  assert {"es", "eswp", "infobatch", "loss", "order_dp", "repb", "selective_backprop", "seta", "ucb"} < {*LOSS_ALONE}
  assert not {"kakurenbo", "rcap", "rho_loss", "rrd", "uds"} & {*LOSS_ALONE}


@pytest.mark.parametrize("method", LOSS_ALONE)
@pytest.mark.parametrize("task", CONFIGS)
def test_a_method_that_reads_losses_alone_trains_on_every_task(task, method):
  made = CONFIGS[task].get_config(f"size=smoke,selector={method}")
  assert made.task.name == task
  parts = _parts(task)
  run = setup.build(parts._replace(config=made), setup.table_of(parts.source))
  assert run.recipe.selector.reads == () and run.recipe.task.name == task


@pytest.mark.parametrize("method", ["infobatch", "es"])
@pytest.mark.parametrize("task", ["language_model", "masked_image", "regression"])
def test_a_method_of_each_kind_goes_through_the_steps(task, method):
  parts = _parts(task)
  made = CONFIGS[task].get_config(f"size=smoke,selector={method}")
  run = setup.build(parts._replace(config=made), setup.table_of(parts.source))
  zero, recipe = jax.ShapeDtypeStruct((), jnp.int32), run.recipe

  def epoch(state, arrays, number):
    state, info = steps.plan(recipe, state, arrays, number, number)
    train = steps.train if recipe.selector.thin is None else steps.train_thinned
    return train(recipe, state, arrays, number, number, number), info

  after, info = jax.eval_shape(epoch, run.initial, run.arrays, zero)
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, run.initial)
  assert all(value.shape == () for value in info.values())


def test_a_task_gives_the_geometry_of_logits_where_the_method_reads_it():
  for name in ("es", "uds"):
    assert pretrain_text.get_config(f"size=smoke,selector={name}").task.logit_geometry == (name == "uds")


def test_uds_trains_on_what_the_task_gives_beside_the_loss():
  parts = _parts("classification")
  made = digits.get_config("size=smoke,selector=uds")
  run = setup.build(parts._replace(config=made), setup.table_of(parts.source))
  step = functools.partial(steps.train_thinned, run.recipe)
  after = jax.eval_shape(step, run.initial, run.arrays, *[jax.ShapeDtypeStruct((), jnp.int32)] * 3)
  assert after.selector.memory.rows.shape == (1024, 1024)
