"""Arrays that are costly to make, kept on disk under a hash of everything that they depend on. Host-side.

A file that is damaged, whether cut off or altered, is noticed by its checksum and made again.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

__all__ = ["UNREADABLE", "Arrays", "cached", "checksum", "default_directory", "digest"]

Arrays = dict[str, np.ndarray]

# What numpy raises for a file that is no `.npy` or `.npz`, is empty, cut off or altered.
UNREADABLE = (ValueError, OSError, EOFError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)

_CHECKSUM = "checksum"


def default_directory() -> pathlib.Path:
  """Returns `$DYNSEL_CACHE`, or else `dynsel_jax` in the user's cache folder."""
  if named := os.environ.get("DYNSEL_CACHE"):
    return pathlib.Path(named)
  return pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "dynsel_jax"


def digest(key: Mapping[str, Any]) -> str:
  """Returns 64 hexadecimal digits that change with any entry of `key`, a mapping that JSON can hold."""
  return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def cached(kind: str, key: Mapping[str, Any], build: Callable[[], Arrays], directory: str = "") -> Arrays:
  """Returns the arrays that `build` makes, from disk if they were made before for the same `key`.

  Args:
    kind: the first part of the file's name, for people.
    key: everything that the arrays depend on; JSON must be able to hold it.
    build: makes the arrays.
    directory: where the files lie; by default `default_directory()`.
  """
  folder = pathlib.Path(directory) if directory else default_directory()
  path = folder / f"{kind}-{digest(key)[:24]}.npz"
  if (arrays := _read(path)) is not None:
    return arrays
  arrays = {name: np.asarray(value) for name, value in build().items()}
  _write(path, arrays)
  return arrays


def _write(path: pathlib.Path, arrays: Arrays) -> None:
  partial = path.with_suffix(f".{os.getpid()}.npz")  # two runs may make the same file at the same time
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(partial, **arrays, **{_CHECKSUM: np.array(checksum(arrays))})  # type: ignore[arg-type]
    partial.replace(path)
  except OSError as error:  # no space or no permission: the next run makes them again
    logging.warning("%s cannot be written: %s", path, error.strerror)
    with contextlib.suppress(OSError):
      partial.unlink(missing_ok=True)


def _read(path: pathlib.Path) -> Arrays | None:
  if not path.exists():
    return None
  try:
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
      arrays = dict(file.items())
    if str(arrays.pop(_CHECKSUM)) == checksum(arrays):
      return arrays
    reason = "its checksum is wrong"
  except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
    reason = str(error)
  logging.warning("%s is damaged (%s) and is made again", path, reason)
  return None


def checksum(arrays: Arrays) -> str:
  """Returns 64 hexadecimal digits that change with any name, shape, type or value of the arrays."""
  whole = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    whole.update(f"{name} {array.dtype.str} {array.shape}".encode())
    whole.update(array.data if array.size else b"")
  return whole.hexdigest()
