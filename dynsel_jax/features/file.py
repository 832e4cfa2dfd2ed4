"""Features from a file made by any other program. Host-side.

A `.npy` file contains one array `[N, D]`. From an `.npz` file one array is read, "train" by default, and multiplied by
the array "scale" `[D]` if there is one, for features quantised to integers. Row i belongs to training sample i.
"""

import pathlib
from typing import Any

import numpy as np

from dynsel_jax import cache, hashing, options
from dynsel_jax.data import Source

__all__ = ["File", "file"]


class File:
  """The feature space of a file; see `file`."""

  reads_labels = False

  def __init__(self, path: str, key: str):
    self._path, self._key = pathlib.Path(path), key

  def settings(self) -> dict[str, Any]:
    """Returns the hash of the file, whose path does not matter, and the array's name."""
    return {"content": hashing.content_digest(self._path), "key": self._key}

  def extract(self, source: Source) -> np.ndarray:
    """Returns the features of the training set, `[N, D]` float32, in its order.

    Raises:
      UserError: the file cannot be read or lacks the array, or the array does not have one row of finite values for
        each training sample.
    """
    features = self._read()
    num_samples = source.num_samples
    if features.ndim != 2 or 0 in features.shape or features.shape[0] != num_samples:
      raise options.UserError(
        f"features.path={self._path} has shape {features.shape}; it must have one row for each of the {num_samples}"
        " training samples"
      )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
      raise options.UserError(f"features.path={self._path}: row {bad[0]} contains a value that is not finite")
    return features

  def _read(self) -> np.ndarray:
    arrays = cache.read_arrays("features.path", self._path)
    if "" in arrays:
      return arrays[""].astype(np.float32)
    if self._key not in arrays:
      raise options.UserError(f"features.key={self._key!r} is not in {self._path}; its arrays: {', '.join(arrays)}")
    features = arrays[self._key].astype(np.float32)
    if (scale := arrays.get("scale")) is None:
      return features
    if features.ndim != 2 or scale.shape not in ((), features.shape[1:]):
      raise options.UserError(
        f"features.path={self._path}: {self._key!r} has shape {features.shape} and 'scale' {scale.shape}; they must be"
        " [N, D] and [D]"
      )
    return features * scale.astype(np.float32)


def file(*, path: str = "", key: str = "train") -> File:
  """Opens the file `path`; `key` names the array in an `.npz` file.

  Raises:
    UserError: the file does not exist.
  """
  if not pathlib.Path(path).is_file():
    raise options.UserError(f"features.path={path!r} is not a file; it must be a .npy or .npz file of features")
  return File(path, key)
