"""The offline stage of a selector that reads factor scores: features, autoencoder and scores, each cached on disk.

Host-side. RRD, arXiv 2603.04981, Sec. 3.2-3.4 and App. A. `N` is the number of training samples, `k` the code length,
`L` the number of latents. Memory grows with N x k, never with N x L.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax import Array

from dynsel_jax import cache, factors, features, hashing, options
from dynsel_jax.data import Source
from dynsel_jax.factors import coverage, quality, sae, sae_file, statistics
from dynsel_jax.offline import feature_registry
from dynsel_jax.runs.timing import Timers

__all__ = ["COLUMNS", "Stage", "defaults"]

COLUMNS = ("representativeness", "rarity")  # of `SampleTable.columns`, made by this stage


def defaults() -> dict[str, Any]:
  """Returns the options of a config's section `factors`."""
  return {
    # File of an autoencoder for the same kind of features, written by `experiments.fit_factors`; "" fits one. With a
    # file `expansion_factor`, `orient`, `epochs`, `batch_size` and `learning_rate` have no effect.
    "sae": "",
    "seed": -1,  # -1 is the run's seed, so that a deviation over seeds contains that of the autoencoder
    "expansion_factor": 8,  # latents per dimension of the features
    "k": 32,  # active latents per sample
    "topk": "absolute",  # the paper's rule, or "value"
    "orient": True,  # settles the signs of the latents; False leaves them to chance, as the paper does
    "active": "positive",  # the paper's rule, or "nonzero"
    "epochs": 50,
    "batch_size": 4096,
    "learning_rate": 1e-3,
    "common_fraction": 0.1,  # fraction of the latents that count as common
  }


def _check(settings: dict[str, Any]) -> None:
  """Raises `UserError` if a value of the section `factors` is wrong, whatever the features are."""
  options.check_present("factors", settings, defaults())
  options.check_settings("factors", "sae", settings, defaults())
  for name in ("expansion_factor", "k", "epochs", "batch_size", "learning_rate"):
    options.check_positive(f"factors.{name}", settings[name])
  if settings["seed"] != -1:
    options.check_seed("factors.seed", settings["seed"])
  options.check_choice("factors.topk", settings["topk"], sae.TOPK)
  options.check_choice("factors.active", settings["active"], sae.ACTIVE)
  options.check_fraction("factors.common_fraction", settings["common_fraction"])


