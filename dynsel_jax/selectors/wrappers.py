"""Wrappers: take a selector and return one that trains on the full data in some of the epochs.

They work over any selector, with or without `thin` and `refresh`. A full-data epoch is that of `full`, bit for bit:
weight 1, not thinned, learning rate as scheduled. The inner `select` is not run then; the scalars that it would have
logged are 0, and `full_data` is True. `lifted`, `members` and `replanned` are what the other wrappers, each in a file
of its own, are written with.

`N` is the number of training samples, `B` the global batch size, `b` the number of samples a thinned batch trains on.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import ranking
from dynsel_jax.selectors.memory import written
from dynsel_jax.types import InitFn, ObserveFn, SampleTable, SelectFn, Selection, Selector, SelectorState, Signals

__all__ = ["Plan", "WarmedUpState", "annealed", "lifted", "members", "replanned", "warmed_up"]

Plan = tuple[Selection, dict[str, Array]]


def annealed(
  selector: Selector, table: SampleTable, epochs: int, *, first: float = 0.0, last: float = 0.15
) -> Selector:
  """Trains on the full data in the first and the last share of the epochs.

  With epochs t counted from 1 to T, the full data is taken where t <= first T or t > (1 - last) T. So shares that are
  no whole number of epochs give floor(first T) epochs at the start and ceil(last T) at the end.

  Args:
    selector: decides the other epochs. It observes every epoch.
    table: the training set, N samples.
    epochs: how many the run has, T.
    first: share of the epochs, in [0, 1].
    last: share of the epochs, in [0, 1].

  Raises:
    UserError: a share lies outside its range.
  """
  ranking.check_fraction("first", first, zero=True)
  ranking.check_fraction("last", last, zero=True)
  num_samples = table.labels.shape[0]
  begin = ranking.budget(first, epochs, least=0)
  end = ranking.budget(1.0 - last, epochs, least=0)

  def is_full(epoch: Array) -> Array:
    return (epoch < begin) | (epoch >= end)  # epochs counted from 0

  def select(key: Array, state: SelectorState, epoch: Array) -> Plan:
    return _select_unless(is_full(epoch), selector, key, state, epoch, num_samples)

  def refresh(state: SelectorState, epoch: Array) -> Selection:
    assert selector.refresh is not None
    inner = selector.refresh
    return jax.lax.cond(is_full(epoch), lambda: ranking.nothing(num_samples), lambda: _as_arrays(inner(state, epoch)))

  return Selector(selector.init, select, selector.observe, selector.thin, None if selector.refresh is None else refresh)


class WarmedUpState(NamedTuple):
  """The inner state, and which samples were observed."""

  inner: SelectorState  # of the wrapped selector
  seen: Array  # [N] bool


def warmed_up(selector: Selector, table: SampleTable, epochs: int) -> Selector:
  """Trains on the full data until every sample has been observed once.

  Args:
    selector: decides the epochs after that. It observes every epoch.
    table: the training set, N samples.
    epochs: unused.
  """
  del epochs
  num_samples = table.labels.shape[0]

  def init(key: Array) -> WarmedUpState:
    return WarmedUpState(inner=selector.init(key), seen=jnp.zeros(num_samples, bool))

  def select(key: Array, state: WarmedUpState, epoch: Array) -> Plan:
    return _select_unless(~jnp.all(state.seen), selector, key, state.inner, epoch, num_samples)

  def observe(state: WarmedUpState, signals: Signals) -> WarmedUpState:
    return WarmedUpState(
      inner=selector.observe(state.inner, signals), seen=written(state.seen, signals, jnp.bool_(True))
    )

  return lifted(selector, init, select, observe)


def lifted(selector: Selector, init: InitFn, select: SelectFn, observe: ObserveFn) -> Selector:
  """Returns a wrapper whose state holds that of the wrapped `selector` in its field `inner`.

  It thins and refreshes as `selector` does, if `selector` does.
  """

  def thin(key: Array, state: SelectorState, signals: Signals) -> tuple[Array, Array]:
    assert selector.thin is not None
    return selector.thin(key, state.inner, signals)

  def refresh(state: SelectorState, epoch: Array) -> Selection:
    assert selector.refresh is not None
    return selector.refresh(state.inner, epoch)

  return Selector(
    init, select, observe, None if selector.thin is None else thin, None if selector.refresh is None else refresh
  )


def members(selection: Selection) -> Array:
  """Tells which samples a plan holds, `[N]` bool."""
  return jnp.zeros(selection.indices.shape, bool).at[_positions(selection)].set(True, mode="drop")


def replanned(key: Array, selection: Selection, keep: Array) -> Selection:
  """Plans the samples of `keep` in place of those of `selection`.

  A sample of both keeps its loss weight; a newcomer gets the mean weight of `selection`. They come in the order of
  `ranking.visiting_order`, so the same samples come in the same order.

  Args:
    key: the key that `select` was given, not yet split.
    selection: gives the weights, the learning rate's multiplier, and whether to thin.
    keep: `[N]` bool.
  """
  mean = jnp.sum(selection.weights) / jnp.maximum(selection.size, 1).astype(jnp.float32)
  weights = jnp.full(keep.shape, mean).at[_positions(selection)].set(selection.weights, mode="drop")
  _, order_key = jax.random.split(key)
  plan, as_arrays = ranking.visiting_order(order_key, keep, weights), _as_arrays(selection)
  return plan._replace(learning_rate_multiplier=as_arrays.learning_rate_multiplier, thin=as_arrays.thin)


def _positions(selection: Selection) -> Array:
  """Returns the plan's indices, N on the tail, so that a scatter drops it."""
  return jnp.where(selection.indices < 0, selection.indices.shape[0], selection.indices)


def _select_unless(full: Array, selector: Selector, key: Array, state: SelectorState, epoch: Array, n: int) -> Plan:
  """Plans a full-data epoch if `full`, else asks the selector; only one of the two is computed."""

  def chosen() -> Plan:
    selection, info = selector.select(key, state, epoch)
    return _as_arrays(selection), jax.tree.map(jnp.asarray, info)

  def everything() -> Plan:
    _, info = jax.eval_shape(chosen)
    return ranking.everything(key, n), jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), info)

  selection, info = jax.lax.cond(full, everything, chosen)
  return selection, {**info, "full_data": full | info.get("full_data", jnp.bool_(False))}


def _as_arrays(selection: Selection) -> Selection:
  """Makes the two defaults of a `Selection` arrays, so that both branches have the same types."""
  return Selection(
    indices=selection.indices,
    weights=selection.weights,
    size=selection.size,
    learning_rate_multiplier=jnp.asarray(selection.learning_rate_multiplier, jnp.float32),
    thin=jnp.asarray(selection.thin, bool),
  )
