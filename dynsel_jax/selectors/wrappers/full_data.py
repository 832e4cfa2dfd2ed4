"""Building blocks of the wrappers that train whole epochs on the full data, and of `full`. Pure and jit-able.

`N` is the number of training samples.
"""

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.types import InitFn, ObserveFn, SelectFn, Selection, Selector, SelectorState, Signals

__all__ = ["Selected", "as_arrays", "everything", "lift", "select_unless"]

Selected = tuple[Selection, dict[str, Array]]  # what `select` returns


def everything(num_samples: int) -> Selection:
  """Returns the selection of plain training: all N samples, weight 1, not thinned."""
  return Selection(jnp.ones(num_samples, bool), None, jnp.float32(1), jnp.bool_(False))


def select_unless(full: Array, selector: Selector, key: Array, state: SelectorState, epoch: Array) -> Selected:
  """Selects everything if `full` `[]` bool, else asks the selector; only one of the two is computed.

  In an epoch on the full data the scalars that the selector would have logged are 0, and `full_data` is True.
  """

  def chosen() -> Selected:
    selection, info = selector.select(key, state, epoch)
    return as_arrays(selection), jax.tree.map(jnp.asarray, info)

  def all_samples() -> Selected:
    selection, info = jax.eval_shape(chosen)
    plain = everything(selection.keep.shape[0])
    weights = None if selection.weights is None else jnp.ones(selection.weights.shape, selection.weights.dtype)
    return plain._replace(weights=weights), jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), info)

  selection, info = jax.lax.cond(full, all_samples, chosen)
  return selection, {**info, "full_data": full | info.get("full_data", jnp.bool_(False))}


def as_arrays(selection: Selection) -> Selection:
  """Makes the scalar defaults of a `Selection` arrays, so that both branches have the same types."""
  return selection._replace(
    learning_rate_multiplier=jnp.asarray(selection.learning_rate_multiplier, jnp.float32),
    thin=jnp.asarray(selection.thin, bool),
  )


def lift(
  selector: Selector, init: InitFn, select: SelectFn, observe: ObserveFn, *, reads: tuple[str, ...] = ()
) -> Selector:
  """Builds a wrapper whose state holds the state of the wrapped `selector` in its field `inner`.

  It thins, refreshes and normalises the loss as `selector` does, and reads `reads` beside what `selector` reads.
  """

  def thin(key: Array, state: SelectorState, signals: Signals) -> tuple[Array, Array]:
    assert selector.thin is not None
    return selector.thin(key, state.inner, signals)

  def refresh(state: SelectorState, epoch: Array) -> Array:
    assert selector.refresh is not None
    return selector.refresh(state.inner, epoch)

  return selector._replace(
    init=init,
    select=select,
    observe=observe,
    thin=None if selector.thin is None else thin,
    refresh=None if selector.refresh is None else refresh,
    reads=tuple(dict.fromkeys((*selector.reads, *reads))),
  )
