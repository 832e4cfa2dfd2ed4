"""Grain: a sampler for `grain.DataLoader`, and a `MapDataset`, of what is left of an epoch; records carry weights.

    selection = dynsel_jax.Sampler("infobatch", num_samples=len(source), epochs=30, batch_size=128)
    for epoch in selection.epochs():
      dataset = epoch_dataset(source, epoch).map(decode).batch(128)
      for batch in dataset.to_iter_dataset().mp_prefetch(grain.MultiprocessingOptions(num_workers=4)):
        losses = train_step(batch["image"], batch["label"], batch["weight"])
        selection.observe(batch["index"], losses)

With the older API `grain.DataLoader(data_source=Weighted(source, epoch), sampler=EpochSampler(epoch), operations=
[grain.transforms.Batch(128)])`. Records that are dicts get the keys index and weight; others become the key record.

Save `selection.state_dict()`, not the state of Grain's iterator: the next epoch depends on losses, and what workers
have read ahead does not count. With several ranks the batch size here is a rank's, `batch_size // world_size`. Random
transforms of a `DataLoader` are keyed by (seed, epoch, index), so a continued epoch augments as the whole one; those of
a `MapDataset` are keyed by the place behind the stop: key them by the record's index yourself.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dynsel_jax.options import needs
from dynsel_jax.sampler import Epoch

with needs(__name__, "grain"):
  import grain

__all__ = ["EpochSampler", "Weighted", "epoch_dataset"]


def _left(epoch: Epoch) -> tuple[np.ndarray, np.ndarray]:
  batches = epoch.read_ahead()
  if not batches:
    return np.zeros(0, np.int32), np.zeros(0, np.float32)
  index, weight = (np.concatenate(part) for part in zip(*batches, strict=True))
  return index, weight


class EpochSampler:
  """Gives a `grain.DataLoader` the samples that are left of an epoch, in the order of its plan."""

  def __init__(self, epoch: Epoch, seed: int = 0):
    self._indices, self._epoch, self._seed = _left(epoch)[0], epoch.number, seed
    self._shard_options = grain.sharding.NoSharding()  # the sampler gives each rank its own part

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, position: int) -> grain.RecordMetadata:
    if not 0 <= position < len(self):
      raise IndexError(position)
    sample = int(self._indices[position])
    rng = np.random.default_rng((self._seed, self._epoch, sample))
    return grain.RecordMetadata(index=position, record_key=sample, rng=rng)

  def __repr__(self) -> str:
    # Grain compares it before it lets an iterator go on from a state.
    order = zlib.crc32(self._indices.tobytes())
    return f"EpochSampler(epoch={self._epoch}, samples={len(self)}, order={order:08x}, seed={self._seed})"


class Weighted:
  """A data source whose records carry their index and their weight in an epoch."""

  def __init__(self, source: Any, epoch: Epoch):
    self._source, self._weights = source, np.ones(len(source), np.float32)
    indices, weights = _left(epoch)
    self._weights[indices] = weights

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, sample: int) -> dict[str, Any]:
    record = self._source[sample]
    named = dict(record) if isinstance(record, Mapping) else {"record": record}
    return {**named, "index": np.int32(sample), "weight": self._weights[sample]}


class _Ordered:
  """A data source that has the records of another in an order."""

  def __init__(self, source: Weighted, indices: np.ndarray):
    self._source, self._indices = source, indices

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, position: int) -> dict[str, Any]:
    return self._source[int(self._indices[position])]


def epoch_dataset(source: Any, epoch: Epoch) -> grain.MapDataset:
  """Returns the records that are left of an epoch, in the order of its plan, as a dataset without batches."""
  return grain.MapDataset.source(_Ordered(Weighted(source, epoch), _left(epoch)[0]))
