"""Hashes of arrays, of files and of what JSON can hold, which tell whether two of them are the same."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["checksum", "content_digest", "digest", "sampled_digest", "text_digest"]

_BLOCK = 2**16  # bytes of a block that is hashed; `sampled_digest` depends on it


def digest(key: Mapping[str, Any]) -> str:
  """Returns a SHA-256 hash of `key`, a mapping that JSON can represent, in 64 hexadecimal digits."""
  return text_digest(json.dumps(key, sort_keys=True))


def text_digest(text: str) -> str:
  """Returns a SHA-256 hash of a text as UTF-8, in 64 hexadecimal digits."""
  return hashlib.sha256(text.encode()).hexdigest()


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


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
  """Returns a SHA-256 hash of the names, shapes, types and values of the arrays, in 64 hexadecimal digits."""
  whole = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    whole.update(f"{name} {array.dtype.str} {array.shape}".encode())
    whole.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
  return whole.hexdigest()
