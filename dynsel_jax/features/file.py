"""Features from a file made by any other program. Host-side.

A `.npy` file contains one array `[N, D]`. From an `.npz` file one array is read, "train" by default, and multiplied by
the array "scale" `[D]` if there is one, for features quantised to integers. Row i belongs to training sample i.
"""

import pathlib
from typing import Any

import numpy as np

from dynsel_jax import cache, options
from dynsel_jax.data import Source

__all__ = ["File", "file"]


class File:
  """The feature space of a file; see `file`."""

  reads_labels = False

  def __init__(self, path: str, key: str):
    self._path, self._key = pathlib.Path(path), key

  def settings(self) -> dict[str, Any]:
    """Returns the hash of the file, whose path does not matter, and the array's name."""
    return {"content": cache.content_digest(self._path), "key": self._key}

  def extract(self, source: Source) -> np.ndarray:
    """Returns the features of the training set, `[N, D]` float32, in its order.

    Raises:
      UserError: the file cannot be read or lacks the array, or the array does not have one row of finite values for
        each training sample.
    """
    features = self._read()
    num_samples = source.num_samples
    if features.ndim != 2 or features.shape[0] != num_samples:
      raise options.UserError(
        f"features.path={self._path} has shape {features.shape}; it must have one row for each of the {num_samples}"
        " training samples"
      )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
      raise options.UserError(f"features.path={self._path}: row {bad[0]} contains a value that is not finite")
    return features

  def _read(self) -> np.ndarray:
    try:
      with self._path.open("rb") as raw:
        read = np.load(raw, allow_pickle=False)
        if isinstance(read, np.ndarray):
          return read.astype(np.float32)
        if self._key not in read:
          raise options.UserError(f"features.key={self._key!r} is not in {self._path}; its arrays: {', '.join(read)}")
        scale = read["scale"].astype(np.float32) if "scale" in read else np.float32(1.0)
        return read[self._key].astype(np.float32) * scale
    except options.UserError:
      raise
    except cache.UNREADABLE as error:
      raise options.UserError(f"features.path={self._path} is not a .npy or .npz file: {error}") from None


def file(*, path: str = "", key: str = "train") -> File:
  """Opens the file `path`; `key` names the array in an `.npz` file.

  Raises:
    UserError: the file does not exist.
  """
  if not pathlib.Path(path).is_file():
    raise options.UserError(f"features.path={path!r} is not a file; it must be a .npy or .npz file of features")
  return File(path, key)
