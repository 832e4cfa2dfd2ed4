"""The parameters that a run starts from: fresh, from a file of weights, or from another run's checkpoint. Host-side.

A model names them by its attribute `weights`; see `models.pretrained` and `models.from_run`.
"""

import pathlib
from typing import Any

from absl import logging
from flax import linen as nn

from dynsel_jax import models
from dynsel_jax.models import weights
from dynsel_jax.options import UserError
from dynsel_jax.runs import saved_model

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
  model = saved_model.model_section(folder, where)["name"]
  try:
    found = saved_model.read_model(str(folder / "checkpoints"))["params"]
  except UserError as error:
    raise UserError(f"model.weights: {error}") from None
  if not (folder / "summary.json").is_file():
    logging.warning("%s is not finished: its newest checkpoint is taken", where)
  return models.from_run(f"{where} ({model})", module, params, found)
