"""The files that a run leaves behind: the contract that reports and people rely on. Host-side input and output.

`config.json`, `columns.npz`, `firings.npz`, `metrics.jsonl`, `summary.json`, `usage.npz`, `noise.npz` and TensorBoard
event files; `checkpoint` writes the rest, and `.lock` says which process writes them.
"""

import contextlib
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
from absl import logging
from tensorboardX import SummaryWriter

from dynsel_jax import cache, options
from dynsel_jax.factors.coverage import Firings
from dynsel_jax.training.lock import Lock

__all__ = ["Workdir", "check_writable", "provenance"]

IDENTITY = ("config", "data_fingerprint", "columns_fingerprint")  # what must be the same for a run to continue
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy", "ml_collections")


def check_writable(workdir: str) -> None:
  """Raises `UserError`, and makes nothing, if `workdir` cannot be made or written."""
  path = pathlib.Path(workdir).absolute()
  try:
    existing = next(p for p in (path, *path.parents) if os.path.lexists(p))
    is_folder = existing.is_dir()
  except OSError as error:
    raise options.UserError(f"workdir={workdir} cannot be written: {error.strerror}") from None
  if not is_folder:
    raise options.UserError(f"workdir={workdir}: {existing} is not a folder")
  if not os.access(existing, os.W_OK | os.X_OK):
    raise options.UserError(f"workdir={workdir} cannot be written: no permission for {existing}")
  longest = os.pathconf(existing, "PC_NAME_MAX")
  for part in path.relative_to(existing).parts:
    if len(os.fsencode(part)) > longest:
      raise options.UserError(f"workdir={workdir} cannot be made: a name has at most {longest} bytes")


