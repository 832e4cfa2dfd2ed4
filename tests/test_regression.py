"""The task of regression: its numbers against numpy and scipy, and whole runs on a set that has no labels."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from configs import diabetes
from dynsel_jax import data, offline, options, tasks
from dynsel_jax.data import gather
from dynsel_jax.runs import finished
from dynsel_jax.runs.interruption import Interrupted
from dynsel_jax.training import evaluation, loop, parallel
from tests.support import small_runs

RNG = np.random.default_rng(0)
METRICS = {"loss", "mean_squared_error", "pearson", "spearman"}


def _config(selector="random", **changes):
  made = diabetes.get_config(f"size=smoke,selector={selector}")
  made.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
  return made


def _task(targets):
  dataset = {"inputs": np.zeros((len(targets), 3), np.float32), "targets": targets}
  source = data.from_arrays("made_up", dataset, dataset)
  return tasks.create("regression", source, gather.view(source))


def _metrics(prediction, target):
  return {
    "loss": np.mean((prediction - target) ** 2),
    "mean_squared_error": np.mean((prediction - target) ** 2),
    "pearson": stats.pearsonr(prediction, target)[0],
    "spearman": stats.spearmanr(prediction, target)[0],
  }


def test_losses_and_metrics_are_squared_errors_over_the_valid_rows():
  outputs, targets = RNG.normal(size=(5, 1)).astype(np.float32), RNG.normal(size=5).astype(np.float32)
  task, batch = _task(targets), {"targets": jnp.asarray(targets)}
  errors = (outputs[:, 0] - targets) ** 2
  losses, extras = task.losses(jnp.asarray(outputs), batch)
  np.testing.assert_allclose(losses, errors, rtol=1e-6)
  assert extras == {} and task.signals == () and task.num_outputs == 1 and task.objective is None
  valid = np.array([True, False, True, True, False])
  found = jax.jit(task.metrics)(jnp.asarray(outputs).at[1].set(jnp.nan), batch, jnp.asarray(valid))
  for name in ("loss", "mean_squared_error"):
    total, count = found[name]
    assert (float(total), int(count)) == (pytest.approx(errors[valid].sum(), rel=1e-6), 3)


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_are_those_of_scipy(ties):
  prediction, target = (RNG.normal(size=200).astype(np.float32) for _ in range(2))
  target += prediction
  if ties:
    prediction, target = np.round(prediction), np.round(target)
  found = _task(target).summarize({"prediction": prediction, "target": target})
  assert found == pytest.approx({k: v for k, v in _metrics(prediction, target).items() if k in found}, rel=1e-6)
  assert found.keys() == {"pearson", "spearman"}


def test_a_constant_has_no_correlation():
  varied, constant = np.arange(4.0, dtype=np.float32), np.ones(4, np.float32)
  task = _task(varied)
  for rows in ((constant, varied), (varied, constant), (varied[:1], varied[:1]), (varied[:0], varied[:0])):
    found = task.summarize(dict(zip(("prediction", "target"), rows, strict=True)))
    assert set(map(math.isnan, found.values())) == {True}


@pytest.mark.parametrize("num_devices", [1, 2])
@pytest.mark.parametrize("eval_batch_size", [20, 88, 128])  # 88 test samples: batches with and without padding
def test_metrics_of_a_whole_set_whatever_the_batch_and_the_devices(num_devices, eval_batch_size):
  run = small_runs.build(_config(eval_batch_size=eval_batch_size), num_devices)
  shapes = evaluation.shapes(run.recipe, run.initial.train, run.arrays, 88)
  done = run.devices.place(evaluation.empty(shapes))
  for step in range(-(-88 // eval_batch_size)):
    done = run.programs.evaluate(done, run.initial.train, run.arrays, step, 1)
  done, test = parallel.fetch(done), run.source.test
  assert done.seen.all()
  np.testing.assert_array_equal(done.rows["target"], test["targets"])
  outputs, _ = run.recipe.module.apply(
    {"params": run.initial.train.params}, jnp.asarray(test["inputs"]), jnp.ones(88, bool), train=False
  )
  expected = _metrics(np.asarray(outputs[:, 0], np.float64), test["targets"])
  assert evaluation.values(run.recipe.task, done) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("diabetes")
  made = diabetes.get_config("selector=infobatch")
  result = loop.train_and_evaluate(made, workdir, small_runs.devices(1))
  return workdir, made, result.summary, jax.tree.map(np.asarray, result.state)


def test_a_run_learns_and_writes_its_metrics(run):
  workdir, made, summary, state = run
  lines = small_runs.lines(workdir)
  assert len(lines) == made.epochs == 30
  for line in lines:
    assert {name.removeprefix("test_") for name in line if name.startswith("test_")} == METRICS
    assert line["metric"] == line["test_mean_squared_error"] == line["test_loss"]
    assert not {"kept_by_class", "noisy_fraction_kept", "factors_covered", "corrupt"} & set(line)
  assert summary["final_metric"] == lines[-1]["metric"] == summary["final_test_mean_squared_error"]
  best = min(line["metric"] for line in lines)
  assert best == summary["best_metric"] == summary["best_test_mean_squared_error"]
  assert best < 0.65 and lines[-1]["test_pearson"] > 0.55 and lines[-1]["test_spearman"] > 0.5
  assert lines[10]["size"] < 354 == lines[-1]["size"]  # infobatch leaves samples out until it anneals
  np.testing.assert_array_equal(np.load(workdir / "usage.npz")["visits"], state.usage.visits)


def test_config_json_says_the_task_and_its_metric(run):
  held = json.loads((run[0] / "config.json").read_text())
  metric = {"name": "mean_squared_error", "unit": "", "larger_is_better": False}
  assert held["task"] == {"name": "regression", "metric": metric, "signals": []}
  least, most = held["model"].pop("input_scale")
  assert held["model"] == {"num_outputs": 1, "input_shape": [10], "input_dtype": "float32"} and 0 < least < most < 5
  assert held["normalisation"] == {"mean": [], "std": []} and held["class_names"] == []
  read = finished.read(run[0])
  assert (read.task, read.metric) == ("regression", tasks.Metric("mean_squared_error", larger_is_better=False))
  assert finished.best(read) == run[2]["best_metric"] and finished.final(read) == run[2]["final_metric"]


def test_the_console_names_the_metric(tmp_path, capsys):
  small_runs.train(_config(), tmp_path)
  said = capsys.readouterr().out
  assert "  mean squared error 0." in said or "  mean squared error 1." in said
  assert "%" not in said.partition("epoch 1/2")[2].partition("kept")[0]


@pytest.mark.parametrize(
  ("selector", "line"),
  [
    ("kakurenbo", "selector=kakurenbo reads 'correct', 'confidence': the task regression and the table give nothing"),
    ("rcap", "reads labels"),
    ("random,wrap=class_balanced", "reads labels"),
    ("rrd", "features.name=pixels: factor scores need labels, and dataset.name=diabetes has none"),
  ],
)
def test_a_method_that_needs_a_classifier_or_labels_is_refused_in_one_line(selector, line, tmp_path):
  with pytest.raises(options.UserError) as error:
    small_runs.train(_config(selector), tmp_path / "run")
  assert line in str(error.value) and "\n" not in str(error.value)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("balanced", "line"),
  [(True, "selector=rrd reads labels, and the training set has none"), (False, "rrd .*representativeness")],
)
def test_rrd_without_labels_or_columns_is_refused_too(balanced, line, tmp_path):
  made = _config("rrd", selector__class_balanced=balanced)
  with pytest.raises(options.UserError, match=line) as error:
    loop.train_and_evaluate(made, tmp_path / "run", small_runs.devices(1))
  assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("selector", ["infobatch", "es", "rs2", "random"])
def test_methods_that_read_the_loss_alone_run(selector, tmp_path):
  summary, state = small_runs.train(_config(selector), tmp_path)
  assert summary["steps"] > 0 and np.isfinite(summary["final_metric"])
  assert np.isfinite(state.usage.last_loss).sum() > 100


@pytest.mark.parametrize("selector", ["infobatch", "es"])
def test_a_run_stopped_anywhere_continues_with_the_same_bits(selector, tmp_path):
  changes = {"selector__anneal_first": 0.4, "selector__anneal_last": 0.0} if selector == "es" else {}
  made = _config(selector, epochs=3, checkpoint_every_steps=4, **changes)
  _, state = small_runs.train(made, tmp_path / "alone")
  lines = small_runs.lines(tmp_path / "alone")
  first = lines[0]["step"]
  workdir, stops, done = tmp_path / "stopped", [first - 3, first, first + 5], 0
  for step in stops:  # one run, stopped again and again
    with pytest.MonkeyPatch.context() as patch:
      small_runs.interrupted_at(step - done, patch)
      with pytest.raises(Interrupted):
        small_runs.train(made, workdir)
    done = step
  summary, same = small_runs.train(made, workdir)
  assert summary["resumed_from"] == stops
  small_runs.same_state(state, same)
  assert small_runs.lines(workdir) == lines


def test_one_and_two_devices_train_alike(run, tmp_path):
  _, made, _, state = run
  other = loop.train_and_evaluate(made, tmp_path, small_runs.devices(2))
  np.testing.assert_allclose(other.summary["final_metric"], run[2]["final_metric"], rtol=1e-3)
  assert np.mean(np.asarray(other.state.usage.visits) != state.usage.visits) < 0.02


def test_a_validation_set_follows_the_direction_of_the_metric(tmp_path, monkeypatch):
  source = data.load("diabetes")
  halves = ({name: array[rows] for name, array in source.test.items()} for rows in (slice(44), slice(44, None)))
  split = source._replace(**dict(zip(("test", "validation"), halves, strict=True)))
  made = _config("full", epochs=12, learning_rate=0.02)
  summary = offline.train_and_evaluate(made, tmp_path, small_runs.devices(1), prepare=lambda *_: split).summary
  lines = small_runs.lines(tmp_path)
  values = [line["validation_mean_squared_error"] for line in lines]
  best = lines[int(np.argmin(values))]
  assert summary["best_validation_mean_squared_error"] == min(values) < max(values)
  assert summary["test_mean_squared_error_at_best_validation"] == best["test_mean_squared_error"]


@pytest.mark.parametrize(
  ("targets", "line"),
  [
    (None, "task.name=regression reads the array 'targets'; dataset.name=made_up has inputs"),
    (np.zeros((6, 2), np.float32), "'targets' of dataset.name=made_up has shape (6, 2) and type float32"),
    (np.zeros(6, np.int32), "has shape (6,) and type int32; it must be [N] floating-point numbers"),
  ],
)
def test_wrong_targets_are_named(targets, line):
  dataset = {"inputs": np.zeros((6, 3), np.float32), **({} if targets is None else {"targets": targets})}
  source = data.from_arrays("made_up", dataset, dataset)
  with pytest.raises(options.UserError) as error:
    tasks.create("regression", source, gather.view(source))
  assert line in str(error.value) and "\n" not in str(error.value)
