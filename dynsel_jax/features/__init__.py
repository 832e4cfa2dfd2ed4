"""Feature spaces: from a training set to a vector for each sample, for the factors to be found in. Host-side.

A feature space is an object with `reads_labels`, whether its features depend on more of the data than the training
inputs, `settings()`, what they depend on beside the data, and `extract(source)`, the features `[N, D]` float32. What
has been extracted is kept on disk; see `cache`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from dynsel_jax import cache
from dynsel_jax import options as options_lib
from dynsel_jax.data import Source
from dynsel_jax.features import clip, efficientnet, file, pixels, sentence

__all__ = ["SPACES", "FeatureSpace", "Spaces", "create", "defaults", "extract", "identity"]


class FeatureSpace(Protocol):
  """What a feature space offers."""

  reads_labels: bool

  def settings(self) -> dict[str, Any]: ...

  def extract(self, source: Source) -> np.ndarray: ...


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
    UserError: the name or an option is not known, or a value is wrong.
  """
  options_lib.check_settings("features", name, options, defaults(name, spaces=spaces))
  return spaces[name](**options)


def identity(name: str, space: FeatureSpace, source: Source) -> dict[str, Any]:
  """Returns everything that the features of `source` depend on, as a cache's key."""
  data = source.fingerprint if space.reads_labels else source.inputs_fingerprint
  return {"data": data, "features": name, **space.settings()}


def extract(name: str, space: FeatureSpace, source: Source, directory: str = "") -> np.ndarray:
  """Returns the features of the training set, `[N, D]` float32, from the cache in `directory` if they are there."""
  build = lambda: {"features": space.extract(source)}  # noqa: E731
  return cache.cached("features", identity(name, space, source), build, directory)["features"]
