"""Masked images: predicting the pixels of the patches that are hidden from the model. Pure functions.

He et al., "Masked Autoencoders Are Scalable Vision Learners", arXiv 2111.06377, Sec. 3. `b` is the number of samples of
a batch, `P` the number of patches of an image, `K` that of the visible ones, `D` the pixels of a patch times channels.
"""

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.data.gather import View
from dynsel_jax.data.source import Source
from dynsel_jax.models.vit import patches
from dynsel_jax.options import UserError, check_fraction, check_positive
from dynsel_jax.tasks.task import Batch, Metric, Task

__all__ = ["masked_image", "reconstruction_loss", "visible_patches"]

_PURPOSE = 20_001  # folded into the key that the view's augmentations also get
_EPSILON = 1e-6  # added to the variance of a patch


def visible_patches(key: Array, index: Array, num_patches: int, count: int) -> Array:
  """Draws the visible patches of each sample uniformly, without replacement, from the key and its index alone.

  Args:
    key: of the epoch.
    index: `[b]` int32, the samples.
    num_patches: P.
    count: K.

  Returns:
    `[b, K]` int32 in [0, P), in the order of their noise.
  """

  def noise(sample: Array) -> Array:
    return jax.random.uniform(jax.random.fold_in(key, sample), (num_patches,))

  return jnp.argsort(jax.vmap(noise)(index), axis=1)[:, :count].astype(jnp.int32)


def reconstruction_loss(predicted: Array, pixels: Array, visible: Array, *, normalized: bool) -> Array:
  """Computes the squared error of each sample, averaged over the pixels of its masked patches, `[b]` float32.

  Args:
    predicted: `[b, P, D]` float32.
    pixels: `[b, P, D]` float32.
    visible: `[b, K]` int32, the patches that do not count; all patches count if K = P.
    normalized: whether the target is each patch less its mean, divided by its standard deviation (with D - 1).
  """
  if normalized:
    mean, variance = pixels.mean(axis=-1, keepdims=True), pixels.var(axis=-1, ddof=1, keepdims=True)
    pixels = (pixels - mean) / jnp.sqrt(variance + _EPSILON)
  errors = jnp.square(predicted - pixels).mean(axis=-1)
  batch, num_patches = errors.shape
  masked = jnp.ones_like(errors).at[jnp.arange(batch)[:, None], visible].set(0.0)
  return jnp.sum(errors * masked, axis=-1) / (num_patches - visible.shape[1])


def masked_image(
  source: Source, view: View, *, patch: int = 4, mask_fraction: float = 0.75, normalized_targets: bool = True
) -> Task:
  """Predicts the masked patches of the images of a data set from the others; labels are not read.

  A training sample has a new mask in each epoch, drawn by epoch and sample. A sample that is evaluated, or scored
  without augmentation, always has the same one. The metric is the mean reconstruction loss of the test images.

  Args:
    source: the data set, of images.
    view: its augmentation and normalisation.
    patch: side of a patch in pixels; must divide the sides of the images.
    mask_fraction: fraction of the patches that is masked, in (0, 1); of P patches the model sees
      floor((1 - mask_fraction) P), at least one.
    normalized_targets: whether to predict each patch's pixels less their mean, in units of their standard deviation
      (Sec. 4.1, "Reconstruction target": better for fine-tuning).

  Raises:
    UserError: the data set does not hold images, or an option lies outside its range.
  """
  num_patches, count = _counts(source, patch, mask_fraction, normalized=normalized_targets)

  def inputs(key: Array | None, index: Array, batch: Batch) -> Batch:
    seen = view(key, index, batch)
    mask_key = jax.random.fold_in(jax.random.key(0) if key is None else key, _PURPOSE)
    visible = visible_patches(mask_key, index, num_patches, count)
    return {**seen, "inputs": {"images": seen["inputs"], "visible": visible}}

  def image_losses(outputs: Array, batch: Batch) -> Array:
    images, visible = batch["inputs"]["images"], batch["inputs"]["visible"]
    return reconstruction_loss(outputs, patches(images, patch), visible, normalized=normalized_targets)

  def losses(outputs: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
    return image_losses(outputs, batch), {}

  def metrics(outputs: Array, batch: Batch, valid: Array) -> dict[str, tuple[Array, Array]]:
    total = jnp.sum(jnp.where(valid, image_losses(outputs, batch), 0.0))
    pair = total, jnp.sum(valid, dtype=jnp.int32)
    return {"loss": pair, "reconstruction_loss": pair}

  return Task(
    name="masked_image",
    metric=Metric("reconstruction_loss", larger_is_better=False),
    signals=(),
    num_outputs=patch * patch * source.train["inputs"].shape[3],
    inputs=inputs,
    losses=losses,
    metrics=metrics,
  )


def _counts(source: Source, patch: int, mask_fraction: float, *, normalized: bool) -> tuple[int, int]:
  """Returns the numbers of patches and of visible patches of an image, P and K; raises `UserError` if none."""
  check_positive("task.patch", patch)
  check_fraction("task.mask_fraction", mask_fraction, one=False)
  shape = source.train["inputs"].shape[1:]
  if not source.mean or len(shape) != 3:
    raise UserError(f"task.name=masked_image reads images; the inputs of dataset.name={source.name} have shape {shape}")
  height, width, channels = shape
  if height % patch or width % patch:
    raise UserError(f"task.patch={patch} must divide the sides of the images, {height}x{width}")
  if normalized and patch * patch * channels < 2:
    raise UserError(f"task.patch={patch} has one number, which cannot be normalised: set task.normalized_targets=False")
  num_patches = (height // patch) * (width // patch)
  if num_patches < 2:
    raise UserError(
      f"task.patch={patch} leaves {num_patches} patch of an image of {height}x{width}; take a smaller one"
    )
  count = min(max(int(num_patches * (1.0 - mask_fraction) + 1e-9), 1), num_patches - 1)
  return num_patches, count
