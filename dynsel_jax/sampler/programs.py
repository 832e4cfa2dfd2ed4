"""The compiled functions of a selector, and the observed batches that wait for them. Host-side.

`N` is the number of training samples, `B` the global batch size, `b` the rows of a batch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from dynsel_jax import batching
from dynsel_jax.types import Plan, Selector, Signals

__all__ = ["Batch", "Programs", "signals_of"]


class Batch(NamedTuple):
  """One observed batch, not applied yet."""

  index: np.ndarray  # type: ignore[assignment]  # [b] int
  loss: np.ndarray | Array  # [b] float
  trained: np.ndarray  # [b] bool
  extras: dict[str, np.ndarray | Array]  # [b] or [b, D] each


class Programs:
  """The compiled functions of a selector; each is traced once, whatever the number of batches."""

  def __init__(self, selector: Selector, batch_size: int, num_samples: int):
    self._chunk = -(-num_samples // batch_size)  # batches that are applied in one call
    self._selector, self._batch_size = selector, batch_size
    self.init = jax.jit(selector.init)
    self.plan = jax.jit(self._select_and_order)
    self._observe = jax.jit(selector.observe, donate_argnums=0)
    self._observe_many = jax.jit(self._scan, donate_argnums=0)
    self.thin: Callable[..., Any] = jax.jit(selector.thin) if selector.thin else lambda *_: None
    self.refresh: Callable[..., Any] = jax.jit(selector.refresh) if selector.refresh else lambda *_: None

  def _select_and_order(
    self, select_key: Array, order_key: Array, state: Any, epoch: Array
  ) -> tuple[Plan, Any, Any, Any]:
    selection, info = self._selector.select(select_key, state, epoch)
    return batching.order(order_key, selection), selection.learning_rate_multiplier, selection.thin, info

  def _scan(self, state: Any, batches: Signals) -> Any:
    return jax.lax.scan(lambda state, signals: (self._selector.observe(state, signals), None), state, batches)[0]

  def observe(self, state: Any, batches: Sequence[Batch], epoch: int) -> tuple[Any, int]:
    """Returns the state after batches, applied in their order, and the number of their non-finite losses."""
    non_finite = 0
    for start in range(0, len(batches), self._chunk):
      part = batches[start : start + self._chunk]
      if len(batches) == 1:
        signals = signals_of(part[0], self._batch_size, epoch)
        state = self._observe(state, signals)
      else:
        signals = _stacked(part, self._chunk, self._batch_size, epoch)
        state = self._observe_many(state, signals)
      non_finite += int(np.count_nonzero(~np.isfinite(signals.loss)))
    return state, non_finite


def signals_of(batch: Batch, batch_size: int, epoch: int) -> Signals:
  """Pads a batch to B rows."""
  stacked = _stacked([batch], 1, batch_size, epoch)
  return jax.tree.map(lambda rows: rows[0], stacked)


def _stacked(batches: Sequence[Batch], number: int, batch_size: int, epoch: int) -> Signals:
  """Pads each batch to B rows and stacks them, with batches of padding behind, to `number` batches.

  The arrays are new ones: a program may still be reading those of the call before.
  """
  index = np.full((number, batch_size), -1, np.int32)
  loss, trained = np.zeros(index.shape, np.float32), np.zeros(index.shape, bool)
  dtypes = {name: np.result_type(*(batch.extras[name] for batch in batches)) for name in batches[0].extras}
  widths = {name: values.shape[1:] for name, values in batches[0].extras.items()}
  extras = {name: np.zeros((*index.shape, *widths[name]), dtype) for name, dtype in dtypes.items()}
  for row, batch in enumerate(batches):
    size = len(batch.index)
    index[row, :size], loss[row, :size], trained[row, :size] = batch.index, batch.loss, batch.trained
    for name, values in batch.extras.items():
      extras[name][row, :size] = values
  epochs: Any = np.full(number, epoch, np.int32)
  arrays: Any = Signals  # of numpy arrays
  return arrays(index=index, loss=loss, trained=trained, epoch=epochs, extras=extras)
