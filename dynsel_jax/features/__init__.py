"""Feature spaces: a feature vector for each training sample, the input of the factor stage. Host-side.

Extracted features are cached on disk, see `cache`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from dynsel_jax import options as options_lib
from dynsel_jax.options import needs

with needs(__name__, "dynsel_jax[train]"):
  from dynsel_jax import cache
  from dynsel_jax.data import Source
  from dynsel_jax.features import clip, efficientnet, file, pixels, sentence

__all__ = ["SPACES", "FeatureSpace", "Spaces", "create", "defaults", "extract", "identity"]


class FeatureSpace(Protocol):
  """The interface of a feature space.

  Attributes:
    reads_labels: whether the features depend on more of the data set than the training inputs.
  """

  reads_labels: bool

  def settings(self) -> dict[str, Any]:
    """Returns everything besides the data that the features depend on, for the key of the cache."""

  def extract(self, source: Source) -> np.ndarray:
    """Returns the features of the training set, `[N, D]` float32, in the order of the training set."""


Spaces = Mapping[str, Callable[..., FeatureSpace]]

SPACES: Spaces = {
  "clip": clip.clip,
  "efficientnet": efficientnet.efficientnet,
  "file": file.file,
  "pixels": pixels.pixels,
  "sentence": sentence.sentence,
}


def defaults(name: str, *, spaces: Spaces = SPACES) -> dict[str, Any]:
  """Returns the options of the feature space `name` of `spaces` with their defaults."""
  options_lib.check_choice("features.name", name, spaces)
  return options_lib.keyword_defaults(spaces[name])


def create(name: str, *, spaces: Spaces = SPACES, **options: Any) -> FeatureSpace:
  """Builds the feature space `name` of `spaces`.

  Raises:
    UserError: the name or an option is unknown, or a value is wrong.
  """
  options_lib.check_settings("features", name, options, defaults(name, spaces=spaces))
  return spaces[name](**options)


def identity(name: str, space: FeatureSpace, source: Source) -> dict[str, Any]:
  """Returns everything that the features of `source` depend on, the key of the cache."""
  data = source.fingerprint if space.reads_labels else source.inputs_fingerprint
  return {"data": data, "features": name, **space.settings()}


def extract(name: str, space: FeatureSpace, source: Source, directory: str = "") -> np.ndarray:
  """Returns the features of the training set, `[N, D]` float32, from the cache in `directory` if present."""
  build = lambda: {"features": space.extract(source)}  # noqa: E731
  return cache.cached("features", identity(name, space, source), build, directory)["features"]
