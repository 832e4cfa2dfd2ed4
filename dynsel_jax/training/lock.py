"""A lock on a folder, so that one process at a time writes it. Host-side.

The kernel keeps it, as an `flock` on a file in the folder, and frees it when the process that holds it ends, however it
does. So the file stays where it is, and locks nothing by being there.
"""

import contextlib
import fcntl
import os
import pathlib

from absl import logging

__all__ = ["Lock"]

_NAME = ".lock"


def _locked(path: pathlib.Path, flags: int) -> int:
  """Opens a file and locks it; one that cannot be locked is closed again."""
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
    """Names the folder; nothing is made or locked before `take`."""
    self._path = folder / _NAME
    self._descriptor: int | None = None

  def take(self, *, make: bool) -> bool:
    """Takes the lock, or goes on holding it; returns False, and changes nothing, if another holds it.

    Where the file system has no locks, the folder is written without one.

    Args:
      make: whether to make the file where there is none; otherwise such a folder stays as it is, unlocked.
    """
    if self._descriptor is not None:
      return True
    try:
      self._descriptor = _locked(self._path, os.O_RDWR | (os.O_CREAT if make else 0))
    except BlockingIOError:
      return False
    except OSError as error:
      if make:
        logging.warning("%s cannot be locked (%s): let no other run write this folder", self._path, error.strerror)
      return True
    with contextlib.suppress(OSError):  # who holds it is for people alone
      os.ftruncate(self._descriptor, 0)
      os.write(self._descriptor, str(os.getpid()).encode())
    return True

  def holder(self) -> str:
    """Returns in words which process took the lock last."""
    try:
      return f"process {int(self._path.read_text())}"
    except (OSError, ValueError):
      return "another process"

  def release(self) -> None:
    """Frees the lock, if it is held."""
    if self._descriptor is not None:
      os.close(self._descriptor)
      self._descriptor = None
