"""The folder of a run and its files: the contract that reports and people rely on. Host-side input and output.

`config.json`, `columns.npz`, `firings.npz`, `metrics.jsonl`, `summary.json`, `usage.npz`, `noise.npz` and TensorBoard
event files. `training.checkpoint` writes the folder `checkpoints`; `.lock` names the process that writes.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
from absl import logging
from tensorboardX import SummaryWriter

from dynsel_jax import cache, options
from dynsel_jax.runs.lock import Lock

__all__ = ["Workdir", "check_writable", "identity", "provenance"]

IDENTITY = ("config", "data_fingerprint", "columns_fingerprint")  # a run continues only if these are the same
FIRINGS = ("latents", "frequency", "common")  # arrays of `firings.npz`
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy", "ml_collections")


def check_writable(workdir: str) -> None:
  """Raises `UserError`, and makes nothing, if `workdir` cannot be made or written."""
  path = pathlib.Path(options.expand_home("workdir", workdir)).absolute()
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
      raise options.UserError(
        f"workdir={workdir} cannot be made: {part[:20]!r}... is longer than the {longest} bytes that a name may have"
      )


def provenance(config: dict[str, Any], data: str, columns: str, device: Any, num_devices: int) -> dict[str, Any]:
  """Returns the fields of `config.json` that say from what the run was made.

  Args:
    config: the whole config.
    data: fingerprint of the data.
    columns: fingerprint of the columns that the selector reads.
    device: one of the run's devices.
    num_devices: number of devices over all processes.
  """
  return {
    "config": config,
    "data_fingerprint": data,
    "columns_fingerprint": columns,
    "device": {"kind": device.device_kind, "platform": device.platform, "count": num_devices},
    "versions": {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}},
  }


def identity(made: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the parts of `provenance` that must be the same for a run to continue, as JSON gives them back."""
  return json.loads(json.dumps({name: made[name] for name in made if name in IDENTITY}))


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Yields a file that replaces `path` in one move, so that no reader ever sees a part of it."""
  partial = path.with_suffix(path.suffix + ".partial")
  with partial.open("wb") as file:
    yield file
    file.flush()
    os.fsync(file.fileno())  # otherwise the move may reach the disk first, and a crash leave an empty file
  partial.replace(path)


def _write(path: pathlib.Path, text: str) -> None:
  with _replacing(path) as file:
    file.write(text.encode())


def _if_writing(method: Callable[..., Any]) -> Callable[..., Any]:
  """Makes a method do nothing and return None in a process that does not write."""

  @functools.wraps(method)
  def guarded(self: "Workdir", *arguments: Any) -> Any:
    return method(self, *arguments) if self.writes else None

  return guarded


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def _finite(value: Any) -> Any:
  """Replaces NaN and infinity, which JSON does not know, by None."""
  if isinstance(value, dict):
    return {name: _finite(one) for name, one in value.items()}
  return None if isinstance(value, float) and not math.isfinite(value) else value


class Workdir:
  """The folder of one run."""

  def __init__(self, path: str, *, writes: bool = True):
    """Names the folder; only the methods read or make anything. One of several processes `writes`."""
    self.path, self.writes = pathlib.Path(options.expand_home("workdir", path)).absolute(), writes
    self._events: SummaryWriter | None = None
    self._lock = Lock(self.path)

  @property
  def checkpoints(self) -> str:
    """The folder of the checkpoints."""
    return str(self.path / "checkpoints")

  def exists(self) -> bool:
    """Whether the folder still holds the run: `config.json` is written first and stays."""
    return (self.path / "config.json").exists()

  def lock(self, *, make: bool) -> bool:
    """Keeps other processes from writing the folder until `close`; returns False if another one is writing it.

    Args:
      make: whether to make the folder; otherwise a folder that no run has locked yet is left unchanged.
    """
    if not self.writes:
      return True
    if make:
      self.path.mkdir(parents=True, exist_ok=True)
    return self._lock.take(make=make)

  def holder(self) -> str:
    """Names the process that is writing the folder, after `lock` returned False."""
    return self._lock.holder()

  def check_same_run(self, made: dict[str, Any], saved: Mapping[str, Any] | None = None) -> None:
    """Raises `UserError`, naming the differing fields, if the folder holds a run of another config or other data.

    Args:
      made: parts of `provenance`, of which those of `IDENTITY` are compared.
      saved: the same as the checkpoints have it. With it a `config.json` that cannot be read is written again.
    """
    new = identity(made)
    if saved is not None:
      self._compare(saved, new)
    try:
      held = json.loads((self.path / "config.json").read_text())
      old = {name: held[name] for name in new}
    except FileNotFoundError:
      return
    except (ValueError, KeyError, TypeError):
      if saved is None:
        raise options.UserError(f"workdir={self.path} contains a config.json that dynsel_jax did not write") from None
      logging.warning("%s/config.json is damaged and is written again", self.path)
      (self.path / "config.json").unlink()
      return
    self._compare(old, new)

  def _compare(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    old, new = options.flatten({name: old[name] for name in new if name in old}), options.flatten(new)
    differing = [
      f"{name.removeprefix('config.')} ({old.get(name, 'absent')!r} there, {new.get(name, 'absent')!r} here)"
      for name in sorted(old.keys() | new.keys())
      if old.get(name, "absent") != new.get(name, "absent")
    ]
    if differing:
      raise options.UserError(f"workdir={self.path} belongs to a different run: {', '.join(differing)}")

  @_if_writing
  def begin(self, made: dict[str, Any], arrays: Mapping[str, cache.Arrays]) -> dict[str, float] | None:
    """Makes the folder and writes its first files, `config.json` last, unless an earlier part of the run did.

    Args:
      made: `provenance`, the `seconds` of everything before the first step, and further fields that describe the run.
      arrays: arrays of each file by its name, for example "columns" of the `SampleTable`; with them the run can
        continue on any machine. A file without arrays is not written.

    Returns:
      The `seconds` that an earlier part of the run wrote; None if there is none, or if this process does not write.
    """
    self.path.mkdir(parents=True, exist_ok=True)
    if (self.path / "config.json").exists():
      return json.loads((self.path / "config.json").read_text()).get("seconds")
    written = sorted(name for name, held in arrays.items() if held)
    for name in written:
      if self._read_arrays(name) is None:
        self._write_arrays(name, arrays[name])
    _write(self.path / "config.json", json.dumps({**made, "arrays": written}, indent=2) + "\n")
    return None

  def read_columns(self) -> cache.Arrays | None:
    """Returns the columns that the run began with; None if there are none or they are damaged."""
    columns, held = self._read_arrays("columns"), self._read_config()
    if columns is None or held is None:
      return None
    return columns if cache.checksum(columns) == held.get("columns_fingerprint") else None

  def read_firings(self) -> cache.Arrays | None:
    """Returns the firings of factors that the run began with, {} if it has none; None if they are lost or damaged."""
    held = self._read_config()
    if held is None or "firings" not in held.get("arrays", ()):
      return {}
    firings = self._read_arrays("firings")
    return firings if firings is not None and firings.keys() == set(FIRINGS) else None

  def _read_config(self) -> dict[str, Any] | None:
    try:
      held = json.loads((self.path / "config.json").read_text())
    except (OSError, ValueError):
      return None
    return held if isinstance(held, dict) else None

  def _read_arrays(self, name: str) -> cache.Arrays | None:
    """Returns the arrays of `NAME.npz`, or None if it is absent or damaged."""
    try:
      # Opened here, since numpy leaves a damaged file open.
      with (self.path / f"{name}.npz").open("rb") as raw, np.load(raw) as file:
        return dict(file)
    except (*cache.UNREADABLE, TypeError):  # TypeError: a single array
      return None

  @_if_writing
  def rewind(self, epoch: int, digest: str = "") -> None:
    """Drops the lines of `metrics.jsonl` from `epoch` (counted from 0) on: the run will write them again.

    Lines before it that are lost or damaged cannot be restored: they are named in a warning.

    Args:
      epoch: number of finished epochs.
      digest: of their lines when the run was saved, from `metrics_digest`; empty if it is not known.
    """
    kept = self._metrics_lines(epoch)
    lost = [number for number in range(1, epoch + 1) if number not in kept]
    text = "".join(kept.values())
    if lost:
      missing = ", ".join(map(str, lost))
      logging.warning("%s/metrics.jsonl lost the lines of epochs %s, which cannot be restored", self.path, missing)
    elif digest and _sha256(text) != digest:
      logging.warning("%s/metrics.jsonl was changed after the run had written it", self.path)
    if epoch or (self.path / "metrics.jsonl").exists():
      _write(self.path / "metrics.jsonl", text)
    self._events = SummaryWriter(str(self.path), purge_step=epoch + 1)

  def metrics_digest(self, epoch: int) -> str:
    """Returns 64 hexadecimal digits that change with the lines of the first `epoch` epochs."""
    return _sha256("".join(self._metrics_lines(epoch).values()))

  def _metrics_lines(self, epoch: int) -> dict[int, str]:
    """Returns the readable lines of the first `epoch` epochs by their number, counted from 1, in order."""
    try:
      raw = (self.path / "metrics.jsonl").read_bytes()
    except OSError:
      return {}
    found: dict[int, str] = {}
    for line in raw.split(b"\n"):
      with contextlib.suppress(ValueError, KeyError, TypeError):  # a torn line, or one that is not UTF-8
        text = line.decode()
        number = json.loads(text)["epoch"]
        if isinstance(number, int) and 1 <= number <= epoch:
          found.setdefault(number, text + "\n")
    return dict(sorted(found.items()))

  @_if_writing
  def write_epoch(self, metrics: dict[str, Any], visits: np.ndarray) -> None:
    """Adds a line to `metrics.jsonl`, and the same scalars and the histogram of `visits` to TensorBoard's events."""
    assert self._events is not None
    if not self.exists():
      raise FileNotFoundError(f"{self.path}/config.json is gone")
    with (self.path / "metrics.jsonl").open("a") as file:
      file.write(json.dumps(_finite(metrics)) + "\n")
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
    _write(self.path / "summary.json", json.dumps(_finite(summary), indent=2) + "\n")

  def read_summary(self) -> dict[str, Any] | None:
    """Returns the summary of a finished run; None without one, or if it is torn, since the run can write it again."""
    try:
      return json.loads((self.path / "summary.json").read_text())
    except (FileNotFoundError, ValueError):
      return None

  def close(self) -> None:
    """Closes the event file and releases the lock."""
    if self._events is not None:
      self._events.close()
    self._lock.release()
