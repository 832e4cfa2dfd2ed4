"""The task of classification against numpy: losses, signals, metrics, label smoothing, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import data, options, tasks
from dynsel_jax.data import gather
from dynsel_jax.metric import ACCURACY
from dynsel_jax.tasks import classification
from tests.support import small_runs

LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32) * 3
LABELS = np.array([0, 1, 2, 3, 0, 1], np.int32)
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
OF_LABEL = PROBABILITIES[np.arange(6), LABELS]
BATCH = {"inputs": jnp.zeros((6, 2)), "labels": jnp.asarray(LABELS)}


def _task(**settings):
  dataset = {"inputs": np.zeros((6, 2), np.float32), "labels": LABELS}
  source = data.from_arrays("six", dataset, dataset)
  return tasks.create("classification", source, gather.view(source), **settings)


def test_loss_is_the_negative_log_probability_of_the_label():
  losses, _ = _task().losses(jnp.asarray(LOGITS), BATCH)
  np.testing.assert_allclose(losses, -np.log(OF_LABEL), rtol=1e-5)
  assert losses.dtype == jnp.float32


def test_smoothing_mixes_in_the_mean_over_classes():
  smoothed = classification.cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), 0.1)
  target = 0.9 * np.eye(4)[LABELS] + 0.1 / 4
  np.testing.assert_allclose(smoothed, -(target * np.log(PROBABILITIES)).sum(1), rtol=1e-5)


def test_smoothing_is_trained_on_and_not_observed():
  task = _task(label_smoothing=0.1)
  smoothed = classification.cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), 0.1)
  np.testing.assert_array_equal(task.objective(jnp.asarray(LOGITS), BATCH), smoothed)
  np.testing.assert_allclose(task.losses(jnp.asarray(LOGITS), BATCH)[0], -np.log(OF_LABEL), rtol=1e-5)
  total, count = task.metrics(jnp.asarray(LOGITS), BATCH, jnp.ones(6, bool))["loss"]
  assert float(total) / int(count) == pytest.approx(-np.log(OF_LABEL).mean(), rel=1e-5)


def test_a_step_descends_the_smoothed_loss_and_a_selector_sees_the_other(tmp_path):
  losses = {}
  for smoothing in (0.0, 0.5):
    made = small_runs.config("full", epochs=1, task__label_smoothing=smoothing, learning_rate=1e-9)
    _, state = small_runs.train(made, tmp_path / str(smoothing))
    losses[smoothing] = state.usage.last_loss
  np.testing.assert_allclose(losses[0.0], losses[0.5], rtol=1e-4)  # the parameters hardly moved
  moved = {}
  for smoothing in (0.0, 0.5):
    run = small_runs.build(small_runs.config("full", task__label_smoothing=smoothing))
    state, _ = run.programs.plan(run.devices.copy(run.initial), run.arrays, 0)
    moved[smoothing] = run.programs.train(state, run.arrays, 0, 0, 1).train.params["head"]["bias"]
  assert np.abs(moved[0.0] - moved[0.5]).max() > 1e-4


def test_confidence_margin_el2n_and_correctness():
  _, seen = _task().losses(jnp.asarray(LOGITS), BATCH)
  assert tuple(seen) == classification.SIGNALS == _task().signals
  others = np.where(np.eye(4, dtype=bool)[LABELS], -np.inf, PROBABILITIES).max(1)
  np.testing.assert_allclose(seen["confidence"], PROBABILITIES.max(1), rtol=1e-5)
  np.testing.assert_allclose(seen["margin"], OF_LABEL - others, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(seen["el2n"], np.linalg.norm(PROBABILITIES - np.eye(4)[LABELS], axis=1), rtol=1e-5)
  np.testing.assert_array_equal(seen["correct"], PROBABILITIES.argmax(1) == LABELS)
  assert 0 < np.count_nonzero(seen["correct"]) < 6  # both outcomes occur
  assert seen["correct"].dtype == bool


def test_metrics_are_sums_and_counts_over_the_valid_rows():
  task, valid = _task(), np.array([True, True, False, True, True, False])
  found = jax.jit(task.metrics)(jnp.asarray(LOGITS).at[2].set(jnp.nan), BATCH, jnp.asarray(valid))
  losses, correct = -np.log(OF_LABEL), PROBABILITIES.argmax(1) == LABELS
  assert {name: (float(total), int(count)) for name, (total, count) in found.items()} == {
    "loss": (pytest.approx(losses[valid].sum(), rel=1e-5), 4),
    "accuracy": (correct[valid].sum(), 4),
  }


def test_the_headline_is_the_accuracy_and_the_model_has_an_output_for_each_class():
  task = _task()
  assert (task.name, task.metric, task.num_outputs) == ("classification", ACCURACY, 4)
  assert tasks.giving("correct") == ["classification", "language_model"] and tasks.giving("rarity") == []


def test_the_inputs_are_the_view_of_the_data_set():
  digits = data.load("digits")
  view = gather.view(digits, gather.augmentation(("crop",)))
  assert tasks.create("classification", digits, view).inputs is view


@pytest.mark.parametrize(
  ("settings", "line"),
  [
    ({"label_smoothing": 1.0}, "task.label_smoothing=1.0 must lie in [0, 1)"),
    ({"label_smoothing": -0.1}, "task.label_smoothing=-0.1 must lie in [0, 1)"),
    ({"label_smoothing": "a lot"}, "task.label_smoothing='a lot' must be a number"),
    ({"smoothing": 0.1}, "task 'classification' has no option 'smoothing'; its options: label_smoothing"),
  ],
)
def test_wrong_options_are_named(settings, line):
  with pytest.raises(options.UserError) as error:
    _task(**settings)
  assert line in str(error.value) and "\n" not in str(error.value)


def test_a_set_without_labels_is_refused(tmp_path):
  made = small_runs.config(dataset__name="diabetes", batch_size=32)
  line = "task.name=classification reads the array 'labels'; dataset.name=diabetes has inputs, targets"
  with pytest.raises(options.UserError, match=line):
    small_runs.train(made, tmp_path / "run")
  assert not (tmp_path / "run").exists()
