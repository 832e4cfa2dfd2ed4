"""`metrics.jsonl`: a line for each epoch of a run. Host-side.

A checkpoint holds the lines of the epochs before it, so that lines which the file loses can be written again. Nearly
all of them are packed, and only once, so that the thousandth checkpoint costs about what the first one does.
"""

import base64
import contextlib
import functools
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from dynsel_jax.runs import files

__all__ = ["append", "line", "packed", "restore", "unpacked"]

_BLOCK = 64  # lines that are packed together


def line(metrics: Mapping[str, Any]) -> str:
  """Returns the line of an epoch, without its end."""
  return json.dumps(files.finite(metrics))


def append(path: pathlib.Path, text: str) -> None:
  """Adds a line, on the disk when this returns."""
  with path.open("a") as file:
    file.write(text + "\n")
    file.flush()
    os.fsync(file.fileno())


def packed(lines: Sequence[str]) -> dict[str, list[str]]:
  """Returns the lines as JSON can hold them: "packed_lines", compressed blocks, and "lines", the last ones."""
  whole = len(lines) // _BLOCK * _BLOCK
  blocks = [_packed(tuple(lines[start : start + _BLOCK])) for start in range(0, whole, _BLOCK)]
  return {"packed_lines": blocks, "lines": list(lines[whole:])}


@functools.lru_cache(maxsize=1024)
def _packed(block: tuple[str, ...]) -> str:
  return base64.b85encode(zlib.compress("\n".join(block).encode())).decode()


def unpacked(held: Mapping[str, Any]) -> list[str]:
  """Returns the lines that `packed` made `held` of; those of an earlier version are all in "lines"."""
  blocks = (zlib.decompress(base64.b85decode(block)).decode() for block in held.get("packed_lines", ()))
  return [*(text for block in blocks for text in block.split("\n")), *held.get("lines", ())]


def restore(path: pathlib.Path, epoch: int, lines: Sequence[str]) -> None:
  """Makes the file hold the lines of the first `epoch` epochs and no others.

  Args:
    path: of the file.
    epoch: number of finished epochs.
    lines: theirs, as the checkpoint has them; lines that the file lacks or has otherwise are named in a warning.
      Without them, as in a checkpoint of an earlier version, the file's own are kept.
  """
  held, raw = _held(path, epoch)
  right = dict(enumerate(lines[:epoch], start=1)) or held
  lost = [number for number in range(1, epoch + 1) if number not in right]
  changed = [number for number in right if held.get(number) != right[number]]
  if lost:
    logging.warning("%s lost the lines of epochs %s, which cannot be restored", path, _ranges(lost))
  if changed:
    logging.warning(
      "%s lost the lines of epochs %s; they are written again from the checkpoint", path, _ranges(changed)
    )
  text = "".join(f"{right[number]}\n" for number in sorted(right))
  if text.encode() != raw:
    files.write_text(path, text)


def _held(path: pathlib.Path, epoch: int) -> tuple[dict[int, str], bytes]:
  """Returns the readable lines of the first `epoch` epochs by their number, counted from 1, and the whole content."""
  try:
    raw = path.read_bytes()
  except OSError:
    return {}, b""
  found: dict[int, str] = {}
  for one in raw.split(b"\n"):
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):  # torn, or not UTF-8
      text = one.decode()
      number = json.loads(text)["epoch"]
      if type(number) is int and 1 <= number <= epoch:
        found.setdefault(number, text)
  return found, raw


def _ranges(numbers: Iterable[int]) -> str:
  """Returns ascending numbers in words, as in "1-4, 7"."""
  spans: list[list[int]] = []
  for number in numbers:
    if spans and number == spans[-1][1] + 1:
      spans[-1][1] = number
    else:
      spans.append([number, number])
  return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
