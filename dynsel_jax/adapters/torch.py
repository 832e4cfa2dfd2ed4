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

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dynsel_jax.options import UserError, needs
from dynsel_jax.sampler import Sampler, Unread

with needs(__name__, "torch"):
  import torch

__all__ = [
  "IndexedCollator",
  "SelectionBatchSampler",
  "SelectionSampler",
  "WithIndex",
  "gather_observe",
  "gather_thin",
  "sequence_losses",
  "weighted_mean",
]


class SelectionBatchSampler(Unread, torch.utils.data.Sampler):
  """For `DataLoader(batch_sampler=...)`: yields this rank's part of each batch, a list of indices.

  A loader yields what is left of the running epoch, see `sampler.Unread`.
  """

  def weights_of(self, index: torch.Tensor) -> torch.Tensor:
    """Returns the loss weights `[b]` float32 of samples of the running epoch, on the device of their indices."""
    return torch.from_numpy(self.selection.weight_of(index.cpu().numpy())).to(index.device)


class SelectionSampler(SelectionBatchSampler):
  """For `DataLoader(sampler=...)`, whose `batch_size` must be this rank's part of the `Sampler`'s: yields indices."""

  by_sample = True


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


class IndexedCollator:
  """Takes the indices of `WithIndex` past a collator of dicts that may know no such column."""

  def __init__(self, collator: Any):
    self._collator = collator

  def __call__(self, samples: Sequence[Mapping[str, Any]]) -> Any:
    index = [sample["index"] for sample in samples if "index" in sample]  # evaluation has none
    batch = self._collator([{name: value for name, value in s.items() if name != "index"} for s in samples])
    return {**batch, "index": torch.tensor(index)} if index else batch


def weighted_mean(selection: Sampler, index: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
  """Returns the loss of this rank's batch `[]` from the losses of its samples `[b]`, as the method wants it divided."""
  weights = selection.divided(selection.weight_of(index.cpu().numpy()))
  return (torch.from_numpy(weights).to(losses) * losses).sum()


def sequence_losses(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
  """Returns the sum of each sample's cross-entropies and their number, `[b]` float32 each; the label -100 has none.

  Args:
    logits: `[b, ..., classes]`; those of a causal language model have been shifted against the labels.
    labels: `[b, ...]` int.
  """
  losses = torch.nn.functional.cross_entropy(logits.float().movedim(-1, 1), labels, reduction="none")
  return losses.reshape(len(labels), -1).sum(-1), (labels != -100).reshape(len(labels), -1).sum(-1).float()


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
  everywhere, columns = gathered(index, losses=losses, trained=torch.as_tensor(trained).expand(index.shape), **extras)
  selection.observe(everywhere, **columns)


def gather_thin(
  selection: Sampler, index: torch.Tensor, losses: torch.Tensor, terms: torch.Tensor, **extras: torch.Tensor
) -> tuple[torch.Tensor, float]:
  """Shows the losses of a batch to the sampler as `gather_observe` does, and lets it thin the batch.

  Args:
    selection: the sampler, with the same state on every rank.
    index: `[b]` int, this rank's part of a batch.
    losses: `[b]` float, the mean of each sample's terms.
    terms: `[b]`, their number, such as that of a sequence's tokens.
    **extras: as for `Sampler.observe`.

  Returns:
    Factors `[b]` of the samples' sums of terms, 0 for a sample that is not trained on: added up over all ranks, the
    products are the loss of the batch. And the number of terms on all ranks.
  """
  everywhere, columns = gathered(index, losses=losses, terms=terms, **extras)
  counts = columns.pop("terms")
  rows, weights = selection.thin(everywhere, second_pass=False, **columns)
  mine = index.cpu().numpy()[:, None] == everywhere[rows]
  factors = mine @ selection.divided(weights, counts[rows])
  return torch.from_numpy(factors).to(losses), float(counts.sum())


def gathered(index: torch.Tensor, **columns: torch.Tensor) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Returns the rows of all ranks, each sample once: a loader may repeat some to give every rank as many.

  Args:
    index: `[b]` int, this rank's part of a batch.
    **columns: `[b]` or `[b, D]` each.

  Raises:
    UserError: a column has another number of rows.
  """
  for name, values in columns.items():
    if values.shape[:1] != index.shape:
      raise UserError(f"a batch of {len(index)} samples has {name} of shape {[*values.shape]}: one row for each sample")
  rows = {name: _numpy(values) for name, values in {**columns, "index": index}.items()}
  if torch.distributed.is_available() and torch.distributed.is_initialized():
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, rows)
    rows = {name: np.concatenate([part[name] for part in parts]) for name in rows}
  everywhere = rows.pop("index")
  first = np.sort(np.unique(everywhere, return_index=True)[1])
  return everywhere[first], {name: values[first] for name, values in rows.items()}


def _numpy(values: torch.Tensor) -> np.ndarray:
  values = values.detach()
  return (values.float() if values.is_floating_point() else values).cpu().numpy()  # NumPy has no bfloat16
