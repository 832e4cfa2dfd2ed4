"""Sweep files: their arguments, axes and cells, and the config of each cell; the shipped sweeps."""

import re

import pytest

from configs.sweeps import base
from dynsel_jax import options
from experiments import sweep
from tests.support import ROOT

SHIPPED = sorted(path for path in (ROOT / "configs" / "sweeps").glob("*.py") if path.stem not in ("__init__", "base"))


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
  monkeypatch.chdir(ROOT)


def test_cells_are_every_combination_with_fields_only_where_they_belong():
  axes = [
    base.methods(("full", "random", "es"), keep_fraction=0.3, beta1=0.1),
    base.field("learning_rate", (0.1, 0.05)),
    base.seeds(2),
  ]
  cells = base.cells(base.Sweep("configs/digits.py:size=smoke", axes, {"epochs": 1}))
  assert len(cells) == len({cell.name for cell in cells}) == 12
  by_name = {cell.name: cell for cell in cells}
  made = sweep.config_of(by_name["random_keep0.3-learning_rate0.05-seed1"])
  assert (made.selector.to_dict(), made.learning_rate, made.seed, made.epochs) == (
    {"name": "random", "keep_fraction": 0.3},
    0.05,
    1,
    1,
  )
  made = sweep.config_of(by_name["es_beta1_0.1-learning_rate0.1-seed0"])
  assert (made.selector.beta1, made.learning_rate) == (0.1, 0.1)
  assert "full-learning_rate0.1-seed0" in by_name
  assert [cell.column for cell in cells] == ["seed0"] * 6 + ["seed1"] * 6  # one seed of everything first


@pytest.mark.parametrize(
  ("axes", "line"),
  [([base.methods(("full", "full")), base.seeds(1)], "two cells called full-seed0"), ([base.seeds(0)], "no cell")],
)
def test_a_sweep_whose_cells_share_a_folder_or_are_none_is_refused(axes, line):
  with pytest.raises(options.UserError, match=line):
    base.cells(base.Sweep("configs/digits.py", axes))


@pytest.mark.parametrize(
  ("arguments", "line"),
  [("seed=1", "'seed' is not known; known: seeds"), ("seeds", "is not key=value"), ("seeds=two", "must be int")],
)
def test_a_wrong_argument_is_named(arguments, line):
  with pytest.raises(options.UserError, match=line):
    base.parse(arguments, seeds=3)


@pytest.mark.parametrize(
  ("file", "argument", "kind"),
  [
    ("factor_rules", "lengths=5+many", "integers"),
    ("frontier", "lengths=2.5", "integers"),
    ("frontier", "keep=", "numbers"),
    ("label_noise", "rates=0.2;0.4", "numbers"),
  ],
)
def test_an_argument_of_several_numbers_is_named_if_it_has_another(file, argument, kind):
  with pytest.raises(options.UserError, match=f"sweep argument '{re.escape(argument)}' must be {kind} joined by"):
    sweep.read_sweep(f"configs/sweeps/{file}.py:{argument}")


@pytest.mark.parametrize("name, value", [("learning_rte", 1.0), ("epochs", "many"), ("selector.beta1", 0.5)])
def test_a_field_that_cannot_be_set_is_named_with_its_cell(name, value):
  cell = base.Cell("row", "column", "configs/digits.py:selector=full", {name: value})
  with pytest.raises(options.UserError, match=f"cell row-column: {name}={value!r} cannot be set"):
    sweep.config_of(cell)


ONE_SIZE = ("demo", "digits_methods", "evidence", "frontier")


@pytest.mark.parametrize("size", ["cpu", "full"])
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_sweep_makes_configs_that_can_be_locked(path, size):
  cells = sweep.read_sweep(f"{path}" if path.stem in ONE_SIZE else f"{path}:size={size}")
  configs = [sweep.config_of(cell).to_json_best_effort(sort_keys=True) for cell in cells]
  assert len(set(configs)) == len(configs), "two cells are the same run"
  command = "frontier" if path.stem in ("frontier", "language_models") else "sweep"
  assert f"python -m experiments.{command} --sweep=configs/sweeps/{path.name}" in path.read_text()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_sweep_has_full_training_to_compare_with(path):
  names = {sweep.config_of(cell).selector.name for cell in sweep.read_sweep(str(path))}
  assert "full" in names


def test_the_paper_s_model_can_be_named_and_a_recipe_of_another_size_is_refused():
  for path in ("rrd_ablation", "label_noise"):
    cells = sweep.read_sweep(f"configs/sweeps/{path}.py:config=configs/cifar100.py,size=full,model=resnet50,keep=0.2")
    made = [sweep.config_of(cell) for cell in cells]
    assert {(config.model.name, config.epochs) for config in made} == {("resnet50", 200)}
    assert {config.selector.keep_fraction for config in made if config.selector.name == "rrd"} == {0.2}
  with pytest.raises(options.UserError, match="'converged=1' is of size=cpu"):
    sweep.read_sweep("configs/sweeps/rrd_ablation.py:size=full,converged=1")


def test_features_of_a_file_go_to_rrd_alone():
  cells = sweep.read_sweep("configs/sweeps/cifar10_methods.py:features=clip.npz,seeds=1")
  with_features = {cell.row: sweep.config_of(cell).features.path for cell in cells if "features" in cell.config}
  assert with_features == {"rrd_keep0.3": "clip.npz"}


def test_an_autoencoder_from_elsewhere_and_a_cache_of_its_own_go_where_they_belong():
  cells = sweep.read_sweep("configs/sweeps/sae_transfer.py:features=clip.npz,sae=other.npz,seeds=1")
  made = {cell.row: sweep.config_of(cell) for cell in cells}
  assert made.pop("full").selector.name == "full"
  of_share = {(config.selector.keep_fraction, config.factors.sae) for config in made.values()}
  assert of_share == {(share, sae) for share in (0.3, 0.5, 0.7) for sae in ("", "other.npz")}
  assert {config.features.path for config in made.values()} == {"clip.npz"}
  cells = sweep.read_sweep("configs/sweeps/overhead.py:cache=new,seeds=2")
  caches = {(cell.row, sweep.config_of(cell).cache_dir) for cell in cells}
  assert caches >= {("full", ""), ("rrd_keep0.3", "new/rrd_keep0.3"), ("rrd_keep0.7", "new/rrd_keep0.7")}
  assert len(caches) == 5


def test_models_bring_their_recipe_and_spaces_are_those_that_are_given():
  cells = sweep.read_sweep("configs/sweeps/backbones.py:config=configs/cifar10.py,size=full,seeds=1")
  made = {cell.row: sweep.config_of(cell) for cell in cells}
  recipes = {(config.model.name, config.optimizer.name, config.learning_rate) for config in made.values()}
  sgd = {(name, "sgd", 0.1) for name in ("resnet18", "resnet50", "vgg16")}
  assert recipes == {*sgd, ("vit_small", "adamw", 1e-3)}
  assert made["vgg16-rrd_keep0.7"].optimizer.weight_decay == 1e-4
  assert made["resnet18-rrd_keep0.7"].optimizer.weight_decay == 5e-4
  cells = sweep.read_sweep("configs/sweeps/feature_space.py:clip=weights,seeds=1")
  made = [config for config in map(sweep.config_of, cells) if config.selector.name == "rrd"]
  spaces = {(config.features.name, config.features.get("path")) for config in made}
  assert spaces == {("backbone", ""), ("pixels", None), ("clip", "weights")}
