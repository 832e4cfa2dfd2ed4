"""Every config in every variant can be built; the variants' words are checked."""

import importlib
import pathlib

import pytest
from conftest import ROOT

from configs import base
from dynsel_jax import models, options, selectors
from dynsel_jax.training import optimizers, schedules

NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "base"))


@pytest.mark.parametrize("size", ["full", "cpu", "smoke"])
@pytest.mark.parametrize("name", NAMES)
def test_every_size_builds_a_config_whose_parts_exist(name, size):
  made = importlib.import_module(f"configs.{name}").get_config(f"size={size}").lock()
  assert name.startswith(made.dataset.name) or made.dataset.name == "folder"  # cifar100_noisy is cifar100 with noise
  for section, room in (
    (made.model, models),
    (made.selector, selectors),
    (made.optimizer, optimizers),
    (made.schedule, schedules),
  ):
    known = room.defaults(section.name)
    assert set(known) <= set(section.keys()) <= {"name", "dtype", *known}
  assert made.keys() == base.get_config("x", model="mlp").keys()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("selector", list(selectors.METHODS))
def test_every_method_is_a_variant_of_every_config(name, selector):
  made = importlib.import_module(f"configs.{name}").get_config(f"selector={selector},size=cpu")
  assert made.selector.to_dict() == {"name": selector, **selectors.defaults(selector)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_every_optimizer_and_schedule_is_a_variant_of_every_config(name, optimizer, schedule):
  for size in ("full", "cpu"):
    made = importlib.import_module(f"configs.{name}").get_config(
      f"optimizer={optimizer},schedule={schedule},size={size}"
    )
    assert set(made.optimizer.keys()) == {"name", *optimizers.defaults(optimizer)}
    assert set(made.schedule.keys()) == {"name", *schedules.defaults(schedule)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", ["full", "cpu", "smoke"])
def test_batches_can_be_shared_by_eight_devices(name, size):
  made = importlib.import_module(f"configs.{name}").get_config(f"size={size}")
  assert made.batch_size % 8 == made.eval_batch_size % 8 == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_config_says_its_command(name):
  text = pathlib.Path(ROOT, "configs", f"{name}.py").read_text()
  assert f"python -m experiments.train --config=configs/{name}.py" in text


@pytest.mark.parametrize(
  ("variants", "line"),
  [
    ("size=huge", "size='huge' is not known; known: cpu, full, smoke"),
    ("sise=cpu", "config variant='sise' is not known"),
    ("cpu", "config variant 'cpu' is not key=value"),
    ("selector=nothing", "'nothing'"),
    ("model=vgg1", "mlp, resnet18"),
    ("schedule=linear", "known: constant, cosine"),
    ("optimizer=lion", "known: adam"),
  ],
)
def test_a_wrong_variant_is_named(variants, line):
  with pytest.raises(options.UserError) as error:
    importlib.import_module("configs.digits").get_config(variants)
  assert line in str(error.value)
