"""Feeds each step: the device-resident data set, or batches streamed from disk. Host-side.

The position of a run (its epoch, its step and the plan in its state) determines everything that is read next, so that a
continued run reads the same rows as one that was never stopped.
"""

import collections
import contextlib
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax import Array

from dynsel_jax import data
from dynsel_jax.data import stream
from dynsel_jax.data.gather import Rows
from dynsel_jax.training import parallel
from dynsel_jax.training.steps import Arrays
from dynsel_jax.types import Plan

__all__ = ["Feed", "Resident", "Streamed"]

_PLACED = 2  # number of steps whose rows are on the devices at the same time


class Feed(Protocol):
  """Yields the `Arrays` of each step in turn; a generator that is left early must be closed."""

  arrays: Arrays  # for a call that takes no step
  evaluated: dict[str, int]  # number of samples of each split to evaluate on: "test", "validation"

  def training(self, plan: Plan, epoch: int, first: int) -> Generator[Arrays]:
    """Yields the arrays of the epoch's steps from `first` on."""

  def scoring(self, plan: Plan) -> Generator[Arrays]:
    """Yields the arrays of the steps of one pass over unaugmented samples."""

  def evaluating(self, split: str) -> Generator[Arrays]:
    """Yields the arrays of the steps over one of `evaluated`, as `Arrays.test`."""

  def corrupt(self) -> dict[str, list[int]] | None:
    """Returns the damaged samples found so far, by split; None for a data set in memory. Every process must call it."""

  def restore(self, corrupt: Mapping[str, list[int]]) -> None:
    """Restores the result of `corrupt`."""


class Resident:
  """Feeds every step the same arrays: the whole data set is on the devices."""

  def __init__(self, arrays: Arrays, validation: data.Dataset | None = None):
    """Takes the run's arrays and the validation set, if there is one, all on the devices."""
    self.arrays = arrays
    self._tests = {"test": arrays.test} | ({} if validation is None else {"validation": validation})
    self.evaluated = {split: data.num_samples(dataset) for split, dataset in self._tests.items()}

  def training(self, plan: Plan, epoch: int, first: int) -> Generator[Arrays]:
    """See `Feed`."""
    del plan, epoch, first
    return _repeated(self.arrays)

  def scoring(self, plan: Plan) -> Generator[Arrays]:
    """See `Feed`."""
    del plan
    return _repeated(self.arrays)

  def evaluating(self, split: str) -> Generator[Arrays]:
    """See `Feed`."""
    return _repeated(self.arrays._replace(test=self._tests[split]))

  def corrupt(self) -> None:
    """See `Feed`."""

  def restore(self, corrupt: Mapping[str, list[int]]) -> None:
    """See `Feed`."""


def _repeated(arrays: Arrays) -> Generator[Arrays]:
  while True:
    yield arrays


class Streamed:
  """Feeds each step its rows of images that stay on disk; the host reads a few steps ahead of the devices."""

  def __init__(
    self,
    source: data.Source,
    key: Array,
    devices: parallel.Devices,
    *,
    batch_size: int,
    eval_batch_size: int,
    cropped: bool,
  ):
    """Places rows of padding on the devices.

    Args:
      source: its inputs are `stream.Images`.
      key: the run's key.
      devices: the run's devices.
      batch_size: of a step, over all devices.
      eval_batch_size: of an evaluation, over all devices.
      cropped: whether training sees random crops.
    """
    self._devices, self._cropped = devices, cropped
    self._sizes = {"train": batch_size, "test": eval_batch_size}
    self._datasets = {"train": source.train, "test": source.test}
    self.evaluated = {"test": data.num_samples(source.test)}
    for dataset in self._datasets.values():
      dataset["inputs"].corrupt[:] = False  # each run counts the damaged images that it finds itself
    self._words = np.asarray(jax.random.key_data(key)).tolist()
    self.arrays = Arrays(self._blank("train"), self._blank("test"), devices.place(key))

  def training(self, plan: Plan, epoch: int, first: int) -> Generator[Arrays]:
    """See `Feed`."""

    def generator(index: int) -> np.random.Generator:
      return np.random.default_rng([*self._words, epoch, index])

    return self._train(plan, first, generator if self._cropped else None)

  def scoring(self, plan: Plan) -> Generator[Arrays]:
    """See `Feed`."""
    return self._train(plan, 0)

  def _train(self, plan: Plan, first: int, generators: Any = None) -> Generator[Arrays]:
    # The only transfer of the plan to the host, once an epoch.
    indices, size = parallel.fetch((plan.indices, plan.size))
    for rows in self._rows("train", indices[:size], first, generators=generators, replace=True):
      yield self.arrays._replace(train=rows)

  def evaluating(self, split: str) -> Generator[Arrays]:
    """See `Feed`."""
    for rows in self._rows(split, np.arange(self.evaluated[split], dtype=np.int32), 0):
      yield self.arrays._replace(test=rows)

  def corrupt(self) -> dict[str, list[int]]:
    """See `Feed`."""
    masks = {split: parallel.any_of_processes(dataset["inputs"].corrupt) for split, dataset in self._datasets.items()}
    return {split: np.flatnonzero(mask).tolist() for split, mask in masks.items()}

  def restore(self, corrupt: Mapping[str, list[int]]) -> None:
    """See `Feed`."""
    for split, indices in corrupt.items():
      self._datasets[split]["inputs"].corrupt[indices] = True

  def _rows(self, split: str, plan: np.ndarray, first: int, **how: Any) -> Iterator[Rows]:
    """Yields rows on the devices, while the next step's rows are being transferred."""
    slots = self._slots(split, len(plan), first)
    with contextlib.closing(stream.read_ahead(self._datasets[split], plan, slots, **how)) as rows:
      placed: collections.deque[Rows] = collections.deque()
      for rows_of_step in rows:
        placed.append(self._devices.share(rows_of_step))
        if len(placed) == _PLACED:
          yield placed.popleft()
      yield from placed

  def _slots(self, split: str, size: int, first: int) -> np.ndarray:
    """Returns this process's places in the plan, `[steps, rows]` int; the places of its devices are contiguous."""
    batch_size = self._sizes[split]
    rows = batch_size // jax.process_count()
    starts = np.arange(first, -(-size // batch_size)) * batch_size + jax.process_index() * rows
    return starts[:, None] + np.arange(rows)

  def _blank(self, split: str) -> Rows:
    dataset, rows = self._datasets[split], self._sizes[split] // jax.process_count()
    inputs = np.stack([dataset["inputs"].blank()] * rows)
    batch = {"inputs": inputs, "labels": np.full(rows, -1, np.int32)}
    return self._devices.share(Rows(batch, np.zeros(rows, bool)))
