"""A lock on a folder, so that only one process at a time writes into it. Host-side.

The lock is an `flock` on a file in the folder. The kernel releases it when the process ends, for whatever reason. The
file stays, and its presence alone locks nothing.
"""

import contextlib
import fcntl
import os
import pathlib

from absl import logging

__all__ = ["Lock"]

_NAME = ".lock"


def _locked(path: pathlib.Path, flags: int) -> int:
  """Opens and locks a file; closes it again if it cannot be locked."""
  descriptor = os.open(path, flags, 0o666)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BaseException:
    os.close(descriptor)
    raise
  return descriptor


class Lock:
  """The lock on one folder."""

  def __init__(self, folder: pathlib.Path):
    """Names the folder; `take` makes and locks the file."""
    self._path = folder / _NAME
    self._descriptor: int | None = None

  def take(self, *, make: bool) -> bool:
    """Takes the lock, or keeps it; returns False and changes nothing if another process holds it.

    On a file system without locks it warns and returns True.

    Args:
      make: whether to make the file if there is none; otherwise a folder without the file stays unlocked.
    """
    if self._descriptor is not None:
      return True
    try:
      self._descriptor = _locked(self._path, os.O_RDWR | (os.O_CREAT if make else 0))
    except BlockingIOError:
      return False
    except OSError as error:
      if make:
        logging.warning("%s cannot be locked (%s): start no other run in this folder", self._path, error.strerror)
      return True
    with contextlib.suppress(OSError):  # the number is only for people
      os.ftruncate(self._descriptor, 0)
      os.write(self._descriptor, str(os.getpid()).encode())
    return True

  def holder(self) -> str:
    """Names the process that took the lock last."""
    try:
      return f"process {int(self._path.read_text())}"
    except (OSError, ValueError):
      return "another process"

  def release(self) -> None:
    """Releases the lock, if it is held."""
    if self._descriptor is not None:
      os.close(self._descriptor)
      self._descriptor = None
