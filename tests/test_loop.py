"""A whole run: what it leaves behind, that it equals plain training, and that it compiles once."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs

from dynsel_jax import data, models, selectors
from dynsel_jax.data import gather
from dynsel_jax.training import schedules
from dynsel_jax.training.steps import Purpose
from dynsel_jax.types import SampleTable

METRICS = {
  "epoch", "step", "progress", "train_loss", "test_accuracy", "learning_rate", "size", "realised_keep_fraction",
  "unique_seen", "weight_sum", "forward_visits", "backward_visits", "kept_by_class", "selector", "seconds",
}  # fmt: skip
PHASES = {
  "features",
  "factors",
  "selecting",
  "training",
  "scoring",
  "evaluating",
  "checkpointing",
  "compiling",
  "total",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("finished")
  made = runs.config("infobatch", epochs=4)
  return workdir, made, runs.train(made, workdir)


def test_metrics_have_a_line_an_epoch_with_every_field(finished):
  workdir, made, _ = finished
  lines = runs.lines(workdir, without=())
  assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
  assert all(set(line) == METRICS for line in lines)
  assert all(set(line["seconds"]) == PHASES for line in lines)
  assert lines[-1]["progress"] == 1


def test_counts_of_metrics_usage_and_summary_agree(finished):
  workdir, made, (summary, _) = finished
  lines, usage = runs.lines(workdir), np.load(workdir / "usage.npz")
  num_samples = usage["visits"].shape[0]
  sizes = [line["size"] for line in lines]
  assert summary["backward_visits"] == sum(sizes) == usage["visits"].sum() == lines[-1]["backward_visits"]
  assert summary["forward_visits"] == summary["backward_visits"]  # no pass was for scoring alone
  assert summary["steps"] == sum(math.ceil(size / made.batch_size) for size in sizes) == lines[-1]["step"]
  assert [sum(line["kept_by_class"]) for line in lines] == sizes
  assert [line["realised_keep_fraction"] for line in lines] == [size / num_samples for size in sizes]
  assert summary["realised_keep_fraction"] == pytest.approx(sum(sizes) / 4 / num_samples)
  assert lines[-1]["unique_seen"] == np.count_nonzero(usage["visits"])
  assert summary["final_test_accuracy"] == lines[-1]["test_accuracy"]
  assert summary["best_test_accuracy"] == max(line["test_accuracy"] for line in lines)
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


def test_tensorboard_events_hold_the_scalars_and_the_usage_histogram(finished):
  from tensorboardX.proto import event_pb2

  (path,) = pathlib.Path(finished[0]).glob("events.out.tfevents.*")
  raw, values = path.read_bytes(), {}
  while raw:  # a record: length, its checksum, the event, its checksum
    length = int.from_bytes(raw[:8], "little")
    event, raw = event_pb2.Event.FromString(raw[12 : 12 + length]), raw[16 + length :]
    for value in event.summary.value:
      values.setdefault(value.tag, []).append((event.step, value))
  lines = runs.lines(finished[0])
  assert [(step, pytest.approx(v.simple_value)) for step, v in values["test_accuracy"]] == [
    (line["epoch"], line["test_accuracy"]) for line in lines
  ]
  assert [v.histo.num for _, v in values["usage/visits"]] == [1442] * 4


def test_a_finished_run_is_returned_as_it_is(finished, monkeypatch):
  workdir, made, (summary, state) = finished
  before = {path: path.read_bytes() for path in workdir.iterdir() if path.is_file()}
  again, same = runs.train(made, workdir)
  assert again == summary
  runs.same_state(state, same)
  assert before == {path: path.read_bytes() for path in workdir.iterdir() if path.is_file()}


def _plain_training(made):
  """The same training without any of this library's loop: a Flax module, optax's transformation, one jitted step."""
  source = data.load("digits")
  module = models.create("resnet_patch", source.num_classes, **_options(made))

  def inputs(raw):
    return gather.normalize(jnp.asarray(raw), source.mean, source.std)

  init_key, run_key = jax.random.split(jax.random.key(made.seed))
  model_key, _ = jax.random.split(init_key)
  images, labels = np.asarray(source.train.inputs), np.asarray(source.train.labels)
  variables = jax.jit(lambda k: module.init(k, inputs(images[:1]), jnp.ones(1, bool), train=False))(model_key)
  params, batch_stats = variables["params"], variables["batch_stats"]
  decay = jax.tree.map(lambda p: p.ndim > 1, params)
  tx = optax.chain(optax.add_decayed_weights(5e-4, decay), optax.trace(0.9, nesterov=True))
  opt_state = tx.init(params)
  schedule = schedules.cosine(made.learning_rate)

  @jax.jit
  def step(params, batch_stats, opt_state, raw, labels, valid, progress):
    def mean_loss(params):
      (logits, _), new = module.apply(
        {"params": params, "batch_stats": batch_stats}, inputs(raw), valid, train=True, mutable=["batch_stats"]
      )
      losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
      return jnp.sum(losses * (valid / jnp.sum(valid))), new["batch_stats"]

    grads, batch_stats = jax.grad(mean_loss, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = jax.tree.map(lambda p, u: p - schedule(progress) * u, params, updates)
    return params, batch_stats, opt_state

  table = SampleTable(jnp.asarray(labels), source.num_classes)
  order = jax.jit(selectors.create("full", table, made.epochs).select)
  size, num_steps = made.batch_size, -(-len(labels) // made.batch_size)
  for epoch in range(made.epochs):
    key = jax.random.fold_in(jax.random.fold_in(run_key, epoch), Purpose.SELECT)
    plan = np.asarray(order(key, (), jnp.int32(epoch))[0].indices)
    for number in range(num_steps):
      index = plan[number * size : (number + 1) * size]
      padded = np.pad(index, (0, size - len(index)))
      valid = (np.arange(size) < len(index)).astype(np.float32)
      progress = jnp.float32((epoch + np.float32(number / num_steps)) / np.float32(made.epochs))
      params, batch_stats, opt_state = step(
        params, batch_stats, opt_state, images[padded], labels[padded], valid, progress
      )
  return params, batch_stats


def _options(made):
  return {k: v for k, v in made.model.to_dict().items() if k not in ("name", "dtype")}


def test_keeping_everything_is_plain_training_bit_for_bit(tmp_path):
  made = runs.config("full", model="resnet_patch")
  _, state = runs.train(made, tmp_path)
  params, batch_stats = _plain_training(made)
  jax.tree.map(np.testing.assert_array_equal, state.train.params, params)
  jax.tree.map(np.testing.assert_array_equal, state.train.batch_stats, batch_stats)


def test_a_longer_run_with_changing_sizes_traces_and_compiles_nothing_more(tmp_path):
  counts = []
  for epochs in (2, 6):
    seen = []
    listener = lambda event, _seconds, **_: seen.append(event)  # noqa: E731, B023
    jax.monitoring.register_event_duration_secs_listener(listener)
    runs.train(runs.config("infobatch", epochs=epochs), tmp_path / str(epochs))
    jax.monitoring.unregister_event_duration_listener(listener)
    counts.append({event: seen.count(event) for event in set(seen) if "trace" in event or "compile_dur" in event})
  assert counts[0]
  assert counts[0] == counts[1]
