"""Learning rate over progress, against PyTorch's published formulas written out and the RRD paper's milestones."""

import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import options
from dynsel_jax.training import schedules


def _at(schedule, *progress):
  return np.array([float(schedule(jnp.float32(p))) for p in progress])


def test_cosine_falls_from_peak_to_end():
  schedule = schedules.create("cosine", 0.1, end=0.01)
  np.testing.assert_allclose(_at(schedule, 0, 0.5, 1), [0.1, 0.055, 0.01], rtol=1e-6)


def test_cosine_warms_up_linearly_from_zero():
  schedule = schedules.create("cosine", 1.0, warmup=0.2)
  np.testing.assert_allclose(_at(schedule, 0, 0.1, 0.2, 0.6, 1), [0, 0.5, 1, 0.5, 0], atol=1e-6)


def test_linear_rises_and_falls_along_lines():
  schedule = schedules.create("linear", 1.0, warmup=0.2, end=0.1)
  np.testing.assert_allclose(_at(schedule, 0, 0.1, 0.2, 0.6, 1), [0, 0.5, 1, 0.55, 0.1], atol=1e-6)
  from_start = schedules.create("linear", 1.0, start=0.2, warmup=0.2)
  np.testing.assert_allclose(_at(from_start, 0, 0.1, 0.2, 0.6, 1), [0.2, 0.6, 1, 0.5, 0], atol=1e-6)
  assert schedules.defaults("linear") == {"start": 0.0, "end": 0.0, "warmup": 0.06}


def test_one_cycle_has_its_three_rates():
  schedule = schedules.create("one_cycle", 1.0)
  np.testing.assert_allclose(_at(schedule, 0, 0.3, 1), [1 / 25, 1, 1 / 25 / 1e4], rtol=1e-4)
  rising = _at(schedule, *np.linspace(0, 0.3, 9))
  falling = _at(schedule, *np.linspace(0.3, 1, 9))
  assert np.all(np.diff(rising) > 0)
  assert np.all(np.diff(falling) < 0)


def test_multi_step_divides_by_five_at_the_papers_epochs():
  schedule = schedules.create("multi_step", 0.1)
  np.testing.assert_allclose(
    _at(schedule, 59 / 200, 60 / 200, 120 / 200, 180 / 200), [0.1, 0.02, 0.004, 0.0008], rtol=1e-5
  )


def test_constant_stays():
  np.testing.assert_allclose(_at(schedules.create("constant", 0.3), 0, 1), [0.3, 0.3], rtol=1e-6)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_every_schedule_is_finite_and_not_negative_over_the_whole_run(name):
  rates = _at(schedules.create(name, 0.1), *np.linspace(0, 1, 51))
  assert np.all(np.isfinite(rates))
  assert np.all(rates >= 0)
  assert rates.max() == pytest.approx(0.1)


@pytest.mark.parametrize(
  ("name", "settings", "named"),
  [
    ("cosin", {}, "known: constant, cosine, linear, multi_step, one_cycle"),
    ("cosine", {"warm": 0.1}, "its options: end, warmup"),
    ("cosine", {"warmup": 1.0}, "schedule.warmup=1.0"),
    ("linear", {"end": -1.0}, "schedule.end=-1.0"),
    ("one_cycle", {"rise": 0.0}, "schedule.rise=0.0"),
    ("multi_step", {"milestones": (0.5, 60)}, "schedule.milestones=60"),
  ],
)
def test_wrong_settings_are_named(name, settings, named):
  with pytest.raises(options.UserError, match=named.replace("(", r"\(")):
    schedules.create(name, 0.1, **settings)
