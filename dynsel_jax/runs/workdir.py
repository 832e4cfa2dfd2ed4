"""The folder of a run and its files: the contract that reports and people rely on. Host-side input and output.

`config.json`, `columns.npz`, `firings.npz`, `metrics.jsonl`, `summary.json`, `usage.npz`, `noise.npz`, `tokenizer.json`
and TensorBoard event files. `training.checkpoint` writes the folder `checkpoints`; `.lock` names the process that
writes.
"""

import functools
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from tensorboardX import SummaryWriter

from dynsel_jax import cache, hashing, options
from dynsel_jax.runs import files, metrics_file
from dynsel_jax.runs.lock import Lock

__all__ = ["Workdir", "check_writable", "identity", "provenance"]

# A run continues only if these are the same; the last is of runs with weights that are not trained.
IDENTITY = ("config", "data_fingerprint", "columns_fingerprint", "frozen_fingerprint")
FIRINGS = ("latents", "frequency", "common")  # arrays of `firings.npz`
_FILES = (
  "config.json",
  "metrics.jsonl",
  "summary.json",
  "tokenizer.json",
  ".lock",
  *(f"{n}.npz" for n in ("usage", "columns", "firings", "noise")),
)
_BELOW = 400  # bytes that the paths of files below a run's folder are longer than its own, at most
_FOLDERS = ("checkpoints", "damaged_checkpoints")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy", "ml_collections")


def check_writable(workdir: str) -> None:
  """Raises `UserError`, and makes nothing, if `workdir` cannot be made or written."""
  if not workdir.strip():  # a shell's variable that is not set; "" would be the current folder
    raise options.UserError(f"workdir={workdir!r} must name a folder")
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
  _check_contents(path)
  most = os.pathconf(existing, "PC_PATH_MAX") - _BELOW
  if (length := len(os.fsencode(path))) > most:
    raise options.UserError(f"workdir={workdir[:20]!r}... has {length:,} bytes; a run's path may have {most:,}")
  longest = os.pathconf(existing, "PC_NAME_MAX")
  for part in path.relative_to(existing).parts:
    if len(os.fsencode(part)) > longest:
      raise options.UserError(
        f"workdir={workdir} cannot be made: {part[:20]!r}... is longer than the {longest} bytes that a name may have"
      )


def _check_contents(path: pathlib.Path) -> None:
  """Raises `UserError` if a folder lies where a run keeps a file, or the other way round."""
  for names, right, kind in ((_FILES, os.path.isfile, "file"), (_FOLDERS, os.path.isdir, "folder")):
    for name in names:
      if os.path.lexists(path / name) and not right(path / name):
        raise options.UserError(f"{path / name} is not a {kind}, but a run writes a {kind} of that name: move it away")


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
    "machine": {"name": hashing.digest({"node": platform.node()})[:8], "cores": _usable_cores()},
    "versions": {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}},
  }


def _usable_cores() -> int:
  """Returns the number of cores that this process may use; a sweep gives each of its processes a part of them."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def identity(made: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the parts of `provenance` that must be the same for a run to continue, as JSON gives them back; loggers may
  come and go."""
  held = json.loads(json.dumps({name: made[name] for name in made if name in IDENTITY}))
  if isinstance(held.get("config"), dict):
    held["config"].pop("loggers", None)  # they change nothing in a run
  return held


def _if_writing(method: Callable[..., Any]) -> Callable[..., Any]:
  """Makes a method do nothing and return None in a process that does not write."""

  @functools.wraps(method)
  def guarded(self: "Workdir", *arguments: Any) -> Any:
    return method(self, *arguments) if self.writes else None

  return guarded


