"""What the adapters of trainers share: checks, and the sampler's state beside their checkpoints. Host-side."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from dynsel_jax.options import UserError
from dynsel_jax.sampler import Sampler

__all__ = ["check", "load", "save"]


def check(trainer: str, selection: Sampler, sizes: Mapping[str, Any], reasons: Mapping[str, Any]) -> None:
  """Checks that a trainer can follow a sampler.

  Args:
    trainer: its name, for the message.
    selection: the sampler.
    sizes: what attributes of the sampler must be.
    reasons: what the trainer does not work with, in words, each with whether it is so.

  Raises:
    UserError: it cannot.
  """
  for name, size in sizes.items():
    if getattr(selection, name) != size:
      raise UserError(f"the selection has {name}={getattr(selection, name)}, but the trainer {size}: they must agree")
  for words, true in reasons.items():
    if true:
      raise UserError(f"{trainer} does not work with {words}")


def save(selection: Sampler, path: str) -> None:
  """Writes the sampler's state as JSON; the file appears when it is whole."""
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(f"{path}.part", "w") as file:
    state = selection.state_dict().items()
    json.dump({name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in state}, file)
  os.replace(f"{path}.part", path)


def load(selection: Sampler, path: str) -> None:
  """Lets the sampler go on from a state.

  Raises:
    UserError: there is no such file, it is damaged, or it is not of this sampler.
  """
  if not os.path.exists(path):
    raise UserError(f"there is no {path}: the checkpoint was not saved by a trainer with a selection")
  try:
    with open(path) as file:
      state = json.load(file)
    if not isinstance(state, dict):
      raise ValueError("not a JSON object")
  except (ValueError, RecursionError):  # also of bytes that are not UTF-8
    raise UserError(f"{path} is damaged: continue from another checkpoint") from None
  selection.load_state_dict(state)
