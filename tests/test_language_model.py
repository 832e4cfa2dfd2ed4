"""The language-model task in whole runs: it learns, its metrics, the mean of a step, devices and interruptions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import pretrain_text
from dynsel_jax import data
from dynsel_jax.runs.interruption import Interrupted
from dynsel_jax.types import Plan
from tests.support import language, small_runs


@pytest.fixture(autouse=True)
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp("files")
  return {name: language.documents(folder / f"{name}.jsonl", 48, seed) for seed, name in enumerate(("train", "test"))}


@pytest.fixture
def config(files):
  return made_config(files)


@pytest.fixture(scope="module")
def source(files):
  return data.prepare(made_config(files).dataset.to_dict())


def made_config(files, selector="full", variants="", **changes):
  made = pretrain_text.get_config(f"size=smoke,selector={selector}{variants}")
  made.dataset.update(files, max_length=16, length_buckets=2)
  made.model.update(width=16, hidden=16)
  made.update(batch_size=16, eval_batch_size=16, epochs=2, checkpoint_every_steps=0)
  made.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
  return made


def test_a_run_learns_to_count(files, tmp_path):
  made = made_config(files, epochs=30, learning_rate=3e-2, model__width=32)
  summary, _ = small_runs.train(made, tmp_path / "run")
  first, *_, last = small_runs.lines(tmp_path / "run")
  assert summary["final_metric"] == summary["final_test_nats_per_token"] == last["test_nats_per_token"]
  assert summary["best_metric"] <= last["metric"] < 1.0 < 2.5 < first["metric"]
  assert last["test_perplexity"] == pytest.approx(np.exp(last["metric"]), rel=1e-5)
  assert last["test_token_accuracy"] > 0.6 > first["test_token_accuracy"]
  assert sum(last["kept_by_class"]) == last["size"]


def test_metrics_are_those_of_all_tokens_of_the_set(config):
  run = small_runs.build(config)
  module, task, params = run.recipe.module, run.recipe.task, run.initial.train.params
  rows = {name: jnp.asarray(array) for name, array in run.source.test.items()}
  valid = jnp.ones(len(rows["inputs"]), bool)
  states = jax.jit(lambda: module.apply({"params": params}, rows["inputs"], valid, train=False))()
  logits = np.asarray(states[0]["states"] @ states[0]["head"].T, np.float64)
  nats, hits, whole, of_sequence = 0.0, 0, 0, []
  for ids, targets, scores in zip(*(np.asarray(rows[name]) for name in ("inputs", "targets")), logits, strict=True):
    places = np.flatnonzero(targets)
    log_normalizer = np.log(np.exp(scores).sum(axis=-1))
    losses = [log_normalizer[place - 1] - scores[place - 1, ids[place]] for place in places]
    right = [scores[place - 1].argmax() == ids[place] for place in places]
    nats, hits, whole = nats + sum(losses), hits + sum(right), whole + all(right)
    of_sequence.append(np.mean(losses))
  tokens = rows["targets"].sum()
  reduced = task.reduced(states[0], rows)
  found = {name: float(total / count) for name, (total, count) in task.metrics(reduced, rows, valid).items()}
  expected = {"nats_per_token": nats / tokens, "token_accuracy": hits / tokens}
  expected |= {"exact_match": whole / len(valid), "loss": np.mean(of_sequence)}
  assert found == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-4)
  perplexity = task.summarize(jax.tree.map(np.asarray, task.rows(reduced, rows)))["perplexity"]
  assert perplexity == pytest.approx(float(np.exp(expected["nats_per_token"])), rel=1e-4)


@pytest.mark.parametrize("normalization", ["weight_sum", "batch_size"])
def test_a_step_averages_over_tokens(files, source, normalization):
  made = made_config(files, variants=",optimizer=sgd,schedule=constant", task__loss_reduction="tokens")
  made.update(loss_normalization=normalization, learning_rate=1.0)
  made.optimizer.update(momentum=0.0, nesterov=False, weight_decay=0.0)
  run = small_runs.build(made, 2, source=source)
  module, task, params = run.recipe.module, run.recipe.task, run.initial.train.params
  index, weights = jnp.array([3, 1, 20, 7], jnp.int32), jnp.array([1.0, 2.0, 0.5, 1.0])
  batch = {name: jnp.asarray(array)[index] for name, array in run.source.train.items()}
  counts = batch["targets"].sum(axis=1)

  def mean(params):
    outputs, _ = module.apply({"params": params}, batch["inputs"], jnp.ones(4, bool), train=True)
    losses, _ = task.losses(task.reduced(outputs, batch), batch)
    return jnp.sum(losses * weights * counts) / (
      (weights * counts).sum() if "weight" in normalization else counts.sum()
    )

  expected = jax.tree.map(np.asarray, jax.jit(jax.grad(mean))(params))
  rest = run.source.num_samples - 4
  plan = Plan(jnp.pad(index, (0, rest), constant_values=-1), jnp.pad(weights, (0, rest)), jnp.int32(4))
  state = run.devices.copy(run.initial)._replace(plan=run.devices.place(plan))
  after = run.programs.train(state, run.arrays, 0, 0, 1).train.params
  found = jax.tree.map(lambda old, new: np.asarray(old) - np.asarray(new), run.initial.train.params, after)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected)


def test_devices_and_interruptions_change_nothing(files, tmp_path, monkeypatch):
  made = made_config(files, "es", task__loss_reduction="tokens", epochs=3)
  _, once = small_runs.train(made, tmp_path / "once")
  _, shared = small_runs.train(made, tmp_path / "shared", 2)
  for one, two in zip(small_runs.lines(tmp_path / "once"), small_runs.lines(tmp_path / "shared"), strict=True):
    for field in ("train_loss", "test_nats_per_token", "test_perplexity"):
      np.testing.assert_allclose(one[field], two[field], rtol=1e-4)
  with monkeypatch.context() as patch:
    small_runs.interrupted_at(5, patch)
    with pytest.raises(Interrupted):
      small_runs.train(made, tmp_path / "again")
  _, again = small_runs.train(made, tmp_path / "again")
  small_runs.same_state(once, again)
  assert small_runs.lines(tmp_path / "again") == small_runs.lines(tmp_path / "once")
