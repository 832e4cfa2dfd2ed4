"""Makes the columns of a sample table that a config names: from a score file, by factors, by a proxy. Host-side.

`N` is the number of training samples.
"""

import functools
from typing import Any

import ml_collections

from dynsel_jax import cache, data, options
from dynsel_jax.offline import factor_stage, proxy_ranks, score_file
from dynsel_jax.runs.timing import Timers
from dynsel_jax.training import loop

__all__ = ["columns", "train_and_evaluate"]


def columns(
  config: ml_collections.ConfigDict, source: data.Source, timers: Timers
) -> tuple[dict[str, Any], cache.Arrays]:
  """Makes the columns that a config's sections `scores`, `features`, `factors` and `proxy` name.

  Args:
    config: as `recipes.get_config` makes it.
    source: the data set.
    timers: receive the seconds of features, factors and the proxy.

  Returns:
    The columns by name, `[N]` float32 each, the proxy's `[N, epochs]`, and the arrays of `factors.coverage.Firings`,
    empty without factors.

  Raises:
    UserError: a value of those sections is wrong, or a file belongs to other data.
  """
  found: dict[str, Any] = {}
  if "scores" in config:
    options.check_present("scores", config.scores.to_dict(), score_file.defaults())
    found |= score_file.read_columns(config.scores.path, source)
  if "proxy" in config:
    found |= proxy_ranks.columns(config, source, timers)
  if "features" not in config:
    return found, {}
  stage = factor_stage.Stage(config, source, timers)
  return {**found, **stage.columns}, stage.firings._asdict()


# A whole run with its offline stage; takes the arguments of `training.loop.train_and_evaluate` except `columns`.
train_and_evaluate = functools.partial(loop.train_and_evaluate, columns=columns)
