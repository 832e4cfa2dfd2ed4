"""Caches arrays on disk, keyed by a hash of everything that they depend on. Host-side.

Each file carries a checksum: a truncated or altered file is detected and built again.
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

from dynsel_jax import options

__all__ = [
  "UNREADABLE",
  "Arrays",
  "cached",
  "checksum",
  "content_digest",
  "default_directory",
  "digest",
  "sampled_digest",
]

Arrays = dict[str, np.ndarray]

# Exceptions that numpy raises for a file that is empty, truncated, altered, or neither `.npy` nor `.npz`.
UNREADABLE = (ValueError, OSError, EOFError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)

_CHECKSUM = "checksum"
_BLOCK = 2**16  # bytes that are read at a time


def default_directory() -> pathlib.Path:
  """Returns `$DYNSEL_CACHE` if set, otherwise `dynsel_jax` in the user's cache folder."""
  if named := os.environ.get("DYNSEL_CACHE"):
    return pathlib.Path(named).expanduser()
  return pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "dynsel_jax"


def digest(key: Mapping[str, Any]) -> str:
  """Returns a SHA-256 hash of `key`, a mapping that JSON can represent, in 64 hexadecimal digits."""
  return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def content_digest(*paths: pathlib.Path) -> str:
  """Returns a SHA-256 hash of the files' contents, in 64 hexadecimal digits; their paths do not matter."""
  whole = hashlib.sha256()
  for path in paths:
    with path.open("rb") as file:
      while block := file.read(_BLOCK):
        whole.update(block)
  return whole.hexdigest()


def sampled_digest(path: str, limit: int) -> str:
  """Returns a hash of a file's content, or of evenly spread blocks of it if it has more than `limit` bytes."""
  whole = hashlib.sha256()
  with open(path, "rb") as file:
    size = os.fstat(file.fileno()).st_size
    number = -(-size // _BLOCK) if size <= limit else max(limit // _BLOCK, 2)
    for position in range(number):  # the last block ends with the file
      file.seek(max(size - _BLOCK, 0) * position // max(number - 1, 1))
      whole.update(file.read(_BLOCK))
  return whole.hexdigest()


def cached(kind: str, key: Mapping[str, Any], build: Callable[[], Arrays], directory: str = "") -> Arrays:
  """Returns the arrays for `key` from disk, or calls `build` and saves its arrays.

  Args:
    kind: prefix of the file's name, for human readers.
    key: everything that the arrays depend on; JSON must be able to represent it.
    build: computes the arrays.
    directory: folder of the files; `default_directory()` if empty.
  """
  folder = pathlib.Path(options.expand_home("cache_dir", directory)) if directory else default_directory()
  path = folder / f"{kind}-{digest(key)[:24]}.npz"
  if (arrays := _read(path)) is not None:
    return arrays
  arrays = {name: np.asarray(value) for name, value in build().items()}
  _write(path, arrays)
  return arrays


def _write(path: pathlib.Path, arrays: Arrays) -> None:
  partial = path.with_suffix(f".{os.getpid()}.npz")  # two runs may write the same file at the same time
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(partial, **arrays, **{_CHECKSUM: np.array(checksum(arrays))})  # type: ignore[arg-type]
    partial.replace(path)
  except OSError as error:  # no space or no permission: the run goes on, and the next one builds the arrays again
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
  except Exception as error:  # a damaged file raises many kinds of exceptions in numpy and zipfile
    reason = str(error)
  logging.warning("%s is damaged (%s) and will be built again", path, reason)
  return None


def checksum(arrays: Arrays) -> str:
  """Returns a SHA-256 hash of the names, shapes, types and values of the arrays, in 64 hexadecimal digits."""
  whole = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    whole.update(f"{name} {array.dtype.str} {array.shape}".encode())
    whole.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
  return whole.hexdigest()
