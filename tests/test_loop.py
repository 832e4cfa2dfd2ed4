"""A whole run: what it leaves behind, that it equals plain training, and that it compiles once."""

import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from dynsel_jax import data, metric, options
from dynsel_jax.training import evaluation, monitors, trainer
from tests.support import ROOT, small_runs

METRICS = {
  "epoch", "step", "progress", "train_loss", "test_loss", "test_accuracy", "metric", "learning_rate", "size",
  "realised_keep_fraction", "unique_seen", "weight_sum", "forward_visits", "backward_visits", "kept_by_class",
  "selector", "seconds",
}  # fmt: skip
PHASES = {
  "loading",
  "setting_up",
  "features",
  "factors",
  "proxy",
  "selecting",
  "training",
  "scoring",
  "evaluating",
  "checkpointing",
  "compiling",
  "recording",
  "total",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("finished")
  made = small_runs.config("infobatch", epochs=4)
  return workdir, made, small_runs.train(made, workdir)


def test_metrics_have_a_line_an_epoch_with_every_field(finished):
  workdir, made, _ = finished
  lines = small_runs.lines(workdir, without=())
  assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
  assert all(set(line) == METRICS for line in lines)
  assert all(set(line["seconds"]) == PHASES for line in lines)
  assert lines[-1]["progress"] == 1


def test_counts_of_metrics_usage_and_summary_agree(finished):
  workdir, made, (summary, _) = finished
  lines, usage = small_runs.lines(workdir), np.load(workdir / "usage.npz")
  num_samples = usage["visits"].shape[0]
  sizes = [line["size"] for line in lines]
  assert summary["backward_visits"] == sum(sizes) == usage["visits"].sum() == lines[-1]["backward_visits"]
  assert summary["forward_visits"] == summary["backward_visits"]  # no pass was for scoring alone
  assert summary["steps"] == sum(math.ceil(size / made.batch_size) for size in sizes) == lines[-1]["step"]
  assert [sum(line["kept_by_class"]) for line in lines] == sizes
  assert [line["realised_keep_fraction"] for line in lines] == [size / num_samples for size in sizes]
  assert summary["realised_keep_fraction"] == pytest.approx(sum(sizes) / 4 / num_samples)
  assert lines[-1]["unique_seen"] == np.count_nonzero(usage["visits"])
  assert summary["final_test_accuracy"] == lines[-1]["test_accuracy"] == summary["final_metric"]
  assert summary["best_test_accuracy"] == max(line["test_accuracy"] for line in lines) == summary["best_metric"]
  assert all(line["metric"] == line["test_accuracy"] for line in lines)
  assert len(set(sizes)) > 1  # infobatch kept all at first and fewer later, else this test shows little


def test_usage_has_the_last_loss_of_every_seen_sample(finished):
  usage = np.load(finished[0] / "usage.npz")
  assert usage["visits"].dtype == np.int32
  np.testing.assert_array_equal(np.isfinite(usage["last_loss"]), usage["visits"] > 0)


def test_config_json_says_what_the_run_was_made_with(finished):
  workdir, made, _ = finished
  held = json.loads((workdir / "config.json").read_text())
  assert held["config"]["selector"]["name"] == "infobatch"
  assert held["config"]["batch_size"] == made.batch_size
  assert held["device"]["count"] == 1
  assert held["versions"]["jax"] == jax.__version__
  assert len(held["data_fingerprint"]) >= 16


def test_config_json_holds_all_that_is_needed_to_use_the_model(finished):
  held, digits = json.loads((finished[0] / "config.json").read_text()), data.load("digits")
  assert held["task"] == {
    "name": "classification",
    "metric": {"name": "accuracy", "unit": "%", "larger_is_better": True},
    "signals": ["confidence", "margin", "el2n", "correct", "nuclear_norm", "projection"],
  }
  model = {"num_outputs": 10, "input_shape": [8, 8, 1], "input_dtype": "uint8", "input_scale": [223.0, 255.0]}
  assert held["model"] == model
  assert held["normalisation"] == {"mean": list(digits.mean), "std": list(digits.std)}
  assert held["class_names"] == list("0123456789")


def test_kept_by_class_counts_the_labels_of_each_epochs_samples(finished):
  workdir, _, (summary, state) = finished
  lines, labels = small_runs.lines(workdir), data.load("digits").train["labels"]
  assert lines[0]["kept_by_class"] == np.bincount(labels).tolist()  # infobatch begins with everything
  assert summary["class_sizes"] == np.bincount(labels).tolist()
  total = np.sum([line["kept_by_class"] for line in lines], axis=0)
  np.testing.assert_array_equal(total, np.bincount(labels, weights=state.usage.visits))


def test_tensorboard_events_hold_the_scalars_and_the_usage_histogram(finished):
  from tensorboardX.proto import event_pb2

  (path,) = pathlib.Path(finished[0]).glob("events.out.tfevents.*")
  raw, values = path.read_bytes(), {}
  while raw:  # a record: length, its checksum, the event, its checksum
    length = int.from_bytes(raw[:8], "little")
    event, raw = event_pb2.Event.FromString(raw[12 : 12 + length]), raw[16 + length :]
    for value in event.summary.value:
      values.setdefault(value.tag, []).append((event.step, value))
  lines = small_runs.lines(finished[0])
  assert [(step, pytest.approx(v.simple_value)) for step, v in values["test_accuracy"]] == [
    (line["epoch"], line["test_accuracy"]) for line in lines
  ]
  assert [v.histo.num for _, v in values["usage/visits"]] == [1442] * 4


def test_a_finished_run_is_returned_as_it_is(finished, monkeypatch):
  workdir, made, (summary, state) = finished
  before = {path: path.read_bytes() for path in workdir.iterdir() if path.is_file()}
  again, same = small_runs.train(made, workdir)
  assert again == summary
  small_runs.same_state(state, same)
  assert before == {path: path.read_bytes() for path in workdir.iterdir() if path.is_file()}


def test_keeping_everything_is_plain_training_bit_for_bit(tmp_path):
  if jax.default_backend() != "cpu":
    pytest.skip("XLA fuses the two programs differently on an accelerator: they agree up to rounding")
  # As a user's programs are compiled, not as the tests' are; but in one part, see conftest.py.
  environment = {**os.environ, "XLA_FLAGS": "--xla_cpu_parallel_codegen_split_count=1"}
  program = [sys.executable, "-m", "tests.support.plain_training", str(tmp_path / "run")]
  done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.endswith("the same bits\n")


def test_nothing_is_traced_or_compiled_once_the_programs_are(tmp_path, monkeypatch):
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
  small_runs.train(small_runs.config("infobatch", epochs=4, checkpoint_every_steps=5), tmp_path)
  jax.monitoring.unregister_event_duration_listener(listener)
  assert marks[0] > 0
  assert seen[marks[0] :] == []
  assert len({line["size"] for line in small_runs.lines(tmp_path)}) > 1


def test_hidden_samples_are_scored_after_the_epoch_and_trained_on_at_another_rate(tmp_path):
  made = small_runs.config("kakurenbo", epochs=4, model="mlp", schedule="constant")
  summary, state = small_runs.train(made, tmp_path)
  lines = small_runs.lines(tmp_path)
  hidden = [1442 - line["size"] for line in lines]
  forward = np.diff([0] + [line["forward_visits"] for line in lines])
  assert hidden[0] == 0
  assert hidden[-1] > 0
  np.testing.assert_array_equal(forward, [1442] * 4)  # trained on or scored, each sample once an epoch
  assert summary["backward_visits"] == 4 * 1442 - sum(hidden) == state.usage.visits.sum()
  assert summary["seconds"]["scoring"] > 0
  rates = [line["learning_rate"] for line in lines]
  assert rates[0] == pytest.approx(made.learning_rate)
  assert rates[-1] > 1.1 * made.learning_rate


def test_a_metric_that_is_nan_at_first_is_not_the_best_for_ever(tmp_path, monkeypatch):
  original, calls = evaluation.values, []

  def unknown_at_first(task, done):
    calls.append(None)
    return original(task, done) | ({"accuracy": math.nan} if len(calls) == 1 else {})

  monkeypatch.setattr(evaluation, "values", unknown_at_first)
  summary, _ = small_runs.train(small_runs.config(epochs=3), tmp_path)
  values = [line["metric"] for line in small_runs.lines(tmp_path)]
  assert values[0] is None and summary["best_metric"] == max(values[1:])


def test_the_validation_monitor_follows_the_direction_and_passes_over_nan():
  for larger, numbers, best in ((True, (0.2, 0.5, 0.4), 0.5), (False, (0.4, 0.1, 0.3), 0.1)):
    monitor = monitors.validation(metric.Metric("score", larger_is_better=larger))
    state = monitor.init()
    for test, number in enumerate((math.nan, *numbers)):
      end = monitors.EpochEnd(np.zeros(3, np.int32), 3, float(test), lambda split, n=number: {"score": n}, None)
      state = monitor.update(json.loads(json.dumps(state)), end)  # as a checkpoint gives it back
      assert monitor.metrics(state)["validation_score"] is number or math.isnan(number)
    assert monitor.summary(state, 3) == {"best_validation_score": best, "test_score_at_best_validation": 2.0}


def test_a_metric_over_no_sample_is_nan(tmp_path):
  task = small_runs.build(small_runs.config()).recipe.task
  done = evaluation.Evaluation({"accuracy": (np.int32(0), np.int32(0))}, {}, np.zeros(3, bool))
  assert math.isnan(evaluation.values(task, done)["accuracy"])


def test_a_selector_that_selects_nothing_is_named(tmp_path, monkeypatch):
  (tmp_path / "lazy.py").write_text(LAZY)
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(options.UserError, match="selector=lazy:lazy selects no sample in epoch 2"):
    small_runs.train(small_runs.config("lazy:lazy"), tmp_path / "run")


LAZY = """
import jax.numpy as jnp
from dynsel_jax.types import Selection, Selector

def lazy(table, epochs):
  def select(key, state, epoch):
    return Selection(jnp.full(table.num_samples, epoch < 1)), {}
  return Selector(lambda key: (), select, lambda state, signals: state)
"""
