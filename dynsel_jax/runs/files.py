"""Files that are replaced in one move, and JSON that carries a digest of itself. Host-side.

A reader or a kill never meets half a file; a byte that is flipped later does not pass for a value.
"""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from dynsel_jax import cache, hashing, options

__all__ = ["DIGEST", "finite", "read_arrays", "read_json", "write_arrays", "write_json", "write_text"]

DIGEST = "digest"  # the field that holds the digest of the others


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Yields a file that replaces `path` in one move."""
  partial = path.with_suffix(path.suffix + ".partial")
  with partial.open("wb") as file:
    yield file
    file.flush()
    os.fsync(file.fileno())  # else the move may reach the disk before the content, and a crash leaves an empty file
  partial.replace(path)


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a text file."""
  with _replacing(path) as file:
    file.write(text.encode())


def write_json(path: pathlib.Path, fields: Mapping[str, Any]) -> None:
  """Writes a JSON object, with its digest in the field `DIGEST`; NaN and infinity, which JSON lacks, become null."""
  held = json.loads(json.dumps(finite(fields)))  # as it will be read
  write_text(path, json.dumps({**held, DIGEST: hashing.digest(held)}, indent=2) + "\n")


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
  """Returns the fields of a file from `write_json`, also one of an earlier version without a digest; None if absent.

  Raises:
    ValueError: it is no JSON object, or does not match its digest.
  """
  try:
    held = json.loads(path.read_bytes())
  except FileNotFoundError:
    return None
  except (OSError, RecursionError) as error:
    raise ValueError(str(error)) from None
  if not isinstance(held, dict):
    raise ValueError("it is not a JSON object")
  if held.pop(DIGEST, None) not in (None, hashing.digest(held)):
    raise ValueError("it does not match its digest")
  return held


def finite(value: Any) -> Any:
  """Replaces what JSON has no number for by None."""
  if isinstance(value, Mapping):
    return {name: finite(one) for name, one in value.items()}
  if isinstance(value, list | tuple):
    return [finite(one) for one in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def write_arrays(path: pathlib.Path, arrays: cache.Arrays) -> None:
  """Writes an `.npz` file."""
  with _replacing(path) as file:
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_arrays(path: pathlib.Path) -> cache.Arrays | None:
  """Returns the arrays of an `.npz` file, or None if it is absent or damaged."""
  try:
    return cache.read_arrays("workdir", path)
  except options.UserError:
    return None
