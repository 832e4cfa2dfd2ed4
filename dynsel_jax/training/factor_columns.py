"""The offline stage of a run whose selector reads factor scores: features, autoencoder, scores, each from the cache.

Host-side. RRD, arXiv 2603.04981, Sec. 3.2-3.4 and App. A.
"""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import Array

from dynsel_jax import cache, factors, features, options
from dynsel_jax.data import Source
from dynsel_jax.training.timing import Timers

__all__ = ["COLUMNS", "defaults", "factor_columns"]

COLUMNS = ("representativeness", "rarity")  # what this stage makes, for `SampleTable.columns`


def defaults() -> dict[str, Any]:
  """Returns the options of a config's section `factors`."""
  return {
    "seed": 0,  # of its own, so that runs of different seeds share the stage
    "expansion_factor": 8,  # latents for each dimension of the features
    "k": 32,  # latents kept of each sample
    "topk": "absolute",  # the paper's rule, or "value"
    "orient": False,
    "epochs": 50,
    "batch_size": 4096,
    "learning_rate": 1e-3,
    "common_fraction": 0.1,  # share of the latents that count as common
  }


def factor_columns(config: ml_collections.ConfigDict, source: Source, timers: Timers) -> dict[str, Array]:
  """Returns the columns `COLUMNS` of the training set, `[N]` float32 in [0, 1].

  Args:
    config: its sections `features` and `factors` are read, and `cache_dir`.
    source: the data.
    timers: get the seconds of "features" and "factors".

  Raises:
    UserError: a value of those sections is wrong.
  """
  settings = config.features.to_dict()
  name = settings.pop("name")
  space = features.create(name, **settings)
  options.check_positive("factors.expansion_factor", config.factors.expansion_factor)
  options.check_fraction("factors.common_fraction", config.factors.common_fraction)
  key = {**features.identity(name, space, source), "factors": config.factors.to_dict()}

  def build() -> cache.Arrays:
    with timers.phase("features"):
      found = features.extract(name, space, source, config.cache_dir)
    with timers.phase("factors"):
      return _scores(config.factors.to_dict(), found, source)

  return {name: jnp.asarray(column) for name, column in cache.cached("factors", key, build, config.cache_dir).items()}


def _scores(settings: dict[str, Any], found: np.ndarray, source: Source) -> cache.Arrays:
  placed, labels = jnp.asarray(found), jnp.asarray(source.train.labels)
  num_latents = settings.pop("expansion_factor") * placed.shape[1]
  common_fraction, seed = settings.pop("common_fraction"), settings.pop("seed")
  _, codes, _ = factors.fit_sae(jax.random.key(seed), placed, num_latents=num_latents, **settings)
  columns = factors.columns(codes, labels, source.num_classes, num_latents=num_latents, common_fraction=common_fraction)
  return {name: np.asarray(columns[name]) for name in COLUMNS}
