"""One epoch of a `Sampler`. Host-side, numpy out.

`B` is the global batch size, `b` the rows of a batch, or of one rank's part of it.
"""

from collections.abc import Callable, Iterator

import numpy as np

__all__ = ["Batches", "Epoch"]

Batches = list[tuple[np.ndarray, np.ndarray]]  # indices and weights of each


class Epoch:
  """One epoch of a `Sampler`: iterates over the batches that are left of it. Its length is their number."""

  def __init__(
    self,
    number: int,
    left: int,
    learning_rate_multiplier: float,
    batches: Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]],
    read_ahead: Callable[[int, int, bool], Batches],
    most_rows: int,
  ):
    self.number = number  # counted from 0
    self.learning_rate_multiplier = learning_rate_multiplier  # of the whole epoch; 1 for most methods
    self._left, self._batches, self._read_ahead, self._most_rows = left, batches, read_ahead, most_rows

  def __len__(self) -> int:
    """Returns the number of batches that are left."""
    return self._left

  def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields sample indices `[b]` int32 and loss weights `[b]` float32; a batch that was yielded counts as done."""
    return self._batches(self.number)

  def padded(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the batches with as many rows each, for a step that is compiled for one shape.

    A short last batch is filled up with index -1 and weight 0. Divide a step's loss by the rows whose weight is not 0;
    `Sampler.observe` and `thin` leave the others out.
    """
    for index, weight in self:
      missing = self._most_rows - len(index)
      yield np.pad(index, (0, missing), constant_values=-1), np.pad(weight, (0, missing))

  def read_ahead(self, group: int = 1, *, drop_last: bool = False) -> Batches:
    """Returns the batches that are left, for a loop whose loader reads them before they are trained on.

    None of them counts as done: showing a batch to `Sampler.observe` counts it, and those before it. Every rank gets
    the same number of batches, so a last one with fewer samples than ranks is left out.

    Args:
      group: how many batches make a step of the optimizer; what is left over after the last whole group is left out,
        unless it is all there is.
      drop_last: whether a last batch of less than B samples is left out, as the loader may do.
    """
    return self._read_ahead(self.number, group, drop_last)
