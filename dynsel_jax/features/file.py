"""Features from a file that something else has made. Host-side.

A `.npy` file holds `[N, D]`; of an `.npz` file one array does, "train" by default, and is multiplied by an array
"scale" `[D]` if there is one, as for features stored as whole numbers. Row i belongs to sample i of the training set.
"""

import hashlib
import pathlib
from typing import Any

import numpy as np

from dynsel_jax import cache, options
from dynsel_jax.data import Source

__all__ = ["File", "file"]


class File:
  """The feature space; see `file`."""

  reads_labels = False

  def __init__(self, path: str, key: str):
    self._path, self._key = pathlib.Path(path), key

  def settings(self) -> dict[str, Any]:
    """Returns what the features depend on beside the data: the file's content, wherever it lies."""
    return {"content": hashlib.sha256(self._path.read_bytes()).hexdigest(), "key": self._key}

  def extract(self, source: Source) -> np.ndarray:
    """Returns the training set's features, `[N, D]` float32, in the order of the training set.

    Raises:
      UserError: the file is no array file, has no such array, or not one row for each sample, or a value is not finite.
    """
    features = self._read()
    num_samples = source.num_samples
    if features.ndim != 2 or features.shape[0] != num_samples:
      raise options.UserError(
        f"features.path={self._path} has shape {features.shape}, not a row for each of {num_samples} training samples"
      )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
      raise options.UserError(f"features.path={self._path}: row {bad[0]} has a value that is not finite")
    return features

  def _read(self) -> np.ndarray:
    try:
      with self._path.open("rb") as raw:
        read = np.load(raw, allow_pickle=False)
        if isinstance(read, np.ndarray):
          return read.astype(np.float32)
        if self._key not in read:
          raise options.UserError(f"features.key={self._key!r} is not in {self._path}; it has: {', '.join(read)}")
        scale = read["scale"].astype(np.float32) if "scale" in read else np.float32(1.0)
        return read[self._key].astype(np.float32) * scale
    except options.UserError:
      raise
    except cache.UNREADABLE as error:
      raise options.UserError(f"features.path={self._path} is no array file: {error}") from None


def file(*, path: str = "", key: str = "train") -> File:
  """The array `key` of the file `path`.

  Raises:
    UserError: there is no such file.
  """
  if not pathlib.Path(path).is_file():
    raise options.UserError(f"features.path={path!r} is not a file")
  return File(path, key)
