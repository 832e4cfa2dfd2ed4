"""Estimates: the arithmetic by hand, what is measured on digits, and which selectors are refused."""

import math

import jax
import pytest

from configs import digits
from dynsel_jax import options
from experiments import estimate
from tests.support import ROOT

TIMED = estimate.Timed(
  step=0.1, selecting=0.5, evaluating=2.0, offline=60.0, num_samples=1000, batch_size=128, epochs=20, full_fraction=0.15
)


def test_an_estimate_is_the_sum_of_its_parts():
  full, kept = estimate.estimate(TIMED, 1.0), estimate.estimate(TIMED, 0.3)
  full_epoch = 8 * 0.1 + 2.0  # 1000 samples are 8 batches
  kept_epoch = 3 * 0.1 + 2.0  # 300 are 3
  run = 60.0 + 3 * full_epoch + 17 * kept_epoch + 20 * 0.5  # the last 15 % of 20 epochs take everything
  assert (full.epoch_seconds, full.run_seconds) == (pytest.approx(full_epoch), pytest.approx(20 * full_epoch))
  assert kept.run_seconds == pytest.approx(run)
  assert kept.speed_up == pytest.approx(20 * full_epoch / run)
  assert kept.ideal == pytest.approx(1 / (0.85 * 0.3 + 0.15))


def test_the_offline_stage_is_paid_when_the_two_runs_have_taken_the_same():
  timed = TIMED._replace(selecting=0.0)
  full, kept = estimate.estimate(timed, 1.0), estimate.estimate(timed, 0.3)
  epochs = kept.pays_after
  assert epochs * full.epoch_seconds == pytest.approx(timed.offline + epochs * kept.epoch_seconds)
  assert estimate.estimate(timed._replace(offline=0.0), 0.3).pays_after == 0
  assert estimate.estimate(timed._replace(selecting=9.0), 0.3).pays_after == math.inf


def test_without_overhead_the_speed_up_is_the_ideal_one():
  free = TIMED._replace(selecting=0.0, evaluating=0.0, offline=0.0, num_samples=128_000)
  for kept in (0.1, 0.5, 0.75):
    found = estimate.estimate(free, kept)
    assert found.speed_up == pytest.approx(found.ideal, rel=2e-3)


def test_the_lines_say_cost_only_with_a_price():
  estimates = [estimate.estimate(TIMED._replace(step=100.0), kept) for kept in (1.0, 0.3)]
  free, paid = (estimate.lines(TIMED, estimates, price) for price in (0.0, 2.0))
  assert "cost" in paid[1] and "cost" not in free[1]
  assert paid[2].split()[-1] == f"{estimates[0].run_seconds / 3600 * 2:.2f}"


@pytest.mark.parametrize(("selector", "full_fraction"), [("random", 0.0), ("ucb", 0.5), ("rrd", 0.15)])
def test_a_config_is_measured_with_its_epochs_of_full_data(selector, full_fraction, tmp_path):
  config = digits.get_config(f"size=smoke,selector={selector}").lock()
  with jax.numpy_dtype_promotion("standard"):  # optax mixes types in the schedule of the autoencoder
    timed = estimate.measure(config, 3)
  assert (timed.num_samples, timed.batch_size, timed.epochs) == (1442, 64, 2)
  assert timed.full_fraction == full_fraction
  assert min(timed.step, timed.selecting, timed.evaluating) > 0
  assert (timed.offline > 0) == (selector == "rrd")


@pytest.mark.parametrize(
  ("selector", "line"), [("full", "has no keep_fraction"), ("eswp", "trains on parts of its batches")]
)
def test_a_selector_without_a_fixed_share_is_refused(selector, line):
  with pytest.raises(options.UserError, match=f"selector={selector} {line}"):
    estimate.measure(digits.get_config(f"selector={selector}"), 3)


def test_matched_steps_are_refused():
  config = digits.get_config("selector=random")
  config.match_steps = True
  with pytest.raises(options.UserError, match="match_steps=True: the estimates are of runs with as many epochs"):
    estimate.measure(config, 3)


def test_readme_has_the_command():
  assert "python -m experiments.estimate --config=configs/" in (ROOT / "README.md").read_text()
