"""PyTorch: samplers for `DataLoader` and torchdata's `StatefulDataLoader`, and losses gathered from all ranks.

    selection = dynsel_jax.Sampler("infobatch", num_samples=len(dataset), epochs=30, batch_size=128)
    batches = SelectionBatchSampler(selection)
    loader = DataLoader(WithIndex(dataset), batch_sampler=batches, num_workers=4, multiprocessing_context="spawn")
    for epoch in selection.epochs():
      for x, y, index in loader:
        losses = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
        weighted_mean(selection, index, losses).backward()
        gather_observe(selection, index, losses)

Save `selection.state_dict()` with the model; a loader over a `selection` that has loaded it goes on behind the last
batch that was observed. A `StatefulDataLoader` has the position in its own state too, and refuses another one.

With several ranks each builds the `Sampler` with its `rank` and `world_size`. Workers are spawned because JAX has
threads, and a process with threads must not be forked.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dynsel_jax.options import UserError
from dynsel_jax.sampler import Batches, Sampler

try:
  import torch
except ModuleNotFoundError as error:
  raise UserError("dynsel_jax.adapters.torch needs PyTorch: pip install torch") from error

__all__ = ["SelectionBatchSampler", "SelectionSampler", "WithIndex", "gather_observe", "weighted_mean"]


class _Reader:
  """Iterates over what is left of the running epoch; selects its samples when the first of them is asked for."""

  def __init__(self, owner: "SelectionBatchSampler"):
    self._owner, self._read = owner, 0
    self._items: list[Any] | None = None
    self._position = {"epoch": -1, "step": 0, "last": 0}

  def __iter__(self) -> "_Reader":
    return self

  def __next__(self) -> Any:
    if self._items is None:
      self._items = self._owner.unread()
      here = self._owner.selection
      self._position = {"epoch": here.epoch, "step": here.step, "last": here.step + self._batches(len(self._items))}
    if self._read == len(self._items):
      self._owner.read_in_vain = (self._position["epoch"], self._position["step"])
      raise StopIteration
    self._read += 1
    return self._items[self._read - 1]

  def _batches(self, items: int) -> int:
    return -(-items // self._owner.items_per_batch)

  def state_dict(self) -> dict[str, int]:
    """Returns the position. A `StatefulDataLoader` keeps that of each batch that it reads until the batch is used."""
    return {**self._position, "step": self._position["step"] + self._batches(self._read)}

  def load_state_dict(self, state: Mapping[str, int]) -> None:
    """Checks that the loader stood where the selection stands."""
    here = (self._owner.selection.epoch, self._owner.selection.step)
    there = (state["epoch"], state["step"])
    over = state["step"] == state["last"] and here == (there[0] + 1, 0)
    if there[0] >= 0 and here != there and not over:
      raise UserError(
        f"the loader stands at (epoch, batch) {there}, the selection at {here}: save both when a batch has been"
        " observed, and load the selection before the loader is used"
      )


class SelectionBatchSampler(torch.utils.data.Sampler):
  """For `DataLoader(batch_sampler=...)`: yields this rank's part of each batch, a list of indices.

  A loader yields what is left of the running epoch. Outside of a loop over `selection.epochs()`, the epoch ends when
  the loader is iterated over anew after all of it was observed. `group` and `drop_last` are those of
  `Epoch.read_ahead`.
  """

  items_per_batch = 1

  def __init__(self, selection: Sampler, group: int = 1, *, drop_last: bool = False):
    self.selection, self._group, self._drop_last = selection, group, drop_last
    self.read_in_vain = (-1, -1)  # where a reader that came to its end had started

  def __iter__(self) -> _Reader:
    return _Reader(self)

  def __len__(self) -> int:
    """Returns how many items are left of the running epoch."""
    epoch = self.selection.current()
    return len(self._items(epoch.read_ahead(self._group, drop_last=self._drop_last))) if epoch is not None else 0

  def _items(self, batches: Batches) -> list[Any]:
    return [index.tolist() for index, _ in batches]

  def unread(self) -> list[Any]:
    """Returns the items for a new reader."""
    items = self._items(self.selection.read_ahead(self._group, drop_last=self._drop_last))
    if items and self.read_in_vain == (self.selection.epoch, self.selection.step):
      raise UserError(f"no batch of epoch {self.selection.epoch + 1} was observed: call gather_observe for each")
    return items

  def weights_of(self, index: torch.Tensor) -> torch.Tensor:
    """Returns the loss weights `[b]` float32 of samples of the running epoch, on the device of their indices."""
    return torch.from_numpy(self.selection.weight_of(index.cpu().numpy())).to(index.device)


class SelectionSampler(SelectionBatchSampler):
  """For `DataLoader(sampler=...)`, whose `batch_size` must be this rank's part of the `Sampler`'s: yields indices."""

  def __init__(self, selection: Sampler, group: int = 1, *, drop_last: bool = False):
    super().__init__(selection, group, drop_last=drop_last)
    self.items_per_batch = selection.batch_size // selection.world_size

  def _items(self, batches: Batches) -> list[Any]:
    return [sample for index, _ in batches for sample in index.tolist()]


class WithIndex(torch.utils.data.Dataset):
  """Gives each sample's index behind what the data set gives: another item of its tuple or dict."""

  def __init__(self, dataset: Any):
    self.dataset = dataset

  def __len__(self) -> int:
    return len(self.dataset)

  def __getitem__(self, index: int) -> Any:
    sample = self.dataset[index]
    if isinstance(sample, Mapping):
      return {**sample, "index": index}
    return (*sample, index) if isinstance(sample, tuple | list) else (sample, index)


