"""Which files below a folder are images, and their content. Host-side.

Regular files with one of Pillow's suffixes count, also those that a link leads to, at any depth and through linked
folders. All others are passed over, and counted by reason. They are never opened: a pipe would wait for ever.
"""

import collections
import hashlib
import os
from collections.abc import Collection
from typing import NamedTuple

from dynsel_jax.data.image_decoding import MOST_BYTES, suffixes
from dynsel_jax.data.summary import shown
from dynsel_jax.options import UserError

__all__ = [
  "HARMLESS",
  "Found",
  "Identity",
  "content",
  "digest",
  "identity",
  "images_below",
  "subfolders",
  "words_of",
]

_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
_SYSTEM_FOLDERS = frozenset(
  {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found", "system volume information"}
)
_HIDDEN, _SYSTEM = "hidden", "of the system"
HARMLESS = (_HIDDEN, _SYSTEM)  # reasons for passing over a file that nobody meant as an image

Identity = tuple[int, int]  # of a file or folder, whatever links lead to it


class Found(NamedTuple):
  """What lies in a folder."""

  paths: list[str]  # sorted
  passed_over: collections.Counter[str]  # number of the others by reason; a reason that is a suffix begins with a dot


def subfolders(folder: str) -> Found:
  """Finds the folders that lie directly in `folder`; the entries of the system and hidden ones are passed over.

  Raises:
    UserError: `folder` cannot be listed.
  """
  paths, passed_over = [], collections.Counter[str]()
  for entry in _entries(folder):
    reason, is_folder = _reason(entry)
    if is_folder and not reason:
      paths.append(entry.path)
    else:
      passed_over[reason or "outside the class folders"] += 1
  return Found(paths, passed_over)


def images_below(folder: str, closed: Collection[Identity] = ()) -> Found:
  """Finds the images in `folder` and below it; links into one of the folders `closed` are passed over.

  Raises:
    UserError: a folder cannot be listed.
  """
  known, passed_over = suffixes(), collections.Counter[str]()
  paths, waiting, seen = [], [folder], {identity(folder), *closed}
  while waiting:
    for entry in _entries(waiting.pop()):
      reason, is_folder = _reason(entry)
      if is_folder and not reason:
        if (own := identity(entry.path)) not in seen:  # a link may lead upwards, or where another one led
          seen.add(own)
          waiting.append(entry.path)
          continue
        reason = "links to folders read already"
      elif not reason:
        suffix = os.path.splitext(entry.name)[1].lower()
        reason = "" if suffix in known else suffix or "without a suffix"
      if reason:
        passed_over[reason] += 1
      else:
        paths.append(entry.path)
  return Found(sorted(paths, key=lambda path: path.split(os.sep)), passed_over)


def content(path: str) -> bytes:
  """Returns the content of an image file.

  Raises:
    OSError: it cannot be read.
    ValueError: it is too large to be an image.
  """
  with open(path, "rb") as file:
    if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
      raise ValueError(f"it has {size:,} bytes, more than {MOST_BYTES:,}")
    return file.read()


def digest(path: str) -> str:
  """Returns a hash of a file's content, in 64 hexadecimal digits; errors as in `content`."""
  return hashlib.sha256(content(path)).hexdigest()


def words_of(error: Exception) -> str:
  """Returns what is wrong with a file in one line, without the file's name."""
  return (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())


def identity(path: str) -> Identity:
  """Returns the identity of a file or folder."""
  status = os.stat(path)
  return status.st_dev, status.st_ino


def _entries(folder: str) -> list[os.DirEntry[str]]:
  try:
    with os.scandir(folder) as entries:
      return sorted(entries, key=lambda entry: entry.name)
  except OSError as error:
    raise UserError(f"{shown(folder)} cannot be listed: {error.strerror}") from None


def _reason(entry: os.DirEntry[str]) -> tuple[str, bool]:
  """Returns why an entry of a folder is passed over, "" if it is not, and whether it is a folder."""
  name = entry.name.lower()
  if name.startswith("."):
    return _HIDDEN, False
  try:
    if entry.is_dir():
      return (_SYSTEM if name in _SYSTEM_FOLDERS else ""), True
    if entry.is_file():
      return (_SYSTEM if name in _SYSTEM_FILES else ""), False
    exists = os.path.exists(entry.path)
  except OSError:  # a link in a circle, or into a folder that may not be read
    exists = False
  return ("special files" if exists else "broken links"), False
