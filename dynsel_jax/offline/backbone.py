"""Features from a model of this project: the penultimate activations of a finished run, or of a warm-up run.

A decoder gives the mean of its last states over a text's tokens.

Host-side. RRD compares the latter with CLIP (arXiv 2603.04981, App. B.1, Table 7). This feature space is not in the
room `features`, which must not import training; `feature_registry` offers it beside the others.
"""

import functools
import pathlib
import tempfile
from typing import Any

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import traverse_util
from jax import Array

from dynsel_jax import hashing, models, options
from dynsel_jax.data import Source, gather
from dynsel_jax.features import images
from dynsel_jax.offline.plain_config import plain_config
from dynsel_jax.runs import saved_model
from dynsel_jax.runs.interruption import Interrupted
from dynsel_jax.training import loop

__all__ = ["Backbone", "backbone"]

Variables = dict[str, Any]

# Config fields that do not affect the parameters of the warm-up run; "dataset" is handled by field.
_IDLE = ("cache_dir", "checkpoint_every_steps", "dataset", "eval_batch_size")


class Backbone:
  """The feature space; see `backbone`."""

  def __init__(self, config: ml_collections.ConfigDict, path: str, epochs: int, batch_size: int):
    self._batch_size = batch_size
    self._folder = pathlib.Path(path) if path else None
    self._run = _warm_up(config, epochs) if self._folder is None else None
    self.reads_labels = self._run is not None  # the warm-up run trains on them
    self._model = _model_section(self._folder) if self._folder else config.model.to_dict()

  def settings(self) -> dict[str, Any]:
    """Returns everything that the features depend on except the data: the parameters, or the warm-up run's config."""
    if self._run is None:
      leaves = traverse_util.flatten_dict(self._checkpoint, sep="/")
      return {"parameters": hashing.checksum({name: np.asarray(leaf) for name, leaf in leaves.items()})}
    held = self._run.to_dict()
    data = {name: value for name, value in held["dataset"].items() if name != "data_dir"}
    return {"run": {name: value for name, value in held.items() if name not in _IDLE}, "dataset": data}

  def extract(self, source: Source) -> np.ndarray:
    """Returns the training set's features, `[N, D]` float32, in the order of the training set.

    Raises:
      UserError: the samples are neither images nor texts, or not of the shape that the model was trained on.
    """
    if source.text is None:
      images.check("backbone", source)
    variables = self._checkpoint if self._run is None else _trained(self._run, source)
    module = _module(self._model, variables)

    def encode(variables: Variables, inputs: Array) -> Array:
      given = inputs if source.text is not None else gather.normalize(inputs, source.mean, source.std)
      _, stages = module.apply(variables, given, jnp.ones(len(inputs), bool), train=False)
      return stages["features"]

    try:
      jax.eval_shape(encode, variables, source.train["inputs"][:1])
    except flax.errors.ScopeParamShapeError:
      shape = source.train["inputs"].shape[1:]
      raise options.UserError(
        f"features.path={self._folder} holds a model that does not take images of shape {shape}"
      ) from None
    return images.encode("backbone", encode, variables, source.train["inputs"], self._batch_size)

  @functools.cached_property
  def _checkpoint(self) -> Variables:
    assert self._folder is not None
    return saved_model.read_model(str(self._folder / "checkpoints"))


def _warm_up(config: ml_collections.ConfigDict, epochs: int) -> ml_collections.ConfigDict:
  """Returns the config of plain training for `epochs`, with the run's own recipe and the seed of section `factors`."""
  plain = plain_config(config)
  seed = config.seed if config.factors.seed == -1 else config.factors.seed  # as for the autoencoder
  plain.update(epochs=epochs, seed=seed, checkpoint_every_steps=0)
  return plain


def _trained(config: ml_collections.ConfigDict, source: Source) -> Variables:
  """Runs the warm-up in a temporary folder and returns the model's variables."""
  if jax.process_count() > 1:
    raise options.UserError(
      "features.name=backbone can train a model in a single process only: name a finished run in features.path"
    )
  with tempfile.TemporaryDirectory() as workdir:
    try:
      state = loop.train_and_evaluate(config, workdir, prepare=lambda *_: source).state.train
    except Interrupted:
      stopped = Interrupted("stopped while the model of features.name=backbone was trained")
      stopped.add_note("the same command trains it anew")
      raise stopped from None
  return jax.tree.map(np.asarray, {"params": state.params, "batch_stats": state.batch_stats})


def _model_section(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the config's section `model` of the run in `folder`.

  Raises:
    UserError: the folder does not hold a run, or has no checkpoint.
  """
  section = saved_model.model_section(folder, f"features.path={str(folder)!r}")
  if not (folder / "checkpoints").is_dir() or saved_model.latest_step(str(folder / "checkpoints")) is None:
    raise options.UserError(f"features.path={str(folder)!r} has no checkpoint")
  return section


def _module(section: dict[str, Any], variables: Variables) -> Any:
  settings = {name: value for name, value in section.items() if name not in ("name", "dtype")}
  if settings.get("lora_rank"):
    raise options.UserError(
      f"features.name=backbone: model.lora_rank={settings['lora_rank']} leaves weights out of the checkpoint; set it to"
      " 0, or use features.name=sentence"
    )
  params = variables["params"]
  if "embedding" in params:  # a decoder, whose sizes may be those of its weights
    return models.create(section["name"], params["embedding"].shape[0], **settings)
  if "weights" in settings:
    settings["weights"] = ""  # the checkpoint holds all parameters
  return models.create(section["name"], params["head"]["bias"].shape[0], **settings)


def backbone(config: ml_collections.ConfigDict, *, path: str = "", epochs: int = 10, batch_size: int = 512) -> Backbone:
  """Builds the feature space of the penultimate activations, in float32.

  Args:
    config: of the run; a warm-up run takes its model, optimizer, schedule and data, and trains on everything.
    path: the workdir of a finished run, whose newest checkpoint is used. Images are normalised by the statistics of
      their own data set. "" trains a model first; its seconds count as those of the features.
    epochs: of the warm-up run.
    batch_size: images per call.

  Raises:
    UserError: `path` does not hold a run, or a number is less than 1.
  """
  options.check_positive("features.batch_size", batch_size)
  options.check_positive("features.epochs", epochs)
  return Backbone(config, path, epochs, batch_size)
