"""Reads the rows of each step from images that stay on disk, a few steps ahead. Host-side.

Several threads read and decode the files in the order of an epoch's plan; decoding releases Python's lock. The host
resizes and crops each image to the model's size. Augmentations that keep the size run on the device, as they do for a
data set in memory.

`N` is the number of samples, `H`, `W`, `C` are height, width and channels of the images that a model is given.
"""

import itertools
import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
from absl import logging

from dynsel_jax.data import image_decoding, image_files, image_ops, summary
from dynsel_jax.data.gather import Rows
from dynsel_jax.data.source import Dataset
from dynsel_jax.options import UserError

__all__ = ["AUGMENTATIONS", "Images", "read_ahead"]

AUGMENTATIONS = ("resized_crop",)  # on the host, because they take images of any size
_AHEAD = 2  # batches that are read in advance
_PART = 16  # images that a thread reads at a time: with fewer it would mostly wait for Python's lock


class Images:
  """The images of one split, read on access; takes the place of an array `[N, H, W, C]` uint8.

  Indexing returns images cropped at their centre, as in evaluation. A file that cannot be decoded gives a black image
  and is marked in `corrupt`, `[N]` bool.
  """

  dtype = np.dtype(np.uint8)

  def __init__(
    self,
    size: int,
    read: Callable[[int], bytes],
    name: Callable[[int], str],
    view: image_ops.View,
    *,
    corrupt_limit: int,
    threads: int = 0,
  ):
    """Reads the first image to know the shape of all.

    Args:
      size: N.
      read: returns the content of a sample's file; several threads call it.
      name: returns the name of a sample's file, for messages.
      view: size and colours to which images are converted.
      corrupt_limit: number of images that may be damaged.
      threads: number of threads that read and decode; 0 stands for one per core.

    Raises:
      UserError: more than `corrupt_limit` images are damaged, or all of them.
    """
    self.corrupt = np.zeros(size, bool)
    self.threads = threads or os.cpu_count() or 1
    self._read, self._name, self._view, self._limit = read, name, view, corrupt_limit
    self._lock = threading.Lock()
    self._changes: set[str] = set()  # those of `image_decoding.CHANGES` that have been said
    self._shape: tuple[int, ...] = ()
    first = next((image for index in range(size) if (image := self.load(index)) is not None), None)
    if first is None:
      ends = " to ".join(summary.shown(name(index)) for index in (0, size - 1))
      raise UserError(f"none of the {size} images from {ends} can be decoded")
    self._shape = first.shape

  @property
  def shape(self) -> tuple[int, ...]:
    """`(N, H, W, C)`."""
    return (len(self), *self._shape)

  @property
  def ndim(self) -> int:
    """4."""
    return len(self.shape)

  def __len__(self) -> int:
    """Returns N."""
    return self.corrupt.size

  def __getitem__(self, rows: Any) -> np.ndarray:
    """Returns the images `[..., H, W, C]` uint8 at `rows`, a slice or an array of indices of any shape."""
    chosen = np.arange(len(self))[rows]
    found = np.zeros((chosen.size, *self._shape), np.uint8)
    with futures.ThreadPoolExecutor(self.threads) as pool:
      for position, image in enumerate(pool.map(self.load, chosen.reshape(-1).tolist())):
        if image is not None:
          found[position] = image
    return found.reshape(*chosen.shape, *self._shape)

  def blank(self) -> np.ndarray:
    """Returns a black image, `[H, W, C]` uint8."""
    return np.zeros(self._shape, np.uint8)

  def load(self, index: int, generator: np.random.Generator | None = None) -> np.ndarray | None:
    """Returns one image `[H, W, C]` uint8, or None if it is damaged.

    Args:
      index: of the sample.
      generator: draws a random crop; None crops the centre, as in evaluation.

    Raises:
      UserError: too many images are damaged, or `image_size` is 0 and the image differs in size from the first.
    """
    if self.corrupt[index]:
      return None
    try:
      suffix = os.path.splitext(self._name(index))[1]
      image, changes = image_decoding.decode(self._read(index), self._view.mode, suffix)
    except image_decoding.DAMAGED as error:
      self._note(index, image_files.words_of(error))
      return None
    if not self._changes.issuperset(changes):
      self._say(index, changes)
    if generator is None:
      image = image_ops.centre(image, self._view)
    else:
      image = image_ops.random_resized_crop(generator, image, self._view.image_size)
    found = image_ops.pixels(image)
    if self._shape and found.shape != self._shape:
      raise UserError(
        f"{summary.shown(self._name(index))} has {found.shape[1]}x{found.shape[0]} pixels and the first image"
        f" {self._shape[1]}x{self._shape[0]}; set dataset.image_size to bring all images to one size"
      )
    return found

  def _say(self, index: int, changes: Sequence[str]) -> None:
    """Says once of each kind of change that images are subject to it."""
    with self._lock:
      new = [change for change in changes if change not in self._changes]
      self._changes.update(new)
    for change in new:
      name = summary.shown(self._name(index))
      summary.say(f"{name} is the first of the images {image_decoding.CHANGES[change]}", warn=change == "frames")

  def _note(self, index: int, reason: str) -> None:
    with self._lock:
      self.corrupt[index] = True
      number = int(np.count_nonzero(self.corrupt))
    damage = f"{summary.shown(self._name(index))} cannot be decoded ({reason})"
    if number > self._limit:
      raise UserError(f"{damage}; it is damaged image {number}, more than dataset.corrupt_limit={self._limit} allows")
    logging.warning("%s and is left out, as dataset.corrupt_limit=%d allows", damage, self._limit)


