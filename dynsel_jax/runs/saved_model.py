"""Reads the model out of a run's folder, without the rest of the run. Host-side.

`training.checkpoint` writes the checkpoints.
"""

import json
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from dynsel_jax import hashing
from dynsel_jax.options import UserError, printable

__all__ = ["checked", "digest", "latest_step", "model_section", "read_model"]


def digest(tree: Any) -> str:
  """Returns the digest of a tree of NumPy arrays, as seals hold it."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return hashing.checksum({jax.tree_util.keystr(path): leaf for path, leaf in leaves})


def checked(seal: dict[str, Any]) -> dict[str, Any]:
  """Returns the seal of a checkpoint; raises `ValueError` if it does not match its own digest."""
  if seal.get("seal") != hashing.digest({name: value for name, value in seal.items() if name != "seal"}):
    raise ValueError("its seal does not match its digest")
  return seal


def model_section(workdir: pathlib.Path, where: str) -> dict[str, Any]:
  """Returns the section `model` of the config of the run in `workdir`.

  Raises:
    UserError: the folder holds no run; the message begins with `where`, the field and its value.
  """
  try:
    section = json.loads((workdir / "config.json").read_text())["config"]["model"]
    return {**section, "name": section["name"]}
  except (OSError, ValueError, KeyError, TypeError):
    raise UserError(f"{where} is not the workdir of a run: it has no config.json that dynsel_jax wrote") from None


def latest_step(directory: str) -> int | None:
  """Returns the optimizer step of the newest complete checkpoint in `directory`, or None."""
  with _reader(directory) as manager:
    return manager.latest_step()


def read_model(directory: str) -> dict[str, Any]:
  """Returns the model's variables, "params" and "batch_stats", from the newest checkpoint in `directory`.

  Only these are read: neither the selector nor the number of devices of that run matters.

  Raises:
    UserError: there is no checkpoint, or the newest one cannot be read or does not match the seal beside it. A
      checkpoint of an earlier version, whose seal has no digest of the model alone, is taken as it is read.
  """
  if not pathlib.Path(directory).is_dir() or (step := latest_step(directory)) is None:
    raise UserError(f"{directory} holds no checkpoint; the command of the run makes one")
  try:
    return _read(directory, step)
  except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged checkpoint
    reason = printable(" ".join(str(error).split()), 160) or type(error).__name__
    raise UserError(
      f"{directory}: the checkpoint of step {step} is damaged ({reason}); run its command again"
    ) from None


def _read(directory: str, step: int) -> dict[str, Any]:
  """Reads the model of one checkpoint; raises some exception if it is damaged."""
  placed = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

  def like(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed)

  with _reader(directory) as manager:
    held = manager.item_metadata(step)["state"].tree["train"]
    wanted = {"train": jax.tree.map(like, {name: held[name] for name in ("params", "batch_stats")})}
    restore = ocp.args.PyTreeRestore(
      item=wanted, partial_restore=True, restore_args=ocp.checkpoint_utils.construct_restore_args(wanted)
    )
    variables = manager.restore(step, args=ocp.args.Composite(state=restore))["state"]["train"]
  path = pathlib.Path(directory, str(step), "seal", "metadata")
  seal = checked(json.loads(path.read_text())) if path.exists() else {}
  if seal.get("model") not in (None, digest(jax.device_get(variables))):
    raise ValueError("the model does not match its digest")
  return variables


def _reader(directory: str) -> ocp.CheckpointManager:
  others = {name: ocp.JsonCheckpointHandler() for name in ("position", "seal")}  # Orbax warns of items without one
  return ocp.CheckpointManager(
    pathlib.Path(directory).absolute(), item_handlers={"state": ocp.PyTreeCheckpointHandler(), **others}
  )
