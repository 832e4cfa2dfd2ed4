"""Principal components of standardised pixels: features that need no pretrained weights. Host-side."""

from typing import Any

import numpy as np

from dynsel_jax import options
from dynsel_jax.data import Source

__all__ = ["Pixels", "pixels"]


class Pixels:
  """The feature space of pixels; see `pixels`."""

  reads_labels = False

  def __init__(self, components: int):
    self._components = components

  def settings(self) -> dict[str, Any]:
    """Returns everything besides the data that the features depend on."""
    return {"components": self._components}

  def extract(self, source: Source) -> np.ndarray:
    """Returns the features of the training set, `[N, D]` float32, in its order.

    Raises:
      UserError: the data set consists of texts or is streamed.
    """
    if source.text is not None:
      raise options.UserError(
        f"features.name=pixels is for images, dataset.name={source.name} is of texts: use features.name=sentence"
      )
    if not isinstance(source.train["inputs"], np.ndarray):
      raise options.UserError(
        f"features.name=pixels needs all images in memory, but dataset.name={source.name} is streamed from disk"
      )
    rows = source.train["inputs"].reshape(source.num_samples, -1).astype(np.float32) / 255.0
    deviation = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    components = min(self._components, *rows.shape)
    from sklearn.decomposition import PCA  # on use: it takes longer to import than JAX

    return PCA(components, random_state=0).fit_transform(rows).astype(np.float32)


def pixels(*, components: int = 128) -> Pixels:
  """Projects pixels, standardised to mean 0 and standard deviation 1, to their first `components` principal components.

  Raises:
    UserError: `components` is less than 1.
  """
  options.check_positive("features.components", components)
  return Pixels(components)
