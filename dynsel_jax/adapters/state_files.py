"""The state of a `Sampler` as a file of JSON, which a trainer keeps beside its own checkpoint. Host-side."""

import json
import os

import numpy as np

from dynsel_jax.options import UserError
from dynsel_jax.sampler import Sampler

__all__ = ["load", "save"]


def save(selection: Sampler, path: str) -> None:
  """Writes the state; the file appears when it is whole."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(f"{path}.part", "w") as file:
    state = selection.state_dict().items()
    json.dump({name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in state}, file)
  os.replace(f"{path}.part", path)


def load(selection: Sampler, path: str) -> None:
  """Lets the sampler go on from a state.

  Raises:
    UserError: there is no such file, or it is not of this sampler.
  """
  if not os.path.exists(path):
    raise UserError(f"there is no {path}: the checkpoint was not saved by a trainer with a selection")
  with open(path) as file:
    selection.load_state_dict(json.load(file))