def read_ahead(
  dataset: Dataset,
  plan: np.ndarray,
  slots: np.ndarray,
  *,
  generators: Callable[[int], np.random.Generator] | None = None,
  replace: bool = False,
) -> Generator[Rows]:
  """Yields the rows of each step in turn; threads read them ahead of time.

  With `replace`, a damaged sample is replaced by the next sample of the plan that can be read, image and label. Its
  signals count for the damaged sample, so that a selector gets a loss for every sample that it planned.

  Args:
    dataset: its inputs are `Images`.
    plan: `[n]` int32, the samples in visiting order.
    slots: `[steps, b]` int, this process's places in the plan for each step; places beyond its end are padding.
    generators: returns the generator of a sample's random crop; None crops the centre, as in evaluation.
    replace: whether damaged samples are replaced; if not, they get the label -1 like padding.

  Raises:
    UserError: while iterating, as in `Images.load`, or if no sample of the plan can be read.
  """
  import grain  # here, because it takes a second and only streamed sets need it

  images = dataset["inputs"]

  def row(slot: Any) -> tuple[np.ndarray, np.int32]:
    if slot >= len(plan):
      return images.blank(), np.int32(-1)
    for further in range(len(plan) if replace else 1):
      index = int(plan[(slot + further) % len(plan)])
      image = images.load(index, generators(index) if generators else None)
      if image is not None:
        return image, np.int32(dataset["labels"][index])
    if replace:
      raise UserError(f"none of the {len(plan)} images of the epoch can be decoded")
    return images.blank(), np.int32(-1)

  def part_of_step(place: Any) -> list[tuple[np.ndarray, np.int32]]:
    return [row(slot) for slot in np.array_split(slots[place // parts], parts)[place % parts]]

  parts, threads = -(-slots.shape[1] // _PART), images.threads
  reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(_AHEAD * parts, threads))
  iterator = iter(grain.MapDataset.range(len(slots) * parts).map(part_of_step).to_iter_dataset(reading))
  try:
    while found := list(itertools.islice(iterator, parts)):
      inputs, labels = zip(*itertools.chain.from_iterable(found), strict=True)
      batch = {"inputs": np.stack(inputs), "labels": np.stack(labels)}
      yield Rows(batch, batch["labels"] >= 0)
  finally:
    iterator.close()
