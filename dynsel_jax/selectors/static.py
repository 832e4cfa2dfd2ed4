"""What the selectors of a fixed subset share: the column that they read, and a subset that is chosen once.

Host-side but for the selector's functions.

`N` is the number of training samples, `C` the number of classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.options import UserError
from dynsel_jax.selectors import ranking
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["SubsetState", "column_of", "count_missing", "counts_and_groups", "fixed_subset"]


class SubsetState(NamedTuple):
  """The subset."""

  keep: Array  # [N] bool


def column_of(table: SampleTable, name: str, field: str) -> Array:
  """Returns the column `name` of the table, `[N]` float32, with NaN for what is not finite: the choices keep it last.

  Raises:
    UserError: there is no such column, with those that there are, or no value in it is finite; `field` is what the
      user set.
  """
  if name not in table.columns:
    known = ", ".join(sorted(table.columns)) or "none"
    raise UserError(f"{field}={name!r} is no column of the training set; the columns there are: {known}")
  column = jnp.asarray(table.columns[name], jnp.float32)
  finite = jnp.isfinite(column)
  if not finite.any():
    raise UserError(f"{field}={name!r} has no value that is finite")
  return jnp.where(finite, column, jnp.nan)


def counts_and_groups(
  table: SampleTable, keep_fraction: float, class_balanced: bool
) -> tuple[Array | int, Array | None]:
  """Returns how many samples to keep, and in which groups, as the choices of `coresets.subsets` take them.

  Args:
    table: the training set, N samples.
    keep_fraction: share kept, in (0, 1].
    class_balanced: whether each class keeps that share of its samples.

  Returns:
    Counts `[C]` int32 and groups `[N]` int32; without class balance a number, and None.

  Raises:
    UserError: the fraction lies outside its range.
  """
  ranking.check_fraction("keep_fraction", keep_fraction)
  if not class_balanced:
    return ranking.budget(keep_fraction, table.labels.shape[0]), None
  layout = ranking.class_layout(table.labels, table.num_classes)
  return ranking.class_budgets(keep_fraction, layout), layout.labels


def count_missing(*columns: Array) -> dict[str, Array]:
  """Returns the info of `select` that says how many samples are NaN in one of the columns, `[N]` float32 each."""
  missing = jnp.any(jnp.isnan(jnp.stack(columns)), axis=0)
  return {"non_finite": jnp.sum(missing, dtype=jnp.int32)}


def fixed_subset(choose: Callable[[Array], Array], *columns: Array) -> Selector:
  """Returns the selector that trains on one subset in every epoch.

  Args:
    choose: maps a key to the samples that are kept, `[N]` bool. Pure; called once, before training.
    *columns: from `column_of`, those that it reads.
  """
  info = count_missing(*columns) if columns else {}

  def init(key: Array) -> SubsetState:
    return SubsetState(keep=choose(key))

  def select(key: Array, state: SubsetState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del epoch
    _, order_key = jax.random.split(key)
    return ranking.visiting_order(order_key, state.keep), info

  def observe(state: SubsetState, signals: Signals) -> SubsetState:
    del signals
    return state

  return Selector(init, select, observe)
