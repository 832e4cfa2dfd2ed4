"""Bad input: one clear line that names the field and the value, an exit status, and nothing half-written."""

import os
import subprocess
import sys

import pytest

from configs import digits
from dynsel_jax import options
from experiments import benchmark
from tests.support import ROOT, small_runs


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"selector__keep_fraction": 0.0}, "keep_fraction=0.0 must lie in (0, 1]"),
    ({"selector__keep_fraction": 1.5}, "keep_fraction=1.5 must lie in (0, 1]"),
    ({"batch_size": 0}, "batch_size=0 must be a multiple of the 1 device(s)"),
    ({"batch_size": 600}, "batch_size=600 is larger than a selection of 432 samples (1442 * keep_fraction=0.3)"),
    ({"eval_batch_size": 0}, "eval_batch_size=0 must be"),
    ({"epochs": 0}, "epochs=0 must be greater than 0"),
    ({"dataset__name": "no_such_set"}, "no_such_set"),
    ({"dataset__augmentations": ("crop", "turn")}, "turn"),
    ({"model__dtype": "float16"}, "model.dtype='float16' is not known; known: bfloat16, float32"),
    ({"model__name": "mlpp"}, "mlp, resnet18"),
    ({"selector__name": "randon"}, "random_static"),
    ({"selector__name": "no.such.module:thing"}, "no.such.module"),
    ({"optimizer__momentum": 0.5, "optimizer__name": "adam"}, "optimizer 'adam' has no option 'momentum'"),
    ({"learning_rate": -0.1}, "learning_rate=-0.1 must be greater than 0"),
    ({"task__label_smoothing": 1.0}, "task.label_smoothing=1.0 must lie in [0, 1)"),
    (
      {"task__name": "clasification"},
      "task.name='clasification' is not known; known: classification, language_model, ",
    ),
    ({"task__smoothing": 0.1}, "task 'classification' has no option 'smoothing'; its options: label_smoothing"),
    ({"loss_normalization": "mean"}, "loss_normalization='mean' is not known; known: batch_size, weight_sum"),
    ({"label_smoothing": 0.1}, "config has a field 'label_smoothing' that nothing reads; its fields: batch_size, "),
    ({"checkpoint_every_steps": -1}, "checkpoint_every_steps=-1"),
    ({"model__hidden": (64.5,)}, "model.hidden=64.5 must be an integer"),
    ({"optimizer__momentum": 2.0}, "optimizer.momentum=2.0 must lie in [0, 1)"),
  ],
)
def test_one_line_names_the_field_and_the_value(changes, line, tmp_path):
  workdir = tmp_path / "run"
  with pytest.raises(options.UserError) as error:
    small_runs.train(small_runs.config(**changes), workdir)
  assert line in str(error.value)
  assert "\n" not in str(error.value)
  assert not workdir.exists()