def weighted_mean(selection: Sampler, index: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
  """Returns the loss of this rank's batch `[]` from the losses of its samples `[b]`, as the method wants it divided."""
  weights = torch.from_numpy(selection.weight_of(index.cpu().numpy())).to(losses)
  return (weights * losses).sum() / (weights.sum() if selection.loss_normalization == "weight_sum" else len(weights))


def gather_observe(
  selection: Sampler, index: torch.Tensor, losses: torch.Tensor, *, trained: Any = True, **extras: torch.Tensor
) -> None:
  """Shows the losses of a batch to the sampler, those of all ranks where `torch.distributed` is initialised.

  Args:
    selection: the sampler, with the same state on every rank.
    index: `[b]` int, this rank's part of a batch.
    losses: `[b]` float, one for each sample.
    trained: as for `Sampler.observe`.
    **extras: as for `Sampler.observe`.
  """
  trained = torch.as_tensor(trained, device=losses.device).expand(index.shape)
  given = {"losses": losses.float(), "trained": trained, **extras}
  everywhere, columns = gathered(index.to(losses.device), given, selection.batch_size)
  selection.observe(everywhere, **columns)


def gathered(
  index: torch.Tensor, columns: Mapping[str, torch.Tensor], batch_size: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Returns the rows of all ranks, each sample once: a loader may repeat some to give every rank as many.

  Args:
    index: `[b]` int, this rank's part of a batch.
    columns: `[b]` each.
    batch_size: of all ranks.
  """
  distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
  world_size = torch.distributed.get_world_size() if distributed else 1

  def of_all(values: torch.Tensor, fill: int) -> np.ndarray:
    values = values.detach()
    if world_size > 1:
      rows = torch.full((batch_size // world_size,), fill, dtype=values.dtype, device=values.device)
      rows[: len(values)] = values
      parts = [torch.empty_like(rows) for _ in range(world_size)]
      torch.distributed.all_gather(parts, rows)
      values = torch.cat(parts)
    return values.cpu().numpy()

  everywhere = of_all(index, -1)
  samples, first = np.unique(everywhere, return_index=True)
  first = np.sort(first[samples >= 0])
  return everywhere[first], {name: of_all(values, 0)[first] for name, values in columns.items()}