def provenance(config: dict[str, Any], data: str, columns: str, device: Any, num_devices: int) -> dict[str, Any]:
  """Returns what `config.json` holds: the config, and what the run's first part was made with.

  Args:
    config: the whole config.
    data: the data's fingerprint.
    columns: the fingerprint of the columns that the selector reads.
    device: one of the run's devices.
    num_devices: how many there are over all processes.
  """
  return {
    "config": config,
    "data_fingerprint": data,
    "columns_fingerprint": columns,
    "device": {"kind": device.device_kind, "platform": device.platform, "count": num_devices},
    "versions": {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}},
  }


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Yields a file that takes the place of `path` in one move, so that a reader or a kill never meets half of it."""
  partial = path.with_suffix(path.suffix + ".partial")
  with partial.open("wb") as file:
    yield file
    file.flush()
    os.fsync(file.fileno())  # else the move may reach the disk before the bytes, and a crash leaves an empty file
  partial.replace(path)


def _write(path: pathlib.Path, text: str) -> None:
  with _replacing(path) as file:
    file.write(text.encode())


def _if_writing(method: Callable[..., Any]) -> Callable[..., Any]:
  """Makes a method do nothing, and return None, in a process that does not write."""

  @functools.wraps(method)
  def guarded(self: "Workdir", *arguments: Any) -> Any:
    return method(self, *arguments) if self.writes else None

  return guarded


class Workdir:
  """One run's folder."""

  def __init__(self, path: str, *, writes: bool = True):
    """Names the folder; nothing is read or made before a method is called. Of several processes one `writes`."""
    self.path, self.writes = pathlib.Path(path).absolute(), writes
    self._events: SummaryWriter | None = None
    self._lock = Lock(self.path)

  @property
  def checkpoints(self) -> str:
    """The folder of the checkpoints."""
    return str(self.path / "checkpoints")

  def lock(self, *, make: bool) -> bool:
    """Keeps other processes from writing the folder until `close`; returns False if one of them writes it.

    Args:
      make: whether to make the folder, if need be; otherwise one that no run has locked yet is left as it is.
    """
    if not self.writes:
      return True
    if make:
      self.path.mkdir(parents=True, exist_ok=True)
    return self._lock.take(make=make)

  def holder(self) -> str:
    """Returns in words which process writes the folder, where `lock` returned False to one of the processes."""
    return self._lock.holder()

  def check_same_run(self, made: dict[str, Any]) -> None:
    """Raises `UserError`, with the differing fields named, if the folder holds a run of another config or data.

    Args:
      made: any of the parts of `provenance` that are a run's `IDENTITY`.
    """
    try:
      held = json.loads((self.path / "config.json").read_text())
      old = options.flatten({name: held[name] for name in made if name in IDENTITY})
    except FileNotFoundError:
      return
    except (ValueError, KeyError, TypeError):
      raise options.UserError(f"workdir={self.path} has a config.json that is no run's") from None
    # Through JSON, since a tuple comes back as a list.
    new = options.flatten(json.loads(json.dumps({name: made[name] for name in made if name in IDENTITY})))
    differing = [
      f"{name.removeprefix('config.')} ({old.get(name, 'absent')!r} there, {new.get(name, 'absent')!r} here)"
      for name in sorted(old.keys() | new.keys())
      if old.get(name, "absent") != new.get(name, "absent")
    ]
    if differing:
      raise options.UserError(f"workdir={self.path} belongs to a different run: {', '.join(differing)}")

  @_if_writing
  def begin(
    self, made: dict[str, Any], columns: cache.Arrays, firings: Firings | None = None
  ) -> dict[str, float] | None:
    """Makes the folder and writes its first files, `config.json` last, unless it has that from an earlier part.

    Args:
      made: as `provenance` returns it, with the `seconds` that all before the first step took.
      columns: of the `SampleTable`, kept so that a run goes on with them wherever it is continued.
      firings: of the training set's factors, kept for the same reason; a run that began without them has none.

    Returns:
      The `seconds` that the run's first part wrote; None if this is the first, and in a process that does not write.
    """
    self.path.mkdir(parents=True, exist_ok=True)
    if (self.path / "config.json").exists():
      return json.loads((self.path / "config.json").read_text()).get("seconds")
    if columns:
      self._write_arrays("columns", columns)
    if firings is not None:
      self._write_arrays("firings", firings._asdict())
    _write(self.path / "config.json", json.dumps(made, indent=2) + "\n")
    return None

  def read_columns(self) -> cache.Arrays | None:
    """Returns the columns that the run began with, or None if there are none or they are not what was written."""
    try:
      held = json.loads((self.path / "config.json").read_text())
      # Opened here, since numpy leaves a damaged file open.
      with (self.path / "columns.npz").open("rb") as raw, np.load(raw) as file:
        columns = dict(file)
    except cache.UNREADABLE:
      return None
    return columns if cache.checksum(columns) == held["columns_fingerprint"] else None

  def read_firings(self) -> Firings | None:
    """Returns the firings that the run began with; None without them, or in a process that does not write."""
    path = self.path / "firings.npz"
    if not self.writes or not path.exists():
      return None
    try:
      with path.open("rb") as raw, np.load(raw) as file:
        return Firings(**file)
    except (*cache.UNREADABLE, TypeError) as error:
      logging.warning("%s is damaged (%s): from here on no line has the coverage of factors", path, error)
      return None

  @_if_writing
  def rewind(self, epoch: int) -> None:
    """Drops the lines of `metrics.jsonl` from `epoch` (counted from 0) on: the run is about to write them again."""
    path = self.path / "metrics.jsonl"
    if path.exists():
      # One line an epoch, so a torn last line lies beyond what a checkpoint covers.
      _write(path, "".join(path.read_text().splitlines(keepends=True)[:epoch]))
    self._events = SummaryWriter(str(self.path), purge_step=epoch + 1)

  @_if_writing
  def write_epoch(self, metrics: dict[str, Any], visits: np.ndarray) -> None:
    """Adds a line to `metrics.jsonl` and the same scalars, with the histogram of `visits`, to TensorBoard's events."""
    assert self._events is not None
    with (self.path / "metrics.jsonl").open("a") as file:
      file.write(json.dumps(metrics) + "\n")
      file.flush()
      os.fsync(file.fileno())
    for name, value in options.flatten(metrics).items():
      if isinstance(value, int | float):
        self._events.add_scalar(name.replace(".", "/"), value, metrics["epoch"])
    self._events.add_histogram("usage/visits", visits, metrics["epoch"])
    self._events.flush()

  @_if_writing
  def write_usage(self, visits: np.ndarray, last_loss: np.ndarray) -> None:
    """Writes `usage.npz`: `visits` [N] int32 and `last_loss` [N] float32."""
    self._write_arrays("usage", {"visits": visits, "last_loss": last_loss})

  @_if_writing
  def write_noise(self, labels: np.ndarray, true_labels: np.ndarray) -> None:
    """Writes `noise.npz`: `noisy` [N] bool, which training labels are wrong, and `true_labels` [N] int32."""
    self._write_arrays("noise", {"noisy": labels != true_labels, "true_labels": true_labels})

  def _write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
    with _replacing(self.path / f"{name}.npz") as file:
      np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

  @_if_writing
  def write_summary(self, summary: dict[str, Any]) -> None:
    """Writes `summary.json`."""
    _write(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")

  def read_summary(self) -> dict[str, Any] | None:
    """Returns the summary of a finished run, or None; one that is torn is none, since the run can write it anew."""
    try:
      return json.loads((self.path / "summary.json").read_text())
    except (FileNotFoundError, ValueError):
      return None

  def close(self) -> None:
    """Closes the event file, and lets other processes write the folder."""
    if self._events is not None:
      self._events.close()
    self._lock.release()
