"""Uses a run: `load(workdir)` gives its config, metrics and usage, and predicts with its model. Host-side.

`n` is the number of samples, `N` that of the run's training samples, `C` the number of classes.
"""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dynsel_jax import cache, hashing, models
from dynsel_jax.data import gather, inputs
from dynsel_jax.metric import Metric
from dynsel_jax.options import UserError, expand_home
from dynsel_jax.runs import finished, saved_model

__all__ = ["Trained", "load"]

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
_PREDICTED = ("classification", "regression")  # tasks that leave a batch as the data set has it, but for normalisation


def load(workdir: str | os.PathLike[str]) -> "Trained":
  """Opens the folder of a run, finished or not.

  Raises:
    UserError: `workdir` is no folder of a run.
  """
  path = pathlib.Path(expand_home("workdir", os.fspath(workdir)))
  if not (path / "config.json").is_file():
    raise UserError(f"workdir={workdir} holds no run: there is no config.json in it")
  run = finished.read(path)
  if run is None:
    raise UserError(f"workdir={workdir}: its config.json is damaged, or was not written by dynsel_jax")
  return Trained(run)


class Trained:
  """A run that was made, and the model of its newest checkpoint, which is read when it is first asked to predict."""

  def __init__(self, run: finished.Run):
    """Takes a run as `finished.read` returns it."""
    self.path, self._run = run.path, run

  @property
  def config(self) -> dict[str, Any]:
    """The config, as `recipes.get_config` makes it."""
    return self._run.config

  @property
  def metrics(self) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, one for each epoch."""
    return self._run.metrics

  @property
  def summary(self) -> dict[str, Any] | None:
    """The fields of `summary.json`; None unless the run is finished."""
    return self._run.summary

  @property
  def task(self) -> str:
    """The name of the task, for example "classification"."""
    return self._run.task

  @property
  def metric(self) -> Metric:
    """The headline of the task."""
    return self._run.metric

  @property
  def missing(self) -> tuple[str, ...]:
    """What is missing or damaged in the folder, in words."""
    return self._run.missing

  @property
  def class_names(self) -> tuple[str, ...]:
    """The names of the classes in the order of the labels, their numbers where they have no names; () without any."""
    if self.task != "classification":
      return ()
    return tuple(self.made("class_names")) or tuple(map(str, range(self.made("model")["num_outputs"])))

  @functools.cached_property
  def usage(self) -> dict[str, np.ndarray]:
    """How each training sample was used: `visits` `[N]` int32, and `last_loss` `[N]` float32, NaN if never seen.

    Raises:
      UserError: the run is not finished, or the file is damaged.
    """
    return cache.read_arrays("usage", self.path / "usage.npz")

  def read(self, path: str) -> inputs.Inputs:
    """Reads samples from a file or a folder as the run's own data set was read; see `data.inputs.read`."""
    return inputs.read(path, self._form)

  def predict(self, given: Any) -> np.ndarray:
    """Computes the model's predictions, with the normalisation of the run's own data set.

    Args:
      given: what the data set holds, neither normalised nor scaled: images `[n, H, W, C]` of integers from 0 to 255,
        texts as a sequence of strings, or `[n, ...]` numbers as the loader of the data set returned them; or the
        samples that `read` returned.

    Returns:
      For classification the probability of each class, `[n, C]` float32; for regression `[n]` float32.

    Raises:
      UserError: the inputs are not of the kind or the scale that the model was trained on; the run has no intact
        checkpoint, was made by an earlier version, or has a task of a user's own.
    """
    array = given.inputs if isinstance(given, inputs.Inputs) else inputs.as_trained(given, self._form)
    inputs.check_scale(array, self._form.scale)
    predict = self._program
    size = min(int(self.config["eval_batch_size"]), max(len(array), 1))
    found = []
    for start in range(0, max(len(array), 1), size):
      batch = array[start : start + size]
      valid = np.arange(size) < len(batch)
      padded = np.concatenate([batch, np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)])
      found.append(np.asarray(predict(padded, valid))[valid])
    return np.concatenate(found)

  @functools.cached_property
  def _program(self) -> Callable[..., Any]:
    name = self.config.get("task", {}).get("name", self.task)  # a task of a user's own may call itself by another
    if name not in _PREDICTED:
      raise UserError(
        f"workdir={self.path}: task.name={name} is none of {', '.join(_PREDICTED)}, and what it does to a batch is"
        " not in the folder; runs.saved_model.read_model gives the model's variables"
      )
    # The checkpoint holds all parameters.
    module = self.module(**({"weights": ""} if "weights" in self.config["model"] else {}))
    variables = saved_model.read_model(str(self.path / "checkpoints"))
    mean, std = self._statistics

    @jax.jit
    def predict(variables: Any, batch: Any, valid: Any) -> Any:
      normalised = gather.normalize(batch, mean, std) if mean else batch
      outputs, _ = module.apply(variables, normalised, valid, train=False)
      return jax.nn.softmax(outputs) if self.task == "classification" else outputs[:, 0]

    return functools.partial(predict, variables)

  def module(self, **changes: Any) -> nn.Module:
    """Builds the model without its variables; `changes` replaces options of the config's section `model`."""
    section = {**self.config["model"], **changes}
    name, dtype = section.pop("name"), section.pop("dtype", "float32")
    return models.create(name, self.made("model")["num_outputs"], dtype=_DTYPES[dtype], **section)

  def made(self, field: str) -> Any:
    """Returns a field of `config.json`; raises `UserError` if an earlier version did not write it."""
    if field not in self._run.made:
      raise UserError(f"workdir={self.path}: its config.json has no {field!r}: an earlier version made the run")
    return self._run.made[field]

  @property
  def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
    held = self.made("normalisation")
    return tuple(held["mean"]), tuple(held["std"])

  @functools.cached_property
  def _form(self) -> inputs.Form:
    model, is_image = self.made("model"), bool(self._statistics[0])
    return inputs.Form(
      shape=tuple(model["input_shape"]),
      dtype=model.get("input_dtype", "uint8" if is_image else "float32"),
      dataset=self.config["dataset"],
      class_names=self.class_names,
      is_image=is_image,
      tokenizer=self.tokenizer(),
      scale=tuple(model.get("input_scale", ())),  # runs of earlier versions have none
    )

  def tokenizer(self) -> str:
    """Returns the content of `tokenizer.json`, "" for a run without one; `UserError` if it is lost or damaged."""
    model, dataset = self.made("model"), self.config["dataset"]
    if "tokenizer" not in model:
      if "tokenizer" in dataset and ":" not in dataset["name"]:
        raise UserError(f"workdir={self.path} has no tokenizer.json: an earlier version made the run")
      return ""
    try:
      text = (self.path / "tokenizer.json").read_text()
    except (OSError, ValueError):
      text = ""
    if not text or hashing.text_digest(text) != model.get("tokenizer"):
      raise UserError(f"workdir={self.path}: tokenizer.json is lost or damaged; the run's command writes it again")
    return text
