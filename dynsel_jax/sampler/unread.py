"""What is left of a running epoch, for loaders that read ahead of training and may save where they stand. Host-side."""

from collections.abc import Mapping
from typing import Any

from dynsel_jax.options import UserError
from dynsel_jax.sampler.sampler import Sampler

__all__ = ["Unread"]


class Unread:
  """Yields this rank's part of each batch that is left of the running epoch, a list of sample indices.

  The epoch's samples are selected when the first item is asked for. Outside of a loop over `Sampler.epochs`, the epoch
  ends when this is iterated over anew after all of it was observed. `group` and `drop_last` are those of
  `Epoch.read_ahead`.
  """

  by_sample = False  # whether it yields single indices in place of lists

  def __init__(self, selection: Sampler, group: int = 1, *, drop_last: bool = False):
    self.selection, self._group, self._drop_last = selection, group, drop_last
    self.read_in_vain = (-1, -1)  # (epoch, batch) where a reader that came to its end had started

  def __iter__(self) -> "_Reader":
    return _Reader(self)

  def __len__(self) -> int:
    """Returns how many items are left of the running epoch."""
    epoch = self.selection.current()
    return 0 if epoch is None else len(self._items(epoch))

  def _items(self, source: Any) -> list[Any]:
    batches = [index.tolist() for index, _ in source.read_ahead(self._group, drop_last=self._drop_last)]
    return [sample for batch in batches for sample in batch] if self.by_sample else batches

  @property
  def here(self) -> tuple[int, int]:
    """The running epoch and its batches that are done."""
    return self.selection.epoch, self.selection.step

  def items(self) -> list[Any]:
    """Returns the items for a new reader."""
    items = self._items(self.selection)
    if items and self.read_in_vain == self.here:
      raise UserError(f"no batch of epoch {self.selection.epoch + 1} was observed: show each to Sampler.observe")
    return items

  def batches(self, items: int) -> int:
    """Returns the number of batches that the first items make."""
    return -(-items * self.selection.world_size // self.selection.batch_size) if self.by_sample else items


class _Reader:
  """Iterates once; knows which batch it has read last."""

  def __init__(self, owner: Unread):
    self._owner, self._read = owner, 0
    self._items: list[Any] | None = None
    self._position = {"epoch": -1, "step": 0, "last": 0}

  def __iter__(self) -> "_Reader":
    return self

  def __next__(self) -> Any:
    if self._items is None:
      self._items = self._owner.items()
      epoch, step = self._owner.here
      self._position = {"epoch": epoch, "step": step, "last": step + self._owner.batches(len(self._items))}
    if self._read == len(self._items):
      self._owner.read_in_vain = (self._position["epoch"], self._position["step"])
      raise StopIteration
    self._read += 1
    return self._items[self._read - 1]

  def state_dict(self) -> dict[str, int]:
    """Returns the position. A `StatefulDataLoader` keeps that of each batch that it reads until the batch is used."""
    return {**self._position, "step": self._position["step"] + self._owner.batches(self._read)}

  def load_state_dict(self, state: Mapping[str, int]) -> None:
    """Checks that the loader stood where the selection stands."""
    here, there = self._owner.here, (state["epoch"], state["step"])
    over = state["step"] == state["last"] and here == (there[0] + 1, 0)
    if there[0] >= 0 and here != there and not over:
      raise UserError(
        f"the loader stands at (epoch, batch) {there}, the selection at {here}: save both when a batch has been"
        " observed, and load the selection before the loader is used"
      )
