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
  free, paid = (estimate.lines(TIMED, estimates, price, "EUR") for price in (0.0, 2.0))
  assert "cost, EUR" in paid[1] and "cost" not in free[1]
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


@pytest.mark.parametrize("selector", ["infobatch", "es"])
def test_a_method_that_decides_itself_is_estimated_by_what_a_short_run_realises(selector):
  config = digits.get_config(f"size=smoke,selector={selector}").lock()
  assert estimate.decides_itself(config)
  short = estimate.short_run(config)
  assert short.epochs == config.epochs == 2 and 0 < short.kept <= 1 and short.epoch > 0 and short.offline == 0
  found = estimate.estimate_realised(TIMED, short._replace(kept=0.5, epoch=0.3))
  assert found.run_seconds == pytest.approx(20 * (0.3 + 2.0)) and found.ideal == 2
  assert found.label == "50% kept in a run of 2 epochs"
  assert found.speed_up == pytest.approx((8 * 0.1 + 2.0) / (0.3 + 2.0))


def test_which_methods_decide_themselves():
  fixed = {"random": False, "rrd": False, "eswp": True, "kakurenbo": True, "full": True}
  for selector, decides in fixed.items():
    assert estimate.decides_itself(digits.get_config(f"selector={selector}")) == decides


@pytest.mark.parametrize(("text", "price"), [("2.5 USD", (2.5, "USD")), ("3", (3.0, "units")), ("0", (0.0, "units"))])
def test_a_price_has_a_currency(text, price):
  assert estimate.price_of(text) == price


@pytest.mark.parametrize("text", ["USD 2.5", "", "-1 EUR", "nan"])
def test_a_price_that_is_none_is_refused(text):
  with pytest.raises(options.UserError, match="price_per_hour="):
    estimate.price_of(text)


def test_matched_steps_are_refused():
  config = digits.get_config("selector=random")
  config.match_steps = True
  with pytest.raises(options.UserError, match="match_steps=True: the estimates are of runs with as many epochs"):
    estimate.measure(config, 3)


def test_the_documents_have_the_command():
  assert "python -m experiments.estimate --config=configs/" in (ROOT / "docs" / "resume.md").read_text()