@pytest.mark.parametrize("name", ["seed", "task", "loss_normalization"])
def test_a_field_that_the_config_lacks(name, tmp_path):
  made = small_runs.config()
  del made[name]
  with pytest.raises(options.UserError, match=f"config has no field '{name}'; its fields: batch_size, cache_dir, "):
    small_runs.train(made, tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("section", "missing"),
  [
    ("dataset", "name"),
    ("factors", "sae"),
    ("features", "name"),
    ("model", "name"),
    ("optimizer", "name"),
    ("schedule", "name"),
    ("scores", "path"),
    ("selector", "name"),
    ("task", "name"),
    ("wrappers", "names"),
  ],
)
@pytest.mark.parametrize("features", ["pixels", "backbone"])
def test_a_section_that_has_been_wiped(section, missing, features, tmp_path):
  made = digits.get_config(f"size=smoke,selector=rrd,wrap=annealed,features={features}")
  made.match_steps = section == "selector"
  made[section] = {}
  with pytest.raises(options.UserError, match=rf"^{section}=\{{\}} has no {missing}$"):
    small_runs.train(made, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_batch_that_the_devices_cannot_share(tmp_path):
  with pytest.raises(options.UserError, match=r"batch_size=126 must be a multiple of the 4 device\(s\)"):
    small_runs.train(small_runs.config(batch_size=126, eval_batch_size=356), tmp_path / "run", 4)


def test_a_workdir_below_a_file(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(options.UserError, match="file is not a folder"):
    small_runs.train(small_runs.config(), tmp_path / "file" / "run")


def test_a_workdir_of_somebody_else(tmp_path):
  for content in ('{"architectures": []}', "no json", "[]"):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(
      options.UserError, match="contains a config.json that is damaged, or that dynsel_jax did not write"
    ):
      small_runs.train(small_runs.config(), tmp_path)


def test_a_workdir_that_cannot_be_made(tmp_path):
  (tmp_path / "link").symlink_to(tmp_path / "nowhere")
  with pytest.raises(options.UserError, match="link is not a folder"):
    small_runs.train(small_runs.config(), tmp_path / "link")
  with pytest.raises(options.UserError, match="is longer than the 255 bytes that a name may have"):
    small_runs.train(small_runs.config(), tmp_path / ("x" * 300))
  with pytest.raises(options.UserError, match=r"has 4,\d\d\d bytes; a run's path may have 3,696"):
    small_runs.train(small_runs.config(), tmp_path.joinpath(*["x" * 99] * 41))


@pytest.mark.parametrize(("workdir", "line"), [("", "must name a folder"), ("gs://bucket/run", "is a URL; only paths")])
def test_a_workdir_that_is_no_path(workdir, line, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(options.UserError, match=line):
    small_runs.train(small_runs.config(), workdir)
  assert not os.listdir(tmp_path)


SELECTORS = """
import jax.numpy as jnp
from dynsel_jax.types import Selection, Selector

def _made(init=lambda key: jnp.zeros(3), info=0, observe=lambda state, signals: state, **selection):
  def factory(table, epochs):
    chosen = Selection(**{"keep": jnp.ones(table.num_samples, bool), **selection})
    select = lambda key, state, epoch: (chosen, {"i": jnp.asarray(info)})
    return Selector(init, select, observe)
  return factory

empty = _made(init=lambda key: jnp.zeros(0))
grows = _made(observe=lambda state, signals: state.astype(jnp.int32))
vector = _made(info=[1, 2])
short = _made(keep=jnp.ones(10, bool))
indices = _made(keep=jnp.arange(1442))
weighted = _made(weights=jnp.ones(10))
rates = _made(learning_rate_multiplier=jnp.ones(3))
def bare(table, epochs):
  select = lambda key, state, epoch: Selection(jnp.ones(table.num_samples, bool))
  return Selector(lambda key: (), select, lambda state, signals: state)
def refreshing(table, epochs):
  return empty(table, epochs)._replace(init=lambda key: (), refresh=lambda state, epoch: jnp.arange(3))
def reading(table, epochs):
  return empty(table, epochs)._replace(init=lambda key: (), reads=("correct", "rarity"))
"""


@pytest.mark.parametrize(
  ("name", "line"),
  [
    ("empty", "init returns an array of size 0"),
    ("grows", "observe returns a state of other structure, shapes or types than init"),
    ("vector", "'i' has shape (2,); it must be a scalar"),
    ("short", "select gives keep of shape (10,) and type bool; it must be (1442,) bool"),
    ("indices", "select gives keep of shape (1442,) and type int32; it must be (1442,) bool"),
    ("weighted", "select gives weights of shape (10,) and type float32; they must be (1442,) float32"),
    ("rates", "'learning_rate_multiplier' has shape (3,); it must be a scalar"),
    ("refreshing", "refresh gives a mask of shape (3,) and type int32; it must be (1442,) bool"),
    ("reading", "reads 'rarity': the task classification and the table give confidence, correct, el2n, margin"),
    ("bare", "select must return a Selection and a dict of scalars"),
  ],
)
def test_a_users_selector_that_breaks_the_contract(name, line, tmp_path, monkeypatch):
  (tmp_path / "broken_selectors.py").write_text(SELECTORS)
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(options.UserError) as error:
    small_runs.train(small_runs.config(f"broken_selectors:{name}"), tmp_path / "run")
  assert line in str(error.value)
  assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_workdir_without_permission(tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(options.UserError, match="cannot be written"):
    small_runs.train(small_runs.config(), tmp_path / "run")


@pytest.mark.parametrize(
  ("arguments", "line"),
  [
    ([], "benchmark='' is not known; known: decoder, fast, "),
    (["spet"], "benchmark='spet' is not known; known: decoder, fast, "),
    (["sae", "x"], "benchmark sae: unexpected argument 'x'; it takes at most 0"),
    (["step", "nomodel"], "'nomodel' is not known"),
    (["sampler", "5"], "num_samples=5 must be an integer, at least 100"),
    (["stream", "abc"], "num_images=abc must be an integer, at least 2"),
    (["stream", "0"], "num_images=0 must be an integer, at least 2"),
    (["subset", "cifar100"], "data set='cifar100' is not known; known: cifar10, digits"),
  ],
)
def test_a_wrong_word_for_the_benchmarks_is_one_line_and_status_2(arguments, line, capsys):
  assert benchmark.main(arguments) == 2
  (only,) = capsys.readouterr().err.splitlines()
  assert only.startswith("error: ") and line in only


@pytest.mark.parametrize(
  ("arguments", "line"),
  [
    (["--config=configs/digits.py:selector=randon"], "error: selector.name='randon' is not known"),
    (["--config=configs/digits.py:wrap=anealed"], "error: wrap='anealed' is not known; known: annealed"),
    (["--config=configs/digits.py", "--config.selector.keep_fractoin=0.5"], "keep_fractoin"),
    (["--config=configs/none.py"], "configs/none.py"),
    ([], "--config"),
  ],
)
def test_the_command_ends_with_one_line_and_status_2(arguments, line, tmp_path):
  done = subprocess.run(
    [sys.executable, "-m", "experiments.train", *arguments, f"--workdir={tmp_path}/run"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  (only,) = done.stderr.strip().splitlines()
  assert only.startswith("error: ")
  assert line in only and "Traceback" not in only
  assert not (tmp_path / "run").exists()


def test_a_wrapper_named_twice_by_a_flag_is_refused():
  made = small_runs.config()
  made.wrappers = {"names": ("annealed", "annealed"), "annealed": {"last": 0.1}}
  with pytest.raises(options.UserError, match="wrappers.names=.* names a wrapper twice"):
    small_runs.build(made)
