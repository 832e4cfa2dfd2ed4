"""Common parts of the image encoders: resizing on the device, and the loop over a data set.

`fit` is pure, the rest host-side. `B` is the batch size; `H`, `W`, `C` are height, width and channels.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from dynsel_jax import options
from dynsel_jax.data import Source

__all__ = ["check", "encode", "fit"]


def check(name: str, source: Source) -> None:
  """Raises `UserError` unless the samples are images with 1 or 3 channels; `name` is the feature space."""
  shape = source.train["inputs"].shape
  if len(shape) != 4 or shape[-1] not in (1, 3):
    raise options.UserError(
      f"features.name={name} needs images with 1 or 3 channels; a sample of dataset.name={source.name} has shape"
      f" {shape[1:]}"
    )


def fit(images: Array, side: int) -> Array:
  """Resizes images to a shorter side of `side` and crops the central square, as CLIP does.

  Bicubic with antialiasing, and rounded to integers: the result of Pillow, except that Pillow also rounds between the
  two directions. Grey images get three equal channels.

  Args:
    images: `[B, H, W, C]` uint8, C 1 or 3.
    side: side of the result in pixels.

  Returns:
    `[B, side, side, 3]` float32, integers in [0, 255].
  """
  batch, height, width, channels = images.shape
  shorter = min(height, width)
  sides = (side * height // shorter, side * width // shorter)
  resized = jax.image.resize(images.astype(jnp.float32), (batch, *sides, channels), "cubic")
  top, left = ((whole - side) // 2 for whole in sides)
  cut = resized[:, top : top + side, left : left + side]
  return jnp.broadcast_to(jnp.clip(jnp.round(cut), 0, 255), (batch, side, side, 3))


def encode(
  name: str, function: Callable[[Any, Array], Array], params: Any, images: np.ndarray, batch_size: int
) -> np.ndarray:
  """Computes the features of all images, `[N, D]` float32, with a progress bar if stderr is a terminal.

  Args:
    name: of the feature space, for the progress bar.
    function: a pure function of `params` and images `[B, H, W, C]` uint8 to features `[B, D]`; compiled once.
    params: a pytree, placed on the device once.
    images: `[N, H, W, C]` uint8.
    batch_size: B; the last batch is padded with its first image, so that all batches have one shape.
  """
  program, placed = jax.jit(function), jax.device_put(params)
  batch_size = min(batch_size, len(images))
  rows = []
  with tqdm(total=len(images), desc=f"features: {name}", unit=" images", disable=None) as bar:
    for start in range(0, len(images), batch_size):
      batch = images[start : start + batch_size]
      missing = batch_size - len(batch)
      filled = np.concatenate([batch, np.repeat(batch[:1], missing, axis=0)]) if missing else batch
      rows.append(np.asarray(program(placed, filled), np.float32)[: len(batch)])
      bar.update(len(batch))
  return np.concatenate(rows)