def _digests(held: Mapping[str, Any] | None) -> dict[str, str | None]:
  """Returns the digests of a run's array files by name; None for each in an earlier version, which had names alone."""
  arrays = {} if held is None else held.get("arrays", ())
  return dict(arrays) if isinstance(arrays, dict) else dict.fromkeys(arrays)


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
      saved: the same as the checkpoints have it. With it a damaged `config.json` is no obstacle: `begin` replaces it.
    """
    new = identity(made)
    if saved is not None:
      self._compare(saved, new)
    held, intact = self._read_config()
    if (held is None and intact) or (not intact and saved is not None):
      return
    old = identity({name: held[name] for name in new if name in held}) if held is not None else {}
    if old.keys() != new.keys() or (not intact and old != new):
      raise options.UserError(
        f"workdir={self.path} contains a config.json that is damaged, or that dynsel_jax did not write; if the folder"
        " is this run's, delete the file"
      )
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

    A file that is lost or damaged is written again.

    Args:
      made: `provenance`, the `seconds` of everything before the first step, and further fields that describe the run.
      arrays: arrays of each file by its name, for example "columns" of the `SampleTable`; with them the run can
        continue on any machine. A file without arrays is not written.

    Returns:
      The `seconds` that the first part of the run wrote; None if this is the first, or the process does not write.

    Raises:
      UserError: arrays are lost and were made again with another content.
    """
    self.path.mkdir(parents=True, exist_ok=True)
    held, intact = self._read_config()
    digests = {name: hashing.checksum(one) for name, one in arrays.items() if one}
    for name, digest in digests.items():
      known = _digests(held).get(name) if held is not None and intact else None
      found = files.read_arrays(self.path / f"{name}.npz")
      if known not in (None, digest):
        raise options.UserError(
          f"workdir={self.path}: {name}.npz is lost or damaged and was made again with another content, since the data"
          " or the code has changed; begin the run in another folder"
        )
      if found is None or hashing.checksum(found) != digest:
        if held is not None:
          logging.warning("%s/%s.npz is lost or damaged and is written again", self.path, name)
        files.write_arrays(self.path / f"{name}.npz", arrays[name])
    if held is not None and intact:
      return held.get("seconds")
    if not intact:
      logging.warning("%s/config.json is damaged and is written again", self.path)
    files.write_json(self.path / "config.json", {**made, "arrays": digests})
    return None

  def read_columns(self) -> cache.Arrays | None:
    """Returns the columns that the run began with, or None if there are none or they are damaged."""
    columns, (held, intact) = files.read_arrays(self.path / "columns.npz"), self._read_config()
    if columns is None or held is None or not intact:
      return None
    return columns if hashing.checksum(columns) == held.get("columns_fingerprint") else None

  def read_firings(self) -> cache.Arrays | None:
    """Returns the firings of factors that the run began with, {} if it has none; None if they are lost or damaged."""
    held, intact = self._read_config()
    if held is None or not intact:
      return None
    digests = _digests(held)
    if "firings" not in digests:
      return {}
    firings = files.read_arrays(self.path / "firings.npz")
    if firings is None or firings.keys() != set(FIRINGS):
      return None
    return firings if digests["firings"] in (None, hashing.checksum(firings)) else None

  def _read_config(self) -> tuple[dict[str, Any] | None, bool]:
    """Returns the fields of `config.json`, or None, and whether the file is intact; one that is absent counts so.

    Fields of a file that is not intact are given as far as they can be read.
    """
    path = self.path / "config.json"
    try:
      return files.read_json(path), True
    except ValueError:
      pass
    try:
      held = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
      return None, False
    return (held if isinstance(held, dict) else None), False

  @_if_writing
  def rewind(self, epoch: int, lines: Sequence[str] = ()) -> None:
    """Drops the lines of `metrics.jsonl` from `epoch` (counted from 0) on: the run will write them again.

    Args:
      epoch: number of finished epochs.
      lines: theirs, as the checkpoint has them, see `metrics_file.restore`.
    """
    self.restore_metrics(epoch, lines)
    self._events = SummaryWriter(str(self.path), purge_step=epoch + 1)

  @_if_writing
  def restore_metrics(self, epoch: int, lines: Sequence[str]) -> None:
    """Makes `metrics.jsonl` hold the `lines` of the first `epoch` epochs, see `metrics_file.restore`."""
    metrics_file.restore(self.path / "metrics.jsonl", epoch, lines)

  @_if_writing
  def write_epoch(self, metrics: dict[str, Any], visits: np.ndarray) -> None:
    """Adds a line to `metrics.jsonl`, and the same scalars and the histogram of `visits` to TensorBoard's events."""
    assert self._events is not None
    if not self.exists():
      raise FileNotFoundError(f"{self.path}/config.json is gone")
    metrics_file.append(self.path / "metrics.jsonl", metrics_file.line(metrics))
    for name, value in options.flatten(metrics).items():
      if isinstance(value, int | float):
        self._events.add_scalar(name.replace(".", "/"), value, metrics["epoch"])
    self._events.add_histogram("usage/visits", visits, metrics["epoch"])
    self._events.flush()

  @_if_writing
  def write_usage(self, visits: np.ndarray, last_loss: np.ndarray) -> None:
    """Writes `usage.npz`: `visits` [N] int32 and `last_loss` [N] float32."""
    files.write_arrays(self.path / "usage.npz", {"visits": visits, "last_loss": last_loss})

  @_if_writing
  def restore_usage(self, visits: np.ndarray, last_loss: np.ndarray) -> None:
    """Writes `usage.npz` of a finished run again if it is lost or damaged."""
    held = files.read_arrays(self.path / "usage.npz")
    if held is None or hashing.checksum(held) != hashing.checksum({"visits": visits, "last_loss": last_loss}):
      logging.warning("%s/usage.npz is lost or damaged and is written again", self.path)
      self.write_usage(visits, last_loss)

  @_if_writing
  def write_noise(self, labels: np.ndarray, true_labels: np.ndarray) -> None:
    """Writes `noise.npz`: `noisy` [N] bool, which training labels are wrong, and `true_labels` [N] int32."""
    files.write_arrays(self.path / "noise.npz", {"noisy": labels != true_labels, "true_labels": true_labels})

  @_if_writing
  def write_tokenizer(self, text: str) -> None:
    """Writes `tokenizer.json`, which turns texts into what the model was trained on."""
    files.write_text(self.path / "tokenizer.json", text)

  @_if_writing
  def write_summary(self, summary: dict[str, Any]) -> None:
    """Writes `summary.json`."""
    files.write_json(self.path / "summary.json", summary)

  def read_summary(self) -> dict[str, Any] | None:
    """Returns the summary of a finished run; None if it has none or a damaged one, which the run can write again."""
    try:
      return files.read_json(self.path / "summary.json")
    except ValueError:
      logging.warning("%s/summary.json is damaged; the same command writes it again", self.path)
      return None

  def close(self) -> None:
    """Closes the event file and releases the lock."""
    if self._events is not None:
      self._events.close()
    self._lock.release()
