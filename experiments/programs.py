"""Keeps compiled programs on disk, in the user's cache folder, so that a command compiles only what is new. Host-side.

JAX names each file by a hash of the program, its own version, the devices and the flags, so that none is ever wrong.
"""

import contextlib
import pathlib

import jax

from dynsel_jax import cache

__all__ = ["keep", "prune"]

LIMIT = 4 << 30  # bytes


def keep() -> None:
  """Makes JAX keep compiled programs, unless the user has chosen a place (`JAX_COMPILATION_CACHE_DIR`) or said no."""
  if jax.config.jax_compilation_cache_dir is None:
    folder = cache.default_directory() / "programs"
    prune(folder, LIMIT)
    jax.config.update("jax_compilation_cache_dir", str(folder))


def prune(folder: pathlib.Path, limit: int) -> None:
  """Deletes the files of `folder` that have not been read for longest, until the rest has at most `limit` bytes."""
  found = []
  for path in folder.glob("*-cache"):
    with contextlib.suppress(OSError):  # another process may be pruning too
      about = path.stat()
      found.append((max(about.st_atime, about.st_mtime), about.st_size, path))
  total = sum(size for _, size, _ in found)
  for _, size, path in sorted(found):
    if total <= limit:
      return
    with contextlib.suppress(OSError):
      path.unlink()
    total -= size