class Stage:
  """The offline stage, part by part: each part is read from the cache, or made from the parts before it.

  An autoencoder from a file (`factors.sae`) with its own normalisation replaces the fit, as in the paper's Table 4;
  statistics and scores are still computed on this data set.
  """

  def __init__(self, config: ml_collections.ConfigDict, source: Source, timers: Timers):
    """Checks everything that can be checked without features.

    Args:
      config: gives the sections `features` and `factors`, and `cache_dir`.
      source: the data set.
      timers: receive the seconds of "features" and "factors".

    Raises:
      UserError: a value of those sections is wrong, or the set has no labels.
    """
    if source.labels is None:
      name = config.features.get("name")
      raise options.UserError(
        f"features.name={name}: factor scores need labels, and dataset.name={source.name} has none"
      )
    self._source, self._timers, self._directory = source, timers, config.cache_dir
    self._settings = config.factors.to_dict()
    _check(self._settings)
    if self._settings["seed"] == -1:
      self._settings["seed"] = config.seed
    path, self._common_fraction = self._settings.pop("sae"), self._settings.pop("common_fraction")
    self._space_name, self._space = feature_registry.create(config)
    # Codes depend on these and on the autoencoder.
    self._coding = {name: self._settings[name] for name in ("k", "topk", "active")}
    self._file = sae_file.read_sae(path) if path else None
    if self._file is not None:
      self._check_coding(path, self._file)
    self._feature_key = features.identity(self._space_name, self._space, source)
    self._sae_key = {"file": hashing.checksum(sae_file.to_arrays(self._file.sae))} if self._file else self._settings

  def _check_coding(self, path: str, file: sae_file.SAEFile) -> None:
    for name in ("k", "topk"):
      if (found := getattr(file, name)) != (wanted := self._settings[name]):
        raise options.UserError(f"factors.{name}={wanted!r}, but factors.sae={path} was fitted with {found!r}")

  @functools.cached_property
  def features(self) -> np.ndarray:
    """The features, `[N, D]` float32."""
    with self._timers.phase("features"):
      return features.extract(self._space_name, self._space, self._source, self._directory)

  @functools.cached_property
  def _encoded(self) -> cache.Arrays:
    def build() -> cache.Arrays:
      placed = jnp.asarray(self.features)
      with self._timers.phase("factors"):
        found = self._fitted(placed) if self._file is None else self._measured(self._file.sae, placed)
        return {name: np.asarray(array) for part in found for name, array in part._asdict().items()}

    return self._cached("codes", {"sae": self._sae_key, **self._coding}, build)

  def _fitted(self, placed: Array) -> tuple[Any, ...]:
    settings = dict(self._settings)
    num_latents, seed = settings.pop("expansion_factor") * placed.shape[1], settings.pop("seed")
    (params, normalizer), codes, measured = factors.fit_sae(
      jax.random.key(seed), placed, num_latents=num_latents, **settings
    )
    return params, normalizer, codes, measured

  def _measured(self, sae: factors.SAE, placed: Array) -> tuple[Any, ...]:
    if placed.shape[1] != (width := sae.normalizer.mean.shape[0]):
      raise options.UserError(f"factors.sae was fitted to features of width {width}, these have {placed.shape[1]}")
    codes, measured = quality.measure(*sae, placed, **self._coding)
    for line in quality.warnings(measured):
      logging.warning(line)
    return *sae, codes, measured

  @property
  def sae(self) -> factors.SAE:
    """The autoencoder."""
    return sae_file.from_arrays(self._encoded)

  @property
  def codes(self) -> factors.Codes:
    """The training set's codes."""
    return factors.Codes(*(jnp.asarray(self._encoded[name]) for name in factors.Codes._fields))

  @property
  def quality(self) -> factors.Quality:
    """Quality metrics of the autoencoder on the training set."""
    return quality.from_arrays(self._encoded)

  @functools.cached_property
  def _scored(self) -> cache.Arrays:
    def build() -> cache.Arrays:
      codes, labels = self.codes, jnp.asarray(self._source.labels)
      num_classes, num_latents = self._source.num_classes, self._encoded["b_enc"].shape[0]
      with self._timers.phase("factors"):
        counted = statistics.factor_statistics(codes, labels, num_classes=num_classes, num_latents=num_latents)
        scores = factors.columns(
          codes,
          labels,
          num_classes,
          num_latents=num_latents,
          common_fraction=self._common_fraction,
          statistics=counted,
        )
        return {name: np.asarray(value) for name, value in {**counted._asdict(), **scores}.items()}

    labelled = {"data": self._source.fingerprint}  # features and codes may depend on the inputs only
    key = {**labelled, "sae": self._sae_key, **self._coding, "common_fraction": self._common_fraction}
    return self._cached("factors", key, build)

  @property
  def statistics(self) -> factors.FactorStatistics:
    """Per-latent counts over the training set."""
    return factors.FactorStatistics(*(jnp.asarray(self._scored[name]) for name in factors.FactorStatistics._fields))

  @property
  def columns(self) -> dict[str, Array]:
    """The columns `COLUMNS`, `[N]` float32 in [0, 1]."""
    return {name: jnp.asarray(self._scored[name]) for name in COLUMNS}

  @property
  def firings(self) -> coverage.Firings:
    """The latents that fire in each training sample."""
    indices, values = (self._encoded[name] for name in factors.Codes._fields)
    return coverage.firings(indices, values, len(self._encoded["b_enc"]), self._common_fraction)

  def _cached(self, kind: str, key: dict[str, Any], build: Any) -> cache.Arrays:
    return cache.cached(kind, {**self._feature_key, **key}, build, self._directory)
