"""What each step is given of the data: the arrays on the devices, or the rows that the host has read for it. Host-side.

Where a run stands, its epoch, its step and the plan in its state, says everything that is read next: a continued run
reads the same rows as one that was not stopped.
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
from dynsel_jax.training.steps import Fixed
from dynsel_jax.types import Selection

__all__ = ["Feed", "Resident", "Streamed"]

_PLACED = 2  # steps whose rows lie on the devices at a time


class Feed(Protocol):
  """Gives a step's arrays, one `Fixed` after another; a generator is to be closed where it is left early."""

  fixed: Fixed  # for a call that takes no step

  def training(self, plan: Selection, epoch: int, first: int) -> Generator[Fixed]:
    """Yields what the epoch's steps from `first` on are given."""

  def scoring(self, plan: Selection) -> Generator[Fixed]:
    """Yields what the steps of a pass over unaugmented samples are given."""

  def testing(self, fixed: Fixed) -> Generator[Fixed]:
    """Yields what the steps over the test set of `fixed` are given."""

  def corrupt(self) -> dict[str, list[int]] | None:
    """Returns the damaged samples met so far, by split; None for a set in memory. Every process must ask."""

  def restore(self, corrupt: Mapping[str, list[int]]) -> None:
    """Takes back what `corrupt` gave."""


class Resident:
  """The whole set lies on the devices: each step is given the same."""

  def __init__(self, fixed: Fixed):
    """Takes the run's arrays."""
    self.fixed = fixed

  def training(self, plan: Selection, epoch: int, first: int) -> Generator[Fixed]:
    """See `Feed`."""
    del plan, epoch, first
    return _repeated(self.fixed)

  def scoring(self, plan: Selection) -> Generator[Fixed]:
    """See `Feed`."""
    del plan
    return _repeated(self.fixed)

  def testing(self, fixed: Fixed) -> Generator[Fixed]:
    """See `Feed`."""
    return _repeated(fixed)

  def corrupt(self) -> None:
    """See `Feed`."""

  def restore(self, corrupt: Mapping[str, list[int]]) -> None:
    """See `Feed`."""


def _repeated(fixed: Fixed) -> Generator[Fixed]:
  while True:
    yield fixed


class Streamed:
  """The images stay on disk: the host reads each step's rows, a few steps ahead of the devices."""

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
    """Places the labels, and rows of padding.

    Args:
      source: its inputs are `stream.Images`.
      key: the run's.
      devices: the run's.
      batch_size: of a step, over all devices.
      eval_batch_size: of an evaluation, over all devices.
      cropped: whether training sees random crops.
    """
    self._devices, self._cropped = devices, cropped
    self._sizes = {"train": batch_size, "test": eval_batch_size}
    self._datasets = {"train": source.train, "test": source.test}
    for dataset in self._datasets.values():
      dataset.inputs.corrupt[:] = False  # what is counted is what this run meets
    self._words = np.asarray(jax.random.key_data(key)).tolist()
    train, test = (self._blank(split) for split in ("train", "test"))
    self.fixed = Fixed(train, test, devices.place(key))

  def training(self, plan: Selection, epoch: int, first: int) -> Generator[Fixed]:
    """See `Feed`."""

    def generator(index: int) -> np.random.Generator:
      return np.random.default_rng([*self._words, epoch, index])

    return self._train(plan, first, generator if self._cropped else None)

  def scoring(self, plan: Selection) -> Generator[Fixed]:
    """See `Feed`."""
    return self._train(plan, 0)

  def _train(self, plan: Selection, first: int, generators: Any = None) -> Generator[Fixed]:
    # Once an epoch the host gets to know the plan.
    indices, size = parallel.fetch((plan.indices, plan.size))
    for rows in self._rows("train", indices[:size], first, generators=generators, replace=True):
      yield self.fixed._replace(train=self.fixed.train._replace(inputs=rows))

  def testing(self, fixed: Fixed) -> Generator[Fixed]:
    """See `Feed`."""
    for rows in self._rows("test", np.arange(len(self._datasets["test"].labels), dtype=np.int32), 0):
      yield fixed._replace(test=fixed.test._replace(inputs=rows))

  def corrupt(self) -> dict[str, list[int]]:
    """See `Feed`."""
    masks = {split: parallel.any_of_processes(dataset.inputs.corrupt) for split, dataset in self._datasets.items()}
    return {split: np.flatnonzero(mask).tolist() for split, mask in masks.items()}

  def restore(self, corrupt: Mapping[str, list[int]]) -> None:
    """See `Feed`."""
    for split, indices in corrupt.items():
      self._datasets[split].inputs.corrupt[indices] = True

  def _rows(self, split: str, plan: np.ndarray, first: int, **how: Any) -> Iterator[Rows]:
    """Yields placed rows; those of the next step are on their way while one is taken."""
    slots = self._slots(split, len(plan), first)
    with contextlib.closing(stream.read_ahead(self._datasets[split], plan, slots, **how)) as rows:
      placed: collections.deque[Rows] = collections.deque()
      for of_step in rows:
        placed.append(self._devices.share(of_step))
        if len(placed) == _PLACED:
          yield placed.popleft()
      yield from placed

  def _slots(self, split: str, size: int, first: int) -> np.ndarray:
    """Returns this process's places in the plan, `[steps, rows]`: those of its devices, which follow one another."""
    batch_size = self._sizes[split]
    rows = batch_size // jax.process_count()
    starts = np.arange(first, -(-size // batch_size)) * batch_size + jax.process_index() * rows
    return starts[:, None] + np.arange(rows)

  def _blank(self, split: str) -> data.Dataset:
    dataset, rows = self._datasets[split], self._sizes[split] // jax.process_count()
    blank = Rows(np.stack([dataset.inputs.blank()] * rows), np.full(rows, -1, np.int32))
    return data.Dataset(self._devices.share(blank), self._devices.place(dataset.labels))
