"""Builds the feature spaces that a config names: those of the room `features`, and `backbone`. Host-side."""

import functools
from typing import Any

import ml_collections

from dynsel_jax import features, options
from dynsel_jax.offline import backbone

__all__ = ["create", "defaults"]


def _offered(config: ml_collections.ConfigDict | None) -> features.Spaces:
  return {**features.SPACES, "backbone": functools.partial(backbone.backbone, config)}


def defaults(name: str) -> dict[str, Any]:
  """Returns the options of the feature space `name` with their defaults."""
  return features.defaults(name, spaces=_offered(None))


def create(config: ml_collections.ConfigDict) -> tuple[str, features.FeatureSpace]:
  """Builds the feature space of a config's section `features`; returns its name and the space.

  Raises:
    UserError: the name or an option is unknown, or a value is wrong.
  """
  settings = config.features.to_dict()
  options.check_present("features", settings, ("name",))
  name = settings.pop("name")
  return name, features.create(name, spaces=_offered(config), **settings)
