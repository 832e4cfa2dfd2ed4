"""Label noise: what is drawn, who is told of it, and that it is part of the data's identity."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from dynsel_jax import data, options
from dynsel_jax.data import noise
from dynsel_jax.runs import files
from dynsel_jax.runs.interruption import Interrupted
from tests.support import small_runs

BALANCED = np.repeat(np.arange(10), 5000).astype(np.int32)


def test_symmetric_noise_is_uniform_over_all_classes():
  noisy = noise.noisy_labels(BALANCED, 10, rate=0.4, seed=3)
  assert noisy.dtype == np.int32
  wrong = noisy != BALANCED
  # 20,000 are drawn, a tenth of which keep their label: 18,000 with a standard deviation of 42.
  assert abs(wrong.sum() - 18_000) < 250
  moved = np.zeros((10, 10))
  np.add.at(moved, (BALANCED[wrong], noisy[wrong]), 1)
  assert np.all(np.diag(moved) == 0)
  assert np.all(np.abs(moved[~np.eye(10, dtype=bool)] - 200) < 75)  # five standard deviations


def test_asymmetric_noise_follows_the_map():
  np.testing.assert_array_equal(noise.noisy_labels(BALANCED, 10, rate=1.0, kind="asymmetric"), (BALANCED + 1) % 10)
  class_map = (0, 1, 0, 5, 7, 3, 6, 7, 8, 1)  # CIFAR-10's of Patrini et al.: truck to car, bird to plane, ...
  noisy = noise.noisy_labels(BALANCED, 10, rate=0.4, kind="asymmetric", class_map=class_map)
  wrong = noisy != BALANCED
  np.testing.assert_array_equal(noisy[wrong], np.array(class_map)[BALANCED[wrong]])
  assert set(BALANCED[wrong]) == {2, 3, 4, 5, 9}
  assert abs(wrong.sum() - 0.4 * 25_000) < 500


@hypothesis.given(
  size=strategies.integers(1, 60),
  rates=strategies.tuples(strategies.floats(0, 1), strategies.floats(0, 1)),
  kind=strategies.sampled_from(noise.KINDS),
  seed=strategies.integers(0, 5),
)
def test_a_seed_draws_the_same_and_a_higher_rate_more(size, rates, kind, seed):
  labels = (np.arange(size) % 3).astype(np.int32)
  before = labels.copy()
  less, more = (noise.noisy_labels(labels, 3, rate=rate, kind=kind, seed=seed) for rate in sorted(rates))
  np.testing.assert_array_equal(labels, before)
  wrong = less != labels
  np.testing.assert_array_equal(more[wrong], less[wrong])
  assert wrong.sum() <= round(min(rates) * size)
  if kind == "asymmetric":
    assert wrong.sum() == round(min(rates) * size)  # exactly as many as asked for


@pytest.fixture(scope="module")
def digits():
  return data.load("digits")


def test_the_fingerprint_covers_rate_kind_and_seed(digits):
  settings = ({"rate": 0.2}, {"rate": 0.2, "seed": 1}, {"rate": 0.3}, {"rate": 0.2, "kind": "asymmetric"})
  prints = {noise.apply(digits, one).fingerprint for one in settings}
  assert len(prints | {digits.fingerprint}) == 5
  assert noise.apply(digits, {"rate": 0.2}).fingerprint in prints
  assert noise.apply(digits, {"rate": 0.0, "seed": 7}) is digits


def test_only_training_labels_change_and_the_true_ones_are_kept(digits):
  noisy = noise.apply(digits, {"rate": 0.5})
  np.testing.assert_array_equal(noisy.true_labels, digits.train["labels"])
  np.testing.assert_array_equal(noisy.noisy, noisy.train["labels"] != digits.train["labels"])
  assert noisy.test is digits.test and noisy.train["inputs"] is digits.train["inputs"]


@pytest.mark.parametrize(
  ("settings", "line"),
  [
    ({"rate": 1.5}, "dataset.label_noise.rate=1.5 must lie in [0, 1]"),
    ({"rate": "much"}, "dataset.label_noise.rate='much' must be a number"),
    ({"kind": "uniform"}, "dataset.label_noise.kind='uniform' is not known; known: asymmetric, symmetric"),
    ({"seed": -1}, "dataset.label_noise.seed=-1 must be at least 0"),
    ({"rates": 0.1}, "has no option 'rates'"),
    ({"rate": 0.1, "kind": "asymmetric", "class_map": (1, 0)}, "class_map=(1, 0) must hold 10 classes in [0, 10)"),
    ({"rate": 0.1, "kind": "asymmetric", "class_map": (*range(9), 10)}, "must hold 10 classes"),
    (
      {"rate": 0.1, "class_map": tuple(range(10))},
      "class_map=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9) needs dataset.label_noise.kind='asymmetric'",
    ),
    ({"rate": 1.0, "kind": "asymmetric", "class_map": (0,) * 10}, "no training sample of class 1"),
  ],
)
def test_a_wrong_option_is_named(digits, settings, line):
  with pytest.raises(options.UserError) as error:
    noise.apply(digits, settings)
  assert line in str(error.value)
  assert "\n" not in str(error.value)


def test_a_run_says_how_many_of_its_samples_had_a_wrong_label(tmp_path, monkeypatch, capsys):
  made = small_runs.config("infobatch", epochs=4, dataset__label_noise__rate=0.3)
  summary, state = small_runs.train(made, tmp_path / "whole")
  with np.load(tmp_path / "whole" / "noise.npz") as file:
    noisy, true_labels = file["noisy"], file["true_labels"]
  np.testing.assert_array_equal(true_labels, data.load("digits").train["labels"])
  assert f"({noisy.mean():.1%} of the training labels are wrong)" in capsys.readouterr().out

  lines = small_runs.lines(tmp_path / "whole")
  assert lines[0]["noisy_fraction_kept"] == noisy.mean()  # infobatch begins with everything
  counts = [line["noisy_fraction_kept"] * line["size"] for line in lines]
  assert lines[-1]["size"] < 1442 or lines[-2]["size"] < 1442
  assert sum(counts) == pytest.approx(state.usage.visits[noisy].sum())
  assert summary["noisy_fraction_kept"] == pytest.approx(sum(counts) / summary["backward_visits"])

  # An interruption within an epoch changes none of it.
  small_runs.interrupted_at(15, monkeypatch)
  with pytest.raises(Interrupted):
    small_runs.train(made, tmp_path / "parts")
  monkeypatch.undo()
  again, _ = small_runs.train(made, tmp_path / "parts")
  assert small_runs.lines(tmp_path / "parts") == lines
  assert again["noisy_fraction_kept"] == summary["noisy_fraction_kept"]

  made.dataset.label_noise.seed = 1
  with pytest.raises(options.UserError, match=r"label_noise.seed \(0 there, 1 here\), data_fingerprint"):
    small_runs.train(made, tmp_path / "whole")
  assert files.read_json(tmp_path / "whole" / "summary.json") == summary
