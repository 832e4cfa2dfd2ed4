"""Gathers a batch by sample indices, augments and normalises it. Pure functions for a jitted step.

`N` is the number of samples, `b` the rows of a batch, `H`, `W`, `C` are height, width and channels of images.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.data.source import Dataset, Source
from dynsel_jax.options import UserError, check_choice

__all__ = [
  "AUGMENTATIONS",
  "Augment",
  "Rows",
  "View",
  "augmentation",
  "augmentation_names",
  "gather",
  "normalize",
  "random_crop",
  "random_cutout",
  "random_flip",
  "random_shift",
  "view",
]

Batch = dict[str, Any]  # "inputs" and others, [b, ...] each
Augment = Callable[[Array, Array, Array], Array]  # (key, index [b], inputs [b, ...]) -> inputs
View = Callable[[Array | None, Array, Batch], Batch]  # (key or None, index [b], batch) -> batch; see `view`


class Rows(NamedTuple):
  """The rows of one step of a streamed data set; take the place of the whole data set."""

  batch: Batch  # [b, ...] each
  readable: Any  # [b] bool; False on padding, and where a file could not be read


def gather(dataset: Dataset | Rows, index: Array) -> Batch:
  """Gathers the samples at `index` `[b]` int32: each array of the data set as `[b, ...]`.

  Padding, index -1, reads sample 0, so that its row is finite; the caller masks it. A streamed data set consists of the
  rows at `index` already.
  """
  if isinstance(dataset, Rows):
    return dataset.batch
  row = jnp.maximum(index, 0)
  return {name: array[row] for name, array in dataset.items()}


def normalize(inputs: Array, mean: Any, std: Any) -> Array:
  """Computes `(inputs / 255 - mean) / std` in float32, from inputs `[..., C]` uint8 and `mean` and `std` by channel."""
  lift = (1,) * (inputs.ndim - 1) + (-1,)
  shift = jnp.asarray(mean, jnp.float32).reshape(lift) * 255
  scale = 1 / (jnp.asarray(std, jnp.float32).reshape(lift) * 255)
  return (inputs.astype(jnp.float32) - shift) * scale


def view(source: Source, augment: Augment | None = None) -> View:
  """Returns the function that augments and normalises a gathered batch.

  It takes a key, sample indices `[b]` int32 and a batch. With a key the inputs are augmented, where the draws of a
  sample depend on the key and its index; with None they are not augmented. Then images are normalised by the statistics
  of `source`; other inputs, such as token ids or standardised features, remain unchanged.
  """

  def apply(key: Array | None, index: Array, batch: Batch) -> Batch:
    inputs = batch["inputs"]
    if key is not None and augment is not None:
      inputs = augment(key, index, inputs)
    return {**batch, "inputs": normalize(inputs, source.mean, source.std) if source.mean else inputs}

  return apply


def random_crop(keys: Array, inputs: Array, *, pad: int = 4) -> Array:
  """Pads each image with `pad` black pixels on each side and crops it to its size at a uniformly random place.

  Args:
    keys: `[b]` keys, one per row.
    inputs: `[b, H, W, C]` uint8.
    pad: pixels added on each side.
  """
  return _cropped(keys, jnp.pad(inputs, ((0, 0), (pad, pad), (pad, pad), (0, 0))), pad)


def _cropped(keys: Array, framed: Array, pad: int) -> Array:
  """Crops each image, framed by `pad` pixels on each side, to its size without the frame."""
  height, width, channels = framed.shape[1] - 2 * pad, framed.shape[2] - 2 * pad, framed.shape[3]

  def crop(key: Array, image: Array) -> Array:
    top, left = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(image, (top, left, jnp.zeros_like(top)), (height, width, channels))

  return jax.vmap(crop)(keys, framed)


def random_flip(keys: Array, inputs: Array) -> Array:
  """Mirrors each image left to right with probability 1/2; keys `[b]`, inputs `[b, H, W, C]`."""
  mirror = jax.vmap(lambda key: jax.random.bernoulli(key))(keys)
  return jnp.where(mirror[:, None, None, None], inputs[:, :, ::-1], inputs)


def random_shift(keys: Array, inputs: Array, *, most: int) -> Array:
  """Shifts each image by up to `most` pixels along either side; what comes in is its reflection at the edge.

  Args:
    keys: `[b]` keys, one per row.
    inputs: `[b, H, W, C]` uint8, more than `most` pixels a side.
    most: the largest shift in pixels.
  """
  return _cropped(keys, jnp.pad(inputs, ((0, 0), (most, most), (most, most), (0, 0)), mode="reflect"), most)


def random_cutout(keys: Array, inputs: Array, *, side: int) -> Array:
  """Blackens a square of `side` pixels at a uniformly random place inside each image (arXiv 1708.04552).

  Args:
    keys: `[b]` keys, one per row.
    inputs: `[b, H, W, C]` uint8, at least `side` pixels a side.
    side: of the square, in pixels.
  """
  height, width = inputs.shape[1:3]

  def inside(key: Array) -> Array:
    places = jax.random.randint(key, (2,), 0, jnp.array([height - side + 1, width - side + 1]))
    rows, columns = jnp.arange(height) - places[0], jnp.arange(width) - places[1]
    hit_rows, hit_columns = ((place >= 0) & (place < side) for place in (rows, columns))
    return hit_rows[:, None, None] & hit_columns[None, :, None]

  return jnp.where(jax.vmap(inside)(keys), jnp.uint8(0), inputs)


AUGMENTATIONS: dict[str, Callable[[Array, Array], Array]] = {
  "crop": random_crop,
  "flip": random_flip,
  "shift_2": functools.partial(random_shift, most=2),
  "shift_4": functools.partial(random_shift, most=4),
  "cutout_12": functools.partial(random_cutout, side=12),
}


def augmentation_names(given: Sequence[str]) -> tuple[str, ...]:
  """Returns the names in the config's field, as flags may spell them: "crop,flip" is two, "none" or "" is none.

  Raises:
    UserError: "none" stands beside another name.
  """
  names = tuple(name.strip() for part in given for name in part.split(",") if name.strip())
  if "none" in names and len(names) > 1:
    raise UserError(f"dataset.augmentations={tuple(given)}: none stands alone")
  return () if names == ("none",) else names


def augmentation(names: Sequence[str]) -> Augment:
  """Returns `augment(key, index, inputs)`, which applies the augmentations `names` one after the other.

  `index` `[b]` int32 are the samples, `inputs` `[b, H, W, C]` uint8 their images. The draws of each augmentation depend
  on the key and the sample's index alone: not on its row, the other rows, or the other augmentations.

  Raises:
    UserError: a name is not one of `AUGMENTATIONS`.
  """
  for name in names:
    check_choice("dataset.augmentations", name, AUGMENTATIONS)
  purposes = {name: purpose for purpose, name in enumerate(AUGMENTATIONS)}

  def augment(key: Array, index: Array, inputs: Array) -> Array:
    for name in names:
      purpose_key = jax.random.fold_in(key, purposes[name])
      keys = jax.vmap(lambda sample, purpose_key=purpose_key: jax.random.fold_in(purpose_key, sample))(index)
      inputs = AUGMENTATIONS[name](keys, inputs)
    return inputs

  return augment
