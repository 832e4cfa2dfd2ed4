"""Reads and writes score files: `.npz` files of static scores of a training set, with their provenance. Host-side.

Beside the columns, `[N]` float32 each, a file contains `data_fingerprint`; `made_from`, the proxy run's config as JSON;
`key`, a hash of both; and `checksum`, a hash of the columns. `experiments.score_dataset` writes such files, and the
config's section `scores` names the file that a selector reads.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from dynsel_jax import cache, hashing
from dynsel_jax.data import Source
from dynsel_jax.options import UserError

__all__ = ["defaults", "key_of", "read", "read_columns", "write"]

_ABOUT = ("data_fingerprint", "made_from", "key", "checksum")


def defaults() -> dict[str, Any]:
  """Returns the options of a config's section `scores`."""
  return {"path": ""}


def key_of(fingerprint: str, made_from: Mapping[str, Any]) -> str:
  """Hashes the data's fingerprint and `made_from` (recipe, seed, options) to 64 hexadecimal digits."""
  return hashing.digest({"data": fingerprint, "made_from": made_from})


def write(path: pathlib.Path, columns: cache.Arrays, fingerprint: str, made_from: Mapping[str, Any]) -> None:
  """Writes a score file atomically.

  Args:
    path: of the file.
    columns: `[N]` float32 each.
    fingerprint: of the data.
    made_from: everything that the columns depend on except the data; can be written as JSON.
  """
  about = {
    "data_fingerprint": fingerprint,
    "made_from": json.dumps(made_from, sort_keys=True),
    "key": key_of(fingerprint, made_from),
    "checksum": hashing.checksum(columns),
  }
  partial = path.with_suffix(".partial.npz")
  np.savez(partial, **columns, **{name: np.array(value) for name, value in about.items()})  # type: ignore[arg-type]
  partial.replace(path)


def read(path: pathlib.Path) -> tuple[cache.Arrays, dict[str, str]]:
  """Returns the columns of a score file, and its provenance.

  Raises:
    UserError: the file is missing, damaged, or not a score file.
  """
  if not path.is_file():
    raise UserError(f"scores.path={str(path)!r} is not a file")
  columns = cache.read_arrays("scores.path", path, texts=_ABOUT)
  if not set(_ABOUT) <= columns.keys():
    raise UserError(f"scores.path={path} is not a score file; make one with experiments.score_dataset")
  about = {name: str(columns.pop(name)) for name in _ABOUT}
  if about["checksum"] != hashing.checksum(columns):
    raise UserError(
      f"scores.path={path} is damaged: its checksum is wrong; make it again with experiments.score_dataset"
    )
  return columns, about


def read_columns(path: str, source: Source) -> dict[str, Array]:
  """Returns the columns of a score file for `source`, `[N]` float32 each; none if `path` is empty.

  Raises:
    UserError: as `read`, or the file belongs to other data, or a column does not have one value per training sample.
  """
  if not path:
    return {}
  columns, about = read(pathlib.Path(path))
  num_samples = source.num_samples
  for name, column in columns.items():
    if column.shape != (num_samples,):
      raise UserError(
        f"scores.path={path}: column {name!r} has shape {column.shape}, not one value for each of {num_samples} samples"
      )
  if about["data_fingerprint"] != source.fingerprint:
    raise UserError(
      f"scores.path={path} belongs to other data: fingerprint {about['data_fingerprint'][:12]} there,"
      f" {source.fingerprint[:12]} here (label noise is part of the data)"
    )
  return {name: jnp.asarray(column, jnp.float32) for name, column in columns.items()}
