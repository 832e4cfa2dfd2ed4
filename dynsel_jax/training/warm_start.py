"""The parameters that a run starts from: fresh, from a file of weights, or from another run's checkpoint. Host-side.

A model names them by its attribute `weights`; see `models.pretrained` and `models.from_run`.
"""

import json
import pathlib
from typing import Any

from absl import logging
from flax import linen as nn

from dynsel_jax import models
from dynsel_jax.models import weights
from dynsel_jax.options import UserError
from dynsel_jax.training import checkpoint

__all__ = ["first_params"]


def first_params(module: nn.Module, params: Any) -> Any:
  """Returns the parameters to start from, given fresh ones.

  If `module.weights` is the workdir of a run, its newest checkpoint is read; a warning says so if that run is not
  finished.

  Raises:
    UserError: the weights do not fit the model, or the workdir has no readable checkpoint.
  """
  named = getattr(module, "weights", "")
  if not named or not weights.is_run(named):
    return models.pretrained(module, params)
  where, folder = f"model.weights={named}", pathlib.Path(named)
  try:
    model = json.loads((folder / "config.json").read_text())["config"]["model"]["name"]
  except (OSError, ValueError, KeyError, TypeError):
    raise UserError(f"{where} is not the workdir of a run: it has no config.json that dynsel_jax wrote") from None
  step = checkpoint.latest_step(str(folder / "checkpoints"))
  if step is None:
    raise UserError(f"{where} has no checkpoint: let that run save one first")
  if not (folder / "summary.json").is_file():
    logging.warning("%s is not finished: its checkpoint of step %d is taken", where, step)
  try:
    found = checkpoint.read_model(str(folder / "checkpoints"))["params"]
  except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged checkpoint
    raise UserError(f"{where}: the checkpoint of step {step} cannot be read: {type(error).__name__}") from error
  return models.from_run(f"{where} ({model})", module, params, found)
