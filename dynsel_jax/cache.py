"""Reads array files, and caches arrays on disk, keyed by a hash of everything that they depend on. Host-side.

Each file of the cache carries a checksum: a truncated or altered file is detected and built again.
"""

import contextlib
import math
import os
import pathlib
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from typing import IO, Any

import numpy as np
from absl import logging

from dynsel_jax import hashing
from dynsel_jax.options import UserError, expand_home, printable

__all__ = [
  "Arrays",
  "cached",
  "default_directory",
  "read_arrays",
]

Arrays = dict[str, np.ndarray]

_CHECKSUM = "checksum"
_MAGIC = {b"PK": "npz", b"\x93N": "npy"}  # the first two bytes of a file
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MOST_DEFLATED = 1032  # the largest ratio by which deflate can make a file smaller
_CHUNK = 1 << 20  # bytes of an array that are read at a time
_NUMBERS, _TEXTS = "biuf", "U"  # kinds of NumPy's types


def default_directory() -> pathlib.Path:
  """Returns `$DYNSEL_CACHE` if set, otherwise `dynsel_jax` in the user's cache folder."""
  if named := os.environ.get("DYNSEL_CACHE"):
    return pathlib.Path(named).expanduser()
  return pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "dynsel_jax"


def cached(kind: str, key: Mapping[str, Any], build: Callable[[], Arrays], directory: str = "") -> Arrays:
  """Returns the arrays for `key` from disk, or calls `build` and saves its arrays.

  Args:
    kind: prefix of the file's name, for human readers.
    key: everything that the arrays depend on; JSON must be able to represent it.
    build: computes the arrays, of real numbers.
    directory: folder of the files; `default_directory()` if empty.
  """
  folder = pathlib.Path(expand_home("cache_dir", directory)) if directory else default_directory()
  path = folder / f"{kind}-{hashing.digest(key)[:24]}.npz"
  if (arrays := _read(path)) is not None:
    return arrays
  arrays = {name: np.asarray(value) for name, value in build().items()}
  _write(path, arrays)
  return arrays


def _write(path: pathlib.Path, arrays: Arrays) -> None:
  partial = path.with_suffix(f".{os.getpid()}.npz")  # two runs may write the same file at the same time
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(partial, **arrays, **{_CHECKSUM: np.array(hashing.checksum(arrays))})  # type: ignore[arg-type]
    partial.replace(path)
  except OSError as error:  # no space or no permission: the run goes on, and the next one builds the arrays again
    logging.warning("%s cannot be written (%s); cache_dir names another folder", path, error.strerror)
    with contextlib.suppress(OSError):
      partial.unlink(missing_ok=True)


def _read(path: pathlib.Path) -> Arrays | None:
  if not path.exists():
    return None
  try:
    arrays = read_arrays("cache", path, texts=(_CHECKSUM,))
    if str(arrays.pop(_CHECKSUM)) == hashing.checksum(arrays):
      return arrays
    reason = f"cache={path}: its checksum is wrong"
  except (UserError, KeyError) as error:
    reason = str(error) if isinstance(error, UserError) else f"cache={path} has no checksum"
  logging.warning("%s; it is damaged and will be built again", reason)
  return None


def read_arrays(field: str, path: str | os.PathLike[str], *, texts: Collection[str] = ()) -> Arrays:
  """Reads the arrays of an `.npz` file, or that of an `.npy` file under the name "".

  Nothing that the file may contain is run, and nothing is allocated that the file is too small to hold.

  Args:
    field: of the config, or what else the file is, for the message.
    path: of the file.
    texts: names of the arrays that may hold text; the others hold real numbers.

  Returns:
    The arrays by name, in the machine's byte order.

  Raises:
    UserError: there is no such file, it is damaged, larger in memory than the machine, or it holds something else.
  """
  where = f"{field}={os.fspath(path)}"
  if not os.path.isfile(path):
    raise UserError(f"{where} is not a file")
  try:
    with open(path, "rb") as file, warnings.catch_warnings(action="ignore"):  # the warnings are about the header's text
      size = os.fstat(file.fileno()).st_size
      kind = _MAGIC.get(file.read(2))
      file.seek(0)
      if kind == "npy":
        return {"": _read_array(file, size, 0, "", texts)}
      if kind == "npz":
        return _read_members(file, size, texts)
    reason = "it begins as neither does"
  except MemoryError:
    reason = "it does not fit into memory"
  except Exception as error:  # a damaged file raises many kinds of exceptions in numpy and zipfile
    reason = printable(str(error), 300) or type(error).__name__
  raise UserError(f"{where} is not a readable .npz or .npy file of arrays: {reason}") from None


def _read_members(file: IO[bytes], size: int, texts: Collection[str]) -> Arrays:
  """Reads all members of an `.npz` file of `size` bytes; raises some exception if it is damaged."""
  arrays: Arrays = {}
  with zipfile.ZipFile(file) as whole:
    members = whole.infolist()
    if sum(member.compress_size for member in members) > size:
      raise ValueError("its members claim more bytes than it has")
    for member in members:
      name = member.filename.removesuffix(".npy")
      if name == member.filename or name in arrays:
        raise ValueError(f"its member {member.filename!r} is {'there twice' if name in arrays else 'no .npy file'}")
      if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its member {member.filename!r} is compressed by another method than deflate")
      ratio = 1 if member.compress_type == zipfile.ZIP_STORED else _MOST_DEFLATED
      with whole.open(member) as content:
        held = sum(array.nbytes for array in arrays.values())
        arrays[name] = _read_array(content, min(member.file_size, ratio * member.compress_size), held, name, texts)
  return arrays


def _read_array(file: IO[bytes], size: int, held: int, name: str, texts: Collection[str]) -> np.ndarray:
  """Reads one array from an `.npy` file or a member like it; raises some exception if it is damaged.

  Args:
    file: at its beginning.
    size: bytes that it can have at most.
    held: bytes of the arrays before it.
    name: of the array.
    texts: see `read_arrays`.
  """
  version = np.lib.format.read_magic(file)
  if version not in _HEADERS:
    raise ValueError(f"array {name!r} is of version {version} of the format")
  shape, fortran_order, dtype = _HEADERS[version](file)
  if dtype.kind not in (_TEXTS if name in texts else _NUMBERS):
    wanted = "text" if name in texts else "real numbers"
    raise ValueError(f"array {name!r} has type {dtype}, not {wanted}; Python objects are never unpickled")
  needed = math.prod(shape) * dtype.itemsize
  if any(side < 0 for side in shape) or needed > size:
    raise ValueError(f"array {name!r} of shape {shape} and type {dtype} claims {needed:,} bytes of {size:,}")
  if held + needed > _memory():
    raise ValueError(f"array {name!r} of shape {shape} and type {dtype} needs more memory than the machine has")
  array: np.ndarray = np.empty(math.prod(shape), dtype)
  filled = 0
  while filled < needed and (part := file.read(min(needed - filled, _CHUNK))):
    array.view(np.uint8)[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
    filled += len(part)
  if filled < needed or file.read(1):
    raise ValueError(f"array {name!r} of shape {shape} and type {dtype} has more bytes, or fewer")
  array = array.astype(dtype.newbyteorder("="), copy=False)
  if dtype.kind in _TEXTS:
    array.tolist()  # raises an exception for a number that is no character
  return array.reshape(shape[::-1]).transpose() if fortran_order else array.reshape(shape)


def _memory() -> int:
  """Returns the bytes of the machine's memory, or a number beyond all files where it cannot be asked."""
  try:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  except (AttributeError, OSError, ValueError):
    return 1 << 62
