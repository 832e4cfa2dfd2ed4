"""Faults: processes that are killed, files that are damaged, folders that vanish, disks that fill up. Host-side."""

import contextlib
import pathlib
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = [
  "KINDS",
  "Moment",
  "damage",
  "filled",
  "killing",
  "newest_step",
  "removing",
  "small_disk",
  "sources_of_damage",
]

KINDS = ("flip", "cut", "empty", "delete")
_MISC = ("events.out.tfevents.", ".lock")  # files that nothing is read from


def sources_of_damage(workdir: pathlib.Path, cache: pathlib.Path | None) -> dict[str, list[pathlib.Path]]:
  """Returns the files that can be damaged, by what they are, so that each kind is met as often as the others.

  Args:
    workdir: of the run.
    cache: the folder of its cache; None if the run reads none.
  """
  found: dict[str, list[pathlib.Path]] = {}
  for path in sorted(workdir.rglob("*")):
    if not path.is_file() or "damaged_checkpoints" in path.parts:
      continue
    inside = path.relative_to(workdir).parts
    if inside[0] == "checkpoints":
      kind = "newest checkpoint" if inside[1] == str(newest_step(workdir)) else "older checkpoint"
    elif path.name.startswith(_MISC):
      kind = "other"
    else:
      kind = path.name
    found.setdefault(kind, []).append(path)
  if cache and (files := sorted(path for path in cache.rglob("*.npz") if path.is_file())):
    found["cache"] = files
  return found


def damage(path: pathlib.Path, kind: str, rng: random.Random) -> str:
  """Damages a file, and says how; a file without content can only be deleted."""
  content = bytearray(path.read_bytes())
  kind = kind if content else "delete"
  if kind == "flip":
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"flip byte {place} of {path.name}"
  if kind == "delete":
    path.unlink()
  else:
    path.write_bytes(content[: rng.randrange(len(content))] if kind == "cut" else b"")
  return f"{kind} {path.name}"


class Moment(NamedTuple):
  """A moment in the life of a command: so many seconds after its start, or after its run has a checkpoint of `step`."""

  seconds: float
  step: int | None = None
  workdir: pathlib.Path = pathlib.Path()

  def __str__(self) -> str:
    """Says when."""
    return f"{self.seconds:.2f} s after " + (
      "the start" if self.step is None else f"the checkpoint of step {self.step}"
    )

  def waited(self, process: subprocess.Popen[str]) -> bool:
    """Waits for the moment; returns False if the process ends before it."""
    while self.step is not None and (newest_step(self.workdir) or 0) < self.step:
      if process.poll() is not None:
        return False
      time.sleep(0.005)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(self.seconds)
      return False
    return True


def newest_step(workdir: pathlib.Path) -> int | None:
  """Returns the step of the newest checkpoint, going by the names of the folders."""
  with contextlib.suppress(OSError):
    return max((int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()), default=None)
  return None


def killing(moment: Moment) -> Callable[[subprocess.Popen[str]], bool]:
  """Kills a process without warning."""

  def kill(process: subprocess.Popen[str]) -> bool:
    if not moment.waited(process):
      return False
    process.kill()
    return True

  return kill


def removing(folder: pathlib.Path, moment: Moment) -> Callable[[subprocess.Popen[str]], bool]:
  """Removes a folder under the process that writes it."""

  def remove(process: subprocess.Popen[str]) -> bool:
    if not moment.waited(process):
      return False
    while folder.exists():  # the process may make files while they are removed
      shutil.rmtree(folder, ignore_errors=True)
      time.sleep(0.01)
    return False

  return remove


@contextlib.contextmanager
def small_disk(path: pathlib.Path, megabytes: int) -> Iterator[str]:
  """Mounts a small file system in memory at `path`; yields the reason if this is not possible here, or ""."""
  path.mkdir(parents=True, exist_ok=True)
  command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
  try:
    done = subprocess.run(command, capture_output=True, text=True)
    reason = " ".join(done.stderr.split()) if done.returncode else ""
  except OSError as error:
    reason = str(error)
  try:
    yield reason
  finally:
    if not reason:
      subprocess.run(["umount", str(path)], check=True)


@contextlib.contextmanager
def filled(path: pathlib.Path, left: int) -> Iterator[None]:
  """Fills a file system up to so many bytes with a file in the folder `path`, which is removed at the end."""
  ballast = path / "ballast"
  with ballast.open("wb") as file:
    missing = shutil.disk_usage(path).free - left
    with contextlib.suppress(OSError):
      while missing > 0:
        missing -= file.write(bytes(min(missing, 1 << 20)))
  try:
    yield
  finally:
    ballast.unlink()
