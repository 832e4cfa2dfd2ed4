"""From sample indices to a batch: gather, augment, normalise. Pure functions for inside a jitted step.

`N` is the number of samples, `b` the number of rows of a batch, `H`, `W`, `C` are height, width and channels of images,
`L` is the number of tokens of texts, which are neither augmented nor normalised.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.data.sources import Dataset, Source
from dynsel_jax.options import check_choice

__all__ = [
  "AUGMENTATIONS",
  "Rows",
  "augmentation",
  "gather",
  "normalization",
  "normalize",
  "random_crop",
  "random_flip",
]


class Rows(NamedTuple):
  """What the places of one step hold in a streamed set; stands where the inputs of a whole set do."""

  inputs: Any  # [b, H, W, C] uint8
  labels: Any  # [b] int32; -1 on padding, and where no image could be read


def gather(dataset: Dataset, index: Array) -> tuple[Array, Array]:
  """Returns the inputs, `[b, H, W, C]` uint8 or `[b, L]` int32, and labels `[b]` int32 at `index` `[b]` int32.

  Padding, index -1, reads sample 0: its input is real, and the caller leaves the row out. A streamed set
  holds what belongs to `index` already.
  """
  if isinstance(dataset.inputs, Rows):
    return dataset.inputs.inputs, dataset.inputs.labels
  row = jnp.maximum(index, 0)
  return dataset.inputs[row], dataset.labels[row]


def normalize(inputs: Array, mean: Any, std: Any) -> Array:
  """Returns `(inputs / 255 - mean) / std` in float32, of inputs `[..., C]` uint8 with `mean` and `std` by channel."""
  lift = (1,) * (inputs.ndim - 1) + (-1,)
  shift = jnp.asarray(mean, jnp.float32).reshape(lift) * 255
  scale = 1 / (jnp.asarray(std, jnp.float32).reshape(lift) * 255)
  return (inputs.astype(jnp.float32) - shift) * scale


def normalization(source: Source) -> Callable[[Array], Array]:
  """Returns what makes a model's input of a set's: `normalize` for images, nothing for token ids."""
  if source.text is not None:
    return lambda inputs: inputs
  return lambda inputs: normalize(inputs, source.mean, source.std)


def random_crop(keys: Array, inputs: Array, *, pad: int = 4) -> Array:
  """Frames each image with `pad` black pixels and cuts one of its size out; every place is as likely.

  Args:
    keys: `[b]` keys, one a row.
    inputs: `[b, H, W, C]` uint8.
    pad: pixels added on each side.
  """
  height, width, channels = inputs.shape[1:]
  framed = jnp.pad(inputs, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

  def crop(key: Array, image: Array) -> Array:
    top, left = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(image, (top, left, jnp.zeros_like(top)), (height, width, channels))

  return jax.vmap(crop)(keys, framed)


def random_flip(keys: Array, inputs: Array) -> Array:
  """Mirrors each image left to right with probability 1/2; `keys` `[b]`, inputs `[b, H, W, C]`."""
  mirror = jax.vmap(lambda key: jax.random.bernoulli(key))(keys)
  return jnp.where(mirror[:, None, None, None], inputs[:, :, ::-1], inputs)


AUGMENTATIONS: dict[str, Callable[[Array, Array], Array]] = {"crop": random_crop, "flip": random_flip}


def augmentation(names: Sequence[str]) -> Callable[[Array, Array, Array], Array]:
  """Returns `augment(key, index, inputs)`, which applies the augmentations called `names` one after the other.

  `index` `[b]` int32 are the samples, `inputs` `[b, H, W, C]` uint8 their images. What becomes of a sample depends on
  the key and its index alone: not on its row, the other rows, or which other augmentations are named.

  Raises:
    UserError: a name is not one of `AUGMENTATIONS`.
  """
  for name in names:
    check_choice("augmentations", name, AUGMENTATIONS)
  purposes = {name: purpose for purpose, name in enumerate(AUGMENTATIONS)}

  def augment(key: Array, index: Array, inputs: Array) -> Array:
    for name in names:
      purpose_key = jax.random.fold_in(key, purposes[name])
      keys = jax.vmap(lambda sample, purpose_key=purpose_key: jax.random.fold_in(purpose_key, sample))(index)
      inputs = AUGMENTATIONS[name](keys, inputs)
    return inputs

  return augment
