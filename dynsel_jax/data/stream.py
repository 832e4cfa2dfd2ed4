"""Images that stay on disk, and the rows of each step, read ahead of it. Host-side.

The host reads the files of an epoch's plan on several threads (decoding releases Python's lock). What brings an image
to the model's size happens here; the augmentations that keep its size happen on the device, as for a set that lies
there.

`N` is the number of samples, `H`, `W`, `C` are height, width and channels of what a model is given.
"""

import itertools
import os
import threading
from collections.abc import Callable, Generator
from concurrent import futures
from typing import Any

import numpy as np
from absl import logging

from dynsel_jax.data import image_ops
from dynsel_jax.data.gather import Rows
from dynsel_jax.data.source import Dataset
from dynsel_jax.options import UserError

__all__ = ["AUGMENTATIONS", "Images", "read_ahead"]

AUGMENTATIONS = ("resized_crop",)  # done here, because they read images of any size
_AHEAD = 2  # batches that are read before they are asked for
_PART = 16  # images of a batch that a thread reads in one go: fewer would leave it waiting for Python's lock


class Images:
  """The images of one split, read when they are asked for: stands where an array `[N, H, W, C]` uint8 does.

  Indexing gives them in evaluation's view. A file that cannot be decoded is noted in `corrupt` and is black here.
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
    """Reads the first image, for its shape.

    Args:
      size: N.
      read: gives the content of a sample's file; called from several threads.
      name: gives the file's name.
      view: how images are brought to one size.
      corrupt_limit: how many may be damaged.
      threads: that `read_ahead` starts; 0 is one for each core.

    Raises:
      UserError: more than `corrupt_limit` images are damaged, or all of them.
    """
    self.corrupt = np.zeros(size, bool)
    self.threads = threads or os.cpu_count() or 1
    self._read, self._name, self._view, self._limit = read, name, view, corrupt_limit
    self._lock = threading.Lock()
    self._shape: tuple[int, ...] = ()
    first = next((image for index in range(size) if (image := self.load(index)) is not None), None)
    if first is None:
      raise UserError(f"{name(size - 1)} cannot be decoded, and no image before it")
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
    """Returns the images at `rows`, a slice or an array of indices of any shape: `[..., H, W, C]` uint8."""
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
      generator: draws a random crop; None gives evaluation's view.

    Raises:
      UserError: more images than allowed are damaged, or the image differs in size and nothing brings it to one.
    """
    if self.corrupt[index]:
      return None
    try:
      image = image_ops.decode(self._read(index), self._view.mode)
    except image_ops.DAMAGED as error:
      self._note(index, " ".join(str(error).split()))
      return None
    if generator is None:
      image = image_ops.centre(image, self._view)
    else:
      image = image_ops.random_resized_crop(generator, image, self._view.image_size)
    found = image_ops.pixels(image)
    if self._shape and found.shape != self._shape:
      raise UserError(
        f"{self._name(index)} is {found.shape[1]}x{found.shape[0]} pixels, the first image"
        f" {self._shape[1]}x{self._shape[0]}: dataset.image_size brings all to one size"
      )
    return found

  def _note(self, index: int, reason: str) -> None:
    with self._lock:
      self.corrupt[index] = True
      number = int(np.count_nonzero(self.corrupt))
    said = f"{self._name(index)} cannot be decoded ({reason})"
    if number > self._limit:
      raise UserError(f"{said}, nor {number - 1} before it: more than dataset.corrupt_limit={self._limit}")
    logging.warning("%s and is left out", said)


def read_ahead(
  dataset: Dataset,
  plan: np.ndarray,
  slots: np.ndarray,
  *,
  generators: Callable[[int], np.random.Generator] | None = None,
  replace: bool = False,
) -> Generator[Rows]:
  """Yields the rows of one step after another, read by threads ahead of time.

  With `replace`, the next sample of the plan that can be read stands in for a damaged one, image and label; to the
  selector it is the one that it stands in for, which so is seen when its turn has come.

  Args:
    dataset: its inputs are `Images`.
    plan: `[n]` int32, the samples in visiting order.
    slots: `[steps, b]` int, for each step this process's places in the plan; a place behind its end is padding.
    generators: gives the generator of a sample's random crop; None reads evaluation's view.
    replace: whether others stand in for damaged samples; without, their labels are -1.

  Raises:
    UserError: while iterating, as `Images.load` does, or if no sample of the plan can be read.
  """
  import grain  # takes a second, and only streamed sets need it

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
      raise UserError("none of the selected images can be decoded")
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
