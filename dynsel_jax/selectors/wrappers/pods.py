"""A wrapper that lets the kept fraction swing between low and high epochs, at the budget of the fixed fraction.

"PODS", arXiv 2605.14773: phases of a low keep fraction, which regularise, alternate with phases of a high one, which
recover, around a target fraction; the wrapped selector decides who is kept. The public text has no algorithm and no
fractions. From its figures: one low and one high epoch in turn, a high one last, and no more samples in all than at the
fixed fraction. The rule here, the amplitude and the length of the low phases are this project's own.

`N` is the number of training samples, `T` the number of epochs.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import UserError, check_fraction, check_positive
from dynsel_jax.selectors.ranking import budget
from dynsel_jax.selectors.wrappers.full_data import Selected, as_arrays, lift
from dynsel_jax.types import SampleTable, Selector, SelectorState, Signals

__all__ = ["PodsState", "pods", "volumes"]


class PodsState(NamedTuple):
  """The states of the wrapped selector at each of the fractions."""

  inner: SelectorState  # at its own fraction
  others: tuple[SelectorState, ...]


def volumes(num_samples: int, count: int, low: int, high: int, high_epochs: int, epochs: int) -> list[int]:
  """Returns how many samples each epoch keeps.

  An epoch is low until what was saved pays for a high phase. So the low phases have the only mean length that keeps the
  budget, no prefix of the run exceeds it, and the last epoch spends the rest of it, up to N.

  Args:
    num_samples: N.
    count: samples of an epoch at the fixed fraction.
    low: samples of a low epoch, fewer than `count`.
    high: samples of a high epoch, more than `count`.
    high_epochs: length of a high phase.
    epochs: T.
  """
  sizes: list[int] = []
  saved = left = 0
  for epoch in range(epochs):
    if epoch == epochs - 1:
      size = min(count + saved, num_samples)
    elif left > 0:
      size, left = high, left - 1
    elif saved >= high_epochs * (high - count):
      size, left = high, high_epochs - 1
    else:
      size = low
    saved += count - size
    sizes.append(size)
  return sizes


def pods(
  selector: Selector, table: SampleTable, epochs: int, *, low: float = 0.0, high: float = 0.0, high_epochs: int = 1
) -> Selector:
  """Alternates epochs in which the selector keeps a lower and a higher fraction than its own p.

  The epochs that the selector trains on the full data by itself (annealing, warm-up, RRD's last ones) stay as they are,
  and the others have the budget of as many epochs at p. The log's `volume` is the number of samples asked for. An epoch
  stays one T-th of the learning rate's schedule, however many steps it has. Over `rs2` without replacement an epoch
  takes its part of the permutation that an epoch of its own fraction would take, so that a pass may miss samples.

  Args:
    selector: chooses, by a method with the option `keep_fraction`; no other wrapper may lie between.
    table: the training set, N samples.
    epochs: of the run, T.
    low: fraction of a low epoch, in (0, p); 0 stands for p - min(0.2, 2/3 p, 2/3 (1 - p)).
    high: fraction of a high epoch, in (p, 1]; 0 stands for 2 p - low.
    high_epochs: length of a high phase.

  Raises:
    UserError: the selector has no keep fraction that may be set, or a value lies outside its range.
  """
  if selector.volume is None:
    raise UserError(
      "wrap=pods sets the keep_fraction of each epoch: name it first, around a method that has this option"
    )
  num_samples, own = table.num_samples, selector.volume.keep_fraction
  counts = _schedule(num_samples, own, low, high, high_epochs, epochs, selector.full_epochs)
  sizes = list(dict.fromkeys((budget(own, num_samples), *counts)))
  members = [selector, *(selector.volume.at(size / num_samples) for size in sizes[1:])]
  which = jnp.asarray([sizes.index(count) for count in counts], jnp.int32)
  asked = jnp.asarray(counts, jnp.int32)

  def init(key: Array) -> PodsState:
    inner, *others = (member.init(jax.random.clone(key)) for member in members)
    return PodsState(inner, tuple(others))

  def select(key: Array, state: PodsState, epoch: Array) -> Selected:
    states = (state.inner, *state.others)
    calls = [functools.partial(m.select, key, s, epoch) for m, s in zip(members, states, strict=True)]
    selection, info = jax.lax.switch(which[epoch], _alike(calls))
    return selection, {**info, "volume": asked[epoch]}

  def observe(state: PodsState, signals: Signals) -> PodsState:
    others = (member.observe(other, signals) for member, other in zip(members[1:], state.others, strict=True))
    return PodsState(selector.observe(state.inner, signals), tuple(others))

  return lift(selector, init, select, observe)


def _schedule(
  num_samples: int, own: float, low: float, high: float, high_epochs: int, epochs: int, full_epochs: tuple[int, int]
) -> list[int]:
  """Returns how many samples each epoch is to keep; the epochs on the full data have the fixed fraction's number."""
  check_positive("high_epochs", high_epochs)
  check_fraction("low", low, zero=True)
  check_fraction("high", high, zero=True)
  below = low or own - min(0.2, 2 / 3 * own, 2 / 3 * (1 - own))
  count, few = budget(own, num_samples), budget(below, num_samples)
  many = budget(high, num_samples) if high else 2 * count - few
  if not few < count < many <= num_samples:
    raise UserError(
      f"wrap=pods: low={below:g} and high={high or 2 * own - below:g} keep {few} and {many} of {num_samples} samples;"
      f" they must lie on either side of the {count} that keep_fraction={own} keeps"
    )
  first, last = full_epochs
  cycle = volumes(num_samples, count, few, many, high_epochs, max(epochs - first - last, 0))
  return ([count] * first + cycle + [count] * last)[:epochs]


def _alike(calls: Sequence[functools.partial[Selected]]) -> list[functools.partial[Selected]]:
  """Makes selections of the same types: with loss weights in each of them if one has some."""
  weighted = any(jax.eval_shape(call)[0].weights is not None for call in calls)

  def alike(call: functools.partial[Selected]) -> Selected:
    selection, info = call()
    if weighted and selection.weights is None:
      selection = selection._replace(weights=jnp.ones(selection.keep.shape, jnp.float32))
    return as_arrays(selection), jax.tree.map(jnp.asarray, info)

  return [functools.partial(alike, call) for call in calls]
