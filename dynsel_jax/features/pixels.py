"""Principal components of standardised pixels: features that need no weights and work everywhere. Host-side."""

from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from dynsel_jax import options
from dynsel_jax.data import Source

__all__ = ["Pixels", "pixels"]


class Pixels:
  """The feature space; see `pixels`."""

  reads_labels = False

  def __init__(self, components: int):
    self._components = components

  def settings(self) -> dict[str, Any]:
    """Returns what the features depend on beside the data."""
    return {"components": self._components}

  def extract(self, source: Source) -> np.ndarray:
    """Returns the training set's features, `[N, D]` float32, in the order of the training set.

    Raises:
      UserError: the set is of texts, or streamed.
    """
    if source.text is not None:
      raise options.UserError(f"features.name=pixels is for images, dataset.name={source.name} is of texts")
    if not isinstance(source.train["inputs"], np.ndarray):
      raise options.UserError("features.name=pixels needs all images in memory, and this set is streamed")
    rows = source.train["inputs"].reshape(source.num_samples, -1).astype(np.float32) / 255.0
    deviation = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    components = min(self._components, *rows.shape)
    return PCA(components, random_state=0).fit_transform(rows).astype(np.float32)


def pixels(*, components: int = 128) -> Pixels:
  """The first `components` principal components of pixels with mean 0 and deviation 1 each.

  Raises:
    UserError: `components` is less than 1.
  """
  options.check_positive("features.components", components)
  return Pixels(components)
