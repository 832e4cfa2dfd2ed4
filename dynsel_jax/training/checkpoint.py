"""Saving a run and continuing it, through Orbax. Host-side.

A checkpoint holds the whole `RunState` and the host's position in the run; it is named by the number of optimizer
steps. Saving copies the arrays to the host and then writes in the background; an incomplete write is never read.
"""

import dataclasses
import os
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from dynsel_jax.training import parallel
from dynsel_jax.training.state import RunState

__all__ = ["Checkpoints", "Position", "latest_step", "read_model"]

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


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(self, directory: str):
    """Opens `directory`, and makes it if need be."""
    self._manager = ocp.CheckpointManager(
      os.path.abspath(directory),
      options=ocp.CheckpointManagerOptions(preservation_policy=preservation_policy.LatestN(KEPT)),
      item_names=("state", "position"),
    )

  def latest_step(self) -> int | None:
    """Returns the optimizer step of the newest complete checkpoint, or None."""
    return self._manager.latest_step()

  def save(self, state: RunState, position: Position) -> None:
    """Begins to save; `state` may be donated as soon as this returns. A saved step is not saved again."""
    if position.steps in self._manager.all_steps():
      return
    self._manager.save(
      position.steps,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(parallel.to_global(state)), position=ocp.args.JsonSave(dataclasses.asdict(position))
      ),
    )

  def restore(self, template: RunState, devices: parallel.Devices) -> tuple[RunState, Position]:
    """Returns the newest checkpoint, placed on `devices` like `template`, and the position saved with it."""
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, parallel.to_global(template))
    restored = self._manager.restore(
      self._manager.latest_step(),
      args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), position=ocp.args.JsonRestore()),
    )
    return parallel.to_local(restored["state"], devices), Position(**restored["position"])

  def close(self) -> None:
    """Waits until everything is on disk and releases the files."""
    self._manager.wait_until_finished()
    self._manager.close()


def _reader(directory: str) -> ocp.CheckpointManager:
  return ocp.CheckpointManager(os.path.abspath(directory), item_handlers={"state": ocp.PyTreeCheckpointHandler()})


def latest_step(directory: str) -> int | None:
  """Returns the optimizer step of the newest complete checkpoint in `directory`, or None."""
  with _reader(directory) as manager:
    return manager.latest_step()


def read_model(directory: str) -> dict[str, Any]:
  """Returns the model's variables, "params" and "batch_stats", from the newest checkpoint in `directory`.

  Only these are read: neither the selector nor the number of devices of that run matters.
  """
  placed = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

  def like(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed)

  with _reader(directory) as manager:
    step = manager.latest_step()
    held = manager.item_metadata(step)["state"].tree["train"]
    wanted = {"train": jax.tree.map(like, {name: held[name] for name in ("params", "batch_stats")})}
    restore = ocp.args.PyTreeRestore(
      item=wanted, partial_restore=True, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted)
    )
    return manager.restore(step, args=ocp.args.Composite(state=restore))["state"]["train"]
