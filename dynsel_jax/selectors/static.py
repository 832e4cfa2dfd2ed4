"""Static subsets: a column of scores from the table, and a subset that is chosen once before training.

Host-side, except the selector's functions.

`N` is the number of training samples, `C` the number of classes.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

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
  """Returns the column `name` of the table, `[N]` float32, with every non-finite value as NaN, which ranks last.

  Raises:
    UserError: the table has no such column, or no value in it is finite. The message names `field`, which the user set.
  """
  if name not in table.columns:
    known = ", ".join(sorted(table.columns)) or "none"
    raise UserError(
      f"{field}={name!r} is not a column of the table; it has: {known} (experiments.score_dataset makes columns)"
    )
  column = jnp.asarray(table.columns[name], jnp.float32)
  if column.ndim > 1:
    raise UserError(f"{field}={name!r} has a value for each epoch; only selector=proxy reads such a column")
  finite = jnp.isfinite(column)
  if not finite.any():
    raise UserError(f"{field}={name!r} contains no finite value")
  return jnp.where(finite, column, jnp.nan)


def counts_and_groups(
  table: SampleTable, keep_fraction: float, class_balanced: bool
) -> tuple[Array | int, Array | None]:
  """Returns the number of samples to keep and their groups, as the functions of `selectors.subsets` take them.

  Args:
    table: the training set, N samples.
    keep_fraction: fraction kept, in (0, 1].
    class_balanced: keep that fraction of each class.

  Returns:
    Counts `[C]` int32 and groups `[N]` int32; without class balance a single count, and None.

  Raises:
    UserError: the fraction lies outside its range, or the table has no labels to balance.
  """
  count = ranking.keep_count(keep_fraction, table.num_samples)
  if not class_balanced:
    return count, None
  layout = ranking.class_layout(table)
  return ranking.class_budgets(keep_fraction, layout), layout.labels


def count_missing(*columns: Array) -> dict[str, Array]:
  """Returns the info of `select`: the number of samples that are NaN in one of the columns `[N]` float32."""
  missing = jnp.any(jnp.isnan(jnp.stack(columns)), axis=0)
  return {"non_finite": jnp.sum(missing, dtype=jnp.int32)}


def fixed_subset(
  choose: Callable[[Array], Array], columns: Mapping[str, Array] = {}, *, labels: bool = False
) -> Selector:
  """Builds the selector that trains on one subset in every epoch.

  Args:
    choose: maps a key to the kept samples, `[N]` bool. Pure; called once, before training.
    columns: the columns that it reads by name, from `column_of`.
    labels: whether it reads the labels.
  """
  info = count_missing(*columns.values()) if columns else {}

  def init(key: Array) -> SubsetState:
    return SubsetState(keep=choose(key))

  def select(key: Array, state: SubsetState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del key, epoch
    return Selection(keep=state.keep), info

  def observe(state: SubsetState, signals: Signals) -> SubsetState:
    del signals
    return state

  return Selector(init, select, observe, reads=(*columns, *(["labels"] if labels else [])))
