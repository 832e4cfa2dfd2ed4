"""RCAP: gives each class a share by its loss, and draws in it with a preference for high losses.

Hassan, Khare and Paik, "RCAP: Robust, Class-Aware, Probabilistic Dynamic Dataset Pruning", arXiv 2606.11761. What a
class would get beyond its size goes to the other classes in proportion to their weights, so that exactly the budget
is kept; the authors' code gives out more than the budget then, and rounds every class up in any case. As in their
code a class's aggregate is a sum of importances, its losses' softmax, rather than of losses.

`N` is the number of training samples, `C` the number of classes, `M` the number kept each epoch.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import check_positive
from dynsel_jax.selectors import memory, ranking, wrappers
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["RCAPState", "class_mass", "class_shares", "importance", "rcap", "whole_counts"]


class RCAPState(NamedTuple):
  """What RCAP remembers."""

  last_loss: Array  # [N] float32, log C until a sample has been seen
  last_trained: Array  # [N] int32, the epoch in which it was last trained on, -1 if never


def importance(log_weight: Array, labels: Array, num_classes: int) -> Array:
  """Returns the softmax of log weights within each class, `[N]` float32; 0 where the log weight is -inf."""
  highest = jax.ops.segment_max(log_weight, labels, num_classes)
  highest = jnp.where(jnp.isfinite(highest), highest, 0.0)
  weight = jnp.exp(log_weight - highest[labels])
  total = jax.ops.segment_sum(weight, labels, num_classes)
  return weight / jnp.where(total > 0, total, 1.0)[labels]


def class_mass(weight: Array, selected: Array, labels: Array, num_classes: int) -> Array:
  """Returns each class's aggregate L: the importance of those selected in the last epoch, `[C]` float32.

  A class of which nothing was selected counts as a whole, 1, as each does in the first epoch.
  """
  mass = jax.ops.segment_sum(jnp.where(selected, weight, 0.0), labels, num_classes)
  return jnp.where(mass > 0, mass, 1.0)


def class_shares(mass: Array, sizes: Array, total: int) -> Array:
  """Splits the budget over the classes in proportion to sqrt(L n / N), with none above its size.

  Args:
    mass: `[C]` float32, L, above 0.
    sizes: `[C]` int32, n, samples of each class.
    total: M, at most the sum of the sizes.

  Returns:
    `[C]` float32, real numbers that sum to M.
  """
  size = sizes.astype(jnp.float32)
  weight = jnp.sqrt(mass * size / jnp.sum(size))
  order = jnp.argsort(size / weight)  # in which the classes fill up
  size_in_order, weight_in_order = size[order], weight[order]
  rest = total - (jnp.cumsum(size_in_order) - size_in_order)  # with the classes before this one full
  rate = rest / jnp.cumsum(weight_in_order[::-1])[::-1]
  num_full = jnp.sum(jnp.cumprod((rate * weight_in_order >= size_in_order).astype(jnp.int32)))
  rate = jnp.append(rate, jnp.inf)[num_full]
  return jnp.minimum(size, rate * weight)


def whole_counts(key: Array, shares: Array, sizes: Array, total: int) -> Array:
  """Rounds shares so that they still sum to `total`: down, and up for the largest remainders; ties by the key.

  Args:
    key: consumed.
    shares: `[C]` float32, none above its size.
    sizes: `[C]` int32.
    total: M.

  Returns:
    `[C]` int32.
  """
  down = jnp.floor(shares).astype(jnp.int32)
  up = ranking.top(key, shares - down.astype(jnp.float32), total - jnp.sum(down), down < sizes)
  return down + up.astype(jnp.int32)


def rcap(table: SampleTable, epochs: int, *, keep_fraction: float = 0.3, temperature: float = 1.0) -> Selector:
  """Keeps a number of each class that grows with its loss, drawn without replacement in favour of high losses.

  Within a class the draw is in proportion to exp(loss / temperature), with the loss clipped to [0, log C]. A loss
  that is not finite has weight 0. All samples are trained on until each has been seen once.

  Args:
    table: the training set, N samples.
    epochs: how many the run has.
    keep_fraction: share kept each epoch, in (0, 1]; M is the floor, the authors' code takes the ceiling.
    temperature: beta, above 0; the paper's values lie between 1/3 and 3.

  Raises:
    UserError: a value lies outside its range.
  """
  ranking.check_fraction("keep_fraction", keep_fraction)
  check_positive("temperature", temperature)
  num_samples, num_classes = table.labels.shape[0], table.num_classes
  highest = math.log(num_classes)
  total = ranking.budget(keep_fraction, num_samples)
  layout = ranking.class_layout(table.labels, num_classes)
  sizes = jnp.asarray(layout.sizes)

  def init(key: Array) -> RCAPState:
    del key
    return RCAPState(
      last_loss=jnp.full(num_samples, highest, jnp.float32), last_trained=jnp.full(num_samples, -1, jnp.int32)
    )

  def select(key: Array, state: RCAPState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    draw_key, order_key = jax.random.split(key)
    round_key, noise_key, tie_key = jax.random.split(draw_key, 3)
    finite, non_finite = ranking.guard(state.last_loss)
    log_weight = jnp.where(finite > -jnp.inf, jnp.clip(finite, 0.0, highest) / temperature, -jnp.inf)
    weight = importance(log_weight, layout.labels, num_classes)
    mass = class_mass(weight, state.last_trained == epoch - 1, layout.labels, num_classes)
    shares = class_shares(mass, sizes, total)
    counts = whole_counts(round_key, shares, sizes, total)
    keep = ranking.top_by_class(tie_key, ranking.perturbed(noise_key, log_weight), layout, counts)
    info = {"classes_kept_whole": jnp.sum(counts == sizes, dtype=jnp.int32), "non_finite": non_finite}
    return ranking.visiting_order(order_key, keep), info

  def observe(state: RCAPState, signals: Signals) -> RCAPState:
    return RCAPState(
      last_loss=memory.written(state.last_loss, signals, signals.loss),
      last_trained=memory.written(state.last_trained, signals, signals.epoch, signals.trained),
    )

  return wrappers.warmed_up(Selector(init, select, observe), table, epochs)
