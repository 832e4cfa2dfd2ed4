"""The config of plain training by a run's own recipe, for warm-up and proxy runs. Host-side."""

from typing import Any

import ml_collections

__all__ = ["plain_config"]

_OF_SELECTION = ("features", "factors", "scores", "wrappers")  # sections that belong to a run's selector


def plain_config(
  config: ml_collections.ConfigDict, selector: str = "full", **options: Any
) -> ml_collections.ConfigDict:
  """Returns a copy of `config` with another selector, and without the sections that belong to the old one."""
  made = {name: value for name, value in config.to_dict().items() if name not in _OF_SELECTION}
  fields = {"loss_normalization": "", "match_steps": False, "meta_batch_size": 0}
  changes = {"selector": {"name": selector, **options}, **fields}
  return ml_collections.ConfigDict(made | changes)
