"""Saving a run and continuing it, through Orbax. Host-side.

A checkpoint holds the whole `RunState` and the host's position in the run; it is named by the number of optimizer
steps. Saving copies the arrays to the host and then writes in the background; an incomplete write is never read.

Beside them lies a seal: digests of both, and the identity of the run. The arrays on disk carry no checksum of their
own, so without it a flipped byte would be trained on. A checkpoint that cannot be read, or does not match its seal, is
set aside in the folder `damaged_checkpoints`, and the one before it is restored.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from dynsel_jax import hashing
from dynsel_jax.options import UserError, printable
from dynsel_jax.runs import metrics_file, saved_model
from dynsel_jax.runs.interruption import Interrupted
from dynsel_jax.training import parallel
from dynsel_jax.training.state import RunState

__all__ = ["Checkpoints", "Position", "saved_identity"]

KEPT = 2  # the newest, and one before it


@dataclasses.dataclass
class Position:
  """The position of a run, and the counts of the host. Every field can be written as JSON."""

  epoch: int = 0  # epochs done
  step: int = 0  # steps done of the running epoch, whose plan is in the `RunState`
  steps: int = 0  # optimizer steps done in all
  forward_visits: int = 0  # of finished epochs
  backward_visits: int = 0  # of finished epochs
  non_finite_scores: int = 0
  best_metric: float | None = None  # of the finished epochs, in the direction of the task's metric
  monitors: dict[str, Any] = dataclasses.field(default_factory=dict)  # the state of each monitor by its name
  corrupt: dict[str, list[int]] = dataclasses.field(default_factory=dict)  # damaged samples of a streamed set
  resumed_from: list[int] = dataclasses.field(default_factory=list)  # optimizer steps
  info: dict[str, float | None] = dataclasses.field(default_factory=dict)  # of the selector, for the running epoch
  seconds: dict[str, float] = dataclasses.field(default_factory=dict)
  lines: list[str] = dataclasses.field(default_factory=list)  # of `metrics.jsonl`, one for each finished epoch


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(self, directory: str, identity: Mapping[str, Any]):
    """Opens `directory`, and makes it if need be; `identity` of the run, which JSON can hold, goes into every seal."""
    self._directory = pathlib.Path(directory).absolute()
    self._identity = identity
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(preservation_policy=preservation_policy.LatestN(KEPT)),
      item_names=("state", "position", "seal"),
    )

  def latest_step(self) -> int | None:
    """Returns the optimizer step of the newest complete checkpoint, or None."""
    return self._manager.latest_step()

  def save(self, state: RunState, position: Position) -> None:
    """Begins to save; `state` may be donated as soon as this returns. A saved step is not saved again."""
    if position.steps in self._manager.all_steps():
      return
    stood = dataclasses.asdict(position) | metrics_file.packed(position.lines)
    seal = _digests(parallel.fetch(state)) | {"position": hashing.digest(stood), "identity": self._identity}
    seal["seal"] = hashing.digest(seal)
    self._manager.save(
      position.steps,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(parallel.to_global(state)),
        position=ocp.args.JsonSave(stood),
        seal=ocp.args.JsonSave(seal),
      ),
    )

  def restore(self, template: RunState, devices: parallel.Devices) -> tuple[RunState, Position]:
    """Returns the newest intact checkpoint, placed on `devices` like `template`, and the position saved with it.

    Raises:
      UserError: every checkpoint is damaged.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    for step in steps:
      found, reason = None, ""
      try:
        found = self._read(step, template, devices)
      except (Interrupted, MemoryError):  # the checkpoint is not to blame
        raise
      except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged checkpoint
        reason = printable(" ".join(str(error).split()), 160) or type(error).__name__
      if not parallel.any_process(found is None):
        assert found is not None
        return found
      self._set_aside(step, reason or "another process cannot read it")
    raise UserError(
      f"all checkpoints in {self._directory} are damaged (steps {', '.join(map(str, sorted(steps)))}); they lie in"
      f" {self._aside} now, and the same command begins the run anew"
    )

  def _read(self, step: int, template: RunState, devices: parallel.Devices) -> tuple[RunState, Position]:
    """Restores one checkpoint; raises some exception if it is damaged."""
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, parallel.to_global(template))
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract), position=ocp.args.JsonRestore(), seal=ocp.args.JsonRestore()
      ),
    )
    state, seal = parallel.to_local(restored["state"], devices), saved_model.checked(restored["seal"])
    if seal["position"] != hashing.digest(restored["position"]) or not _matches(seal, parallel.fetch(state)):
      raise ValueError("its content does not match its digest")
    held = restored["position"] | {"lines": metrics_file.unpacked(restored["position"])}
    known = {field.name for field in dataclasses.fields(Position)}  # a version before may have had others
    return state, Position(**{name: value for name, value in held.items() if name in known})

  @property
  def _aside(self) -> pathlib.Path:
    return self._directory.with_name("damaged_checkpoints")

  def _set_aside(self, step: int, reason: str) -> None:
    """Moves a damaged checkpoint out of the way, where a person can look at it."""
    if parallel.is_first_process():
      self._aside.mkdir(exist_ok=True)
      moved = self._aside / str(step)
      number = 1
      while moved.exists():
        number += 1
        moved = self._aside / f"{step}.{number}"
      (self._directory / str(step)).rename(moved)
      logging.warning("the checkpoint of step %d is damaged (%s) and lies in %s now", step, reason, moved)
    parallel.any_process(False)  # no process goes on before it is moved
    self._manager.reload()

  def close(self) -> None:
    """Waits until everything is on disk and releases the files."""
    self._manager.wait_until_finished()
    self._manager.close()


def _digests(state: RunState) -> dict[str, Any]:
  """Returns the digests of a state of NumPy arrays: of the model, which may be read alone, and of the rest."""
  train = state.train
  model = {"params": train.params, "batch_stats": train.batch_stats}
  rest = state._replace(train=train.replace(params=None, batch_stats=None))
  return {"model": saved_model.digest(model), "rest": saved_model.digest(rest)}


def _matches(seal: Mapping[str, Any], state: RunState) -> bool:
  """Whether a state of NumPy arrays is the one that was sealed."""
  if "state" in seal:  # of an earlier version, which hashed the whole
    return bool(seal["state"] == saved_model.digest(state))
  return all(seal[name] == digest for name, digest in _digests(state).items())


def saved_identity(directory: str) -> dict[str, Any] | None:
  """Returns the identity of the run that the checkpoints in `directory` belong to; None if no seal is readable.

  Every process reads the file itself: nothing is opened by Orbax, which would make the folder.
  """
  for path in sorted(pathlib.Path(directory).glob("*/seal/metadata"), key=lambda p: p.parent.parent.name, reverse=True):
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
      return dict(saved_model.checked(json.loads(path.read_text()))["identity"])
  return None
