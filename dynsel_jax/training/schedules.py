"""The learning rate as a function of training progress. Pure functions of one scalar.

Progress lies in [0, 1]: the epochs done, with the done fraction of the current epoch's plan, divided by all epochs.
Steps cannot be counted beforehand, because a method decides an epoch's length only when the epoch begins.
"""

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array

from dynsel_jax import options

__all__ = ["SCHEDULES", "Schedule", "constant", "cosine", "create", "defaults", "linear", "multi_step", "one_cycle"]

Schedule = Callable[[Array], Array]  # progress [] float32 -> learning rate [] float32


def _cosine_between(start: float, end: float, fraction: Array) -> Array:
  return end + (start - end) * 0.5 * (1.0 + jnp.cos(math.pi * fraction))


def constant(peak: float) -> Schedule:
  """Returns `peak` throughout."""
  return lambda progress: jnp.full_like(progress, peak)


def cosine(peak: float, *, end: float = 0.0, warmup: float = 0.0) -> Schedule:
  """Falls from `peak` to `end` along half a cosine, after a linear rise from 0.

  Source: Loshchilov and Hutter, arXiv 1608.03983, Eq. 5, without restarts.

  Args:
    peak: the largest learning rate.
    end: the learning rate at the end of training.
    warmup: fraction of training that the rise takes, in [0, 1).
  """
  return _after_warmup(peak, end, warmup, lambda fraction: _cosine_between(peak, end, fraction))


def linear(peak: float, *, start: float = 0.0, end: float = 0.0, warmup: float = 0.06) -> Schedule:
  """Falls from `peak` to `end` along a line, after a linear rise from `start`.

  Args:
    peak: the largest learning rate.
    start: the learning rate at the start of training.
    end: the learning rate at the end of training.
    warmup: fraction of training that the rise takes, in [0, 1); the default is RoBERTa's for fine-tuning
      (arXiv 1907.11692, Table 10).
  """
  options.check_positive("schedule.start", start, zero=True)
  return _after_warmup(peak, end, warmup, lambda fraction: peak + (end - peak) * fraction, start)


def _after_warmup(
  peak: float, end: float, warmup: float, falling: Callable[[Array], Array], start: float = 0.0
) -> Schedule:
  """Rises from `start` to `peak` during `warmup`, then follows `falling`, a function of the rest's fraction done."""
  options.check_positive("schedule.end", end, zero=True)
  options.check_fraction("schedule.warmup", warmup, zero=True, one=False)

  def schedule(progress: Array) -> Array:
    rest = falling(jnp.clip((progress - warmup) / (1.0 - warmup), 0.0, 1.0))
    rising = start + (peak - start) * progress / max(warmup, 1e-9)
    return jnp.where(progress < warmup, rising, rest)

  return schedule


def one_cycle(peak: float, *, rise: float = 0.3, start_divisor: float = 25.0, end_divisor: float = 1e4) -> Schedule:
  """Rises to `peak` and falls, both along half a cosine, as PyTorch's OneCycleLR.

  InfoBatch (arXiv 2303.04947) trains with it.

  Args:
    peak: the largest learning rate.
    rise: fraction of training that the rise takes, in (0, 1).
    start_divisor: the learning rate starts at `peak / start_divisor`.
    end_divisor: it ends at `peak / start_divisor / end_divisor`.
  """
  options.check_fraction("schedule.rise", rise, one=False)
  options.check_positive("schedule.start_divisor", start_divisor)
  options.check_positive("schedule.end_divisor", end_divisor)
  start = peak / start_divisor

  def schedule(progress: Array) -> Array:
    rising = _cosine_between(start, peak, jnp.clip(progress / rise, 0.0, 1.0))
    falling = _cosine_between(peak, start / end_divisor, jnp.clip((progress - rise) / (1.0 - rise), 0.0, 1.0))
    return jnp.where(progress < rise, rising, falling)

  return schedule


def multi_step(peak: float, *, milestones: Sequence[float] = (0.3, 0.6, 0.9), factor: float = 0.2) -> Schedule:
  """Multiplies the learning rate by `factor` at each of `milestones`.

  The defaults are those of RRD (arXiv 2603.04981, App. C.5): divided by 5 at epochs 60, 120 and 180 of 200.

  Args:
    peak: the learning rate before the first milestone.
    milestones: fractions of training, in (0, 1].
    factor: the factor at each milestone.
  """
  options.check_positive("schedule.factor", factor)
  for milestone in milestones:
    options.check_fraction("schedule.milestones", milestone)

  def schedule(progress: Array) -> Array:
    # Progress is a float32 quotient, which may fall short of a milestone by its last bit.
    passed = sum((progress >= milestone - 1e-6).astype(jnp.float32) for milestone in milestones)
    return peak * jnp.power(jnp.float32(factor), passed)

  return schedule


SCHEDULES: dict[str, Callable[..., Schedule]] = {
  "constant": constant,
  "cosine": cosine,
  "linear": linear,
  "multi_step": multi_step,
  "one_cycle": one_cycle,
}


def defaults(name: str) -> dict[str, object]:
  """Returns the options of the schedule `name` with their defaults."""
  options.check_choice("schedule.name", name, SCHEDULES)
  return options.keyword_defaults(SCHEDULES[name])


def create(name: str, peak: float, **settings: object) -> Schedule:
  """Builds the schedule `name` with its largest learning rate `peak`.

  Raises:
    UserError: the name or an option is unknown, or a value is out of range.
  """
  options.check_choice("schedule.name", name, SCHEDULES)
  options.check_positive("learning_rate", peak)
  options.check_settings("schedule", name, settings, defaults(name))
  return SCHEDULES[name](peak, **settings)
