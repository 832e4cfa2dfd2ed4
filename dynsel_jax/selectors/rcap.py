"""RCAP: gives each class a quota by its loss, and prefers high losses within the class.

Hassan, Khare and Paik, "RCAP: Robust, Class-Aware, Probabilistic Dynamic Dataset Pruning", arXiv 2606.11761. The
part of a quota beyond the size of its class goes to the other classes in proportion to their weights, so that exactly
the budget is kept; the authors' code exceeds the budget then, and rounds every class up in any case. As in their code
the aggregate of a class is a sum of importances (a softmax of losses) rather than of losses.

With the importance w of each sample, the aggregate L of each class, and its size n:

    w proportional to exp(l / beta) within a class
    L = sum of w over the samples of the class that were selected in the last epoch
    quota of the class = M sqrt(L n / N) / (the sum of that over all classes)

`N` is the number of training samples, `C` the number of classes, `M` the number kept each epoch.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import UserError, check_positive
from dynsel_jax.selectors import memory, ranking
from dynsel_jax.selectors.wrappers.warmed_up import warmed_up
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["RCAPState", "class_mass", "class_quotas", "importance", "rcap", "round_quotas"]


class RCAPState(NamedTuple):
  """The state of RCAP."""

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
  """Returns the aggregate L of each class: the importance of its samples selected in the last epoch, `[C]` float32.

  L is 1 for a class of which nothing was selected, as for every class in the first epoch.
  """
  mass = jax.ops.segment_sum(jnp.where(selected, weight, 0.0), labels, num_classes)
  return jnp.where(mass > 0, mass, 1.0)


def class_quotas(mass: Array, sizes: Array, total: int) -> Array:
  """Splits the budget among the classes in proportion to sqrt(L n / N), with no quota above the size of its class.

  Args:
    mass: `[C]` float32, L, above 0.
    sizes: `[C]` int32, n, number of samples of each class.
    total: M, at most the sum of the sizes.

  Returns:
    `[C]` float32, real numbers that sum to M; 0 for an empty class.
  """
  size = sizes.astype(jnp.float32)
  weight = jnp.sqrt(mass * size / jnp.sum(size))
  some = size > 0
  # The order in which the classes fill up: an empty one is full.
  order = jnp.argsort(jnp.where(some, size / jnp.where(some, weight, 1.0), 0.0))
  size_in_order, weight_in_order = size[order], weight[order]
  rest = total - (jnp.cumsum(size_in_order) - size_in_order)  # with the classes before this one full
  rate = rest / jnp.cumsum(weight_in_order[::-1])[::-1]
  num_full = jnp.sum(jnp.cumprod((rate * weight_in_order >= size_in_order).astype(jnp.int32)))
  rate = jnp.append(rate, jnp.inf)[num_full]
  return jnp.where(some, jnp.minimum(size, rate * weight), 0.0)  # not inf * 0, if all classes are full


def round_quotas(key: Array, quotas: Array, sizes: Array, total: int) -> Array:
  """Rounds quotas so that they still sum to `total`: down, and up for the largest remainders; ties by the key.

  Args:
    key: consumed.
    quotas: `[C]` float32, none above the size of its class.
    sizes: `[C]` int32.
    total: M.

  Returns:
    `[C]` int32.
  """
  down = jnp.floor(quotas).astype(jnp.int32)
  up = ranking.top(key, quotas - down.astype(jnp.float32), total - jnp.sum(down), down < sizes)
  return down + up.astype(jnp.int32)


def rcap(table: SampleTable, epochs: int, *, keep_fraction: float = 0.3, temperature: float = 1.0) -> Selector:
  """Keeps more samples of the classes with a high loss, drawn without replacement in favour of high losses.

  Within a class the draw is in proportion to exp(loss / temperature), with the loss clipped to [0, log C]. A
  non-finite loss has weight 0. All samples are trained on until each has been seen once.

  Args:
    table: the training set, N samples.
    epochs: of the run.
    keep_fraction: fraction kept each epoch, in (0, 1]; M is the floor, the authors' code takes the ceiling.
    temperature: beta, above 0; the paper's values lie between 1/3 and 3.

  Raises:
    UserError: a value lies outside its range, or the table has fewer than two classes.
  """
  num_samples, num_classes = table.num_samples, table.num_classes
  total = ranking.keep_count(keep_fraction, num_samples)
  check_positive("temperature", temperature)
  layout = ranking.class_layout(table)
  if num_classes < 2:
    raise UserError(
      f"selector=rcap splits its budget among classes or domains and needs at least 2 of them; table.labels has"
      f" {num_classes} (take a method that reads no labels)"
    )
  highest = math.log(num_classes)
  sizes = jnp.asarray(layout.sizes)

  def init(key: Array) -> RCAPState:
    del key
    return RCAPState(
      last_loss=jnp.full(num_samples, highest, jnp.float32), last_trained=jnp.full(num_samples, -1, jnp.int32)
    )

  def select(key: Array, state: RCAPState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    round_key, noise_key, tie_key = jax.random.split(key, 3)
    finite, non_finite = ranking.sanitize(state.last_loss)
    log_weight = jnp.where(finite > -jnp.inf, jnp.clip(finite, 0.0, highest) / temperature, -jnp.inf)
    weight = importance(log_weight, layout.labels, num_classes)
    mass = class_mass(weight, state.last_trained == epoch - 1, layout.labels, num_classes)
    counts = round_quotas(round_key, class_quotas(mass, sizes, total), sizes, total)
    keep = ranking.top_by_class(tie_key, ranking.add_gumbel_noise(noise_key, log_weight), layout, counts)
    info = {"classes_kept_whole": jnp.sum(counts == sizes, dtype=jnp.int32), "non_finite": non_finite}
    return Selection(keep=keep), info

  def observe(state: RCAPState, signals: Signals) -> RCAPState:
    return RCAPState(
      last_loss=memory.scatter(state.last_loss, signals, signals.loss),
      last_trained=memory.scatter(state.last_trained, signals, signals.epoch, signals.trained),
    )

  return warmed_up(Selector(init, select, observe, reads=("labels",)), table, epochs)
