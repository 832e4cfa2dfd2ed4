"""The config of plain training by a run's own recipe, for warm-up and proxy runs. Host-side."""

from typing import Any

import ml_collections

__all__ = ["plain_config"]

_LEFT_OUT = ("features", "factors", "loggers", "proxy", "scores", "wrappers")  # of the run itself, or of its selector


def plain_config(
  config: ml_collections.ConfigDict, selector: str = "full", **options: Any
) -> ml_collections.ConfigDict:
  """Returns a copy of `config` with another selector, and without what belongs to the old one or to loggers."""
  made = {name: value for name, value in config.to_dict().items() if name not in _LEFT_OUT}
  fields = {"loss_normalization": "", "match_steps": False, "meta_batch_size": 0}
  changes = {"selector": {"name": selector, **options}, **fields}
  return ml_collections.ConfigDict(made | changes)
