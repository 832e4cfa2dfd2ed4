"""Every call that knows of devices and processes: placing, mapping, and the programs that a run calls.

The train state is mapped with `jax.pmap(..., axis_name="batch")` over replicated arrays (`in_axes=None`); the only
mapped argument is each device's number. What is mapped must be placed first: otherwise the second call compiles again,
and over several processes donation deletes arrays that are still in use.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dynsel_jax.data import Dataset
from dynsel_jax.options import UserError
from dynsel_jax.training.state import RunState, TrainState
from dynsel_jax.training.steps import AXIS, Evaluation, Fixed, Steps

__all__ = [
  "Devices",
  "Programs",
  "any_of_processes",
  "any_process",
  "check_same_on_every_process",
  "create_programs",
  "fetch",
  "first_process_first",
  "is_first_process",
  "local_devices",
  "to_global",
  "to_local",
]

# Steps of one call where several run in a call. Between calls the host looks at signals, checkpoints and non-finite
# losses, so a call must stay short; 32 steps hide the dispatch of each.
STEPS_PER_CALL = 32


class Devices(NamedTuple):
  """This process's devices and where arrays are placed on them."""

  local: Sequence[Any]
  replicated: NamedSharding
  shared: NamedSharding  # along the first axis
  replica: Array  # [local devices] int32, each device's number over all processes
  num_replicas: int  # devices over all processes

  def place(self, tree: Any) -> Any:
    """Puts a pytree on every local device. The result may share memory with it, so donating one takes the other."""
    return jax.device_put(tree, self.replicated)

  def share(self, tree: Any) -> Any:
    """Puts rows of numpy arrays on the local devices, to each an equal part: `[devices, rows / devices, ...]`."""
    split = jax.tree.map(lambda rows: rows.reshape(len(self.local), -1, *rows.shape[1:]), tree)
    return jax.device_put(split, self.shared)

  def build(self, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a pure `function` and leaves its results on every local device, in memory of their own."""
    return jax.jit(function, out_shardings=self.replicated)(*arguments)

  def copy(self, tree: Any) -> Any:
    """Returns a copy on every local device, in memory of its own."""
    return self.build(_copied, tree)


def _copied(tree: Any) -> Any:
  return jax.tree.map(jnp.copy, tree)


def local_devices(devices: Sequence[Any] | None = None) -> Devices:
  """Describes `devices`, by default all that this process has; with several processes it must be all."""
  devices = list(jax.local_devices() if devices is None else devices)
  mesh = Mesh(np.array(devices), (AXIS,))
  first = jax.process_index() * len(devices)
  numbers = np.arange(first, first + len(devices), dtype=np.int32)
  shared = NamedSharding(mesh, PartitionSpec(AXIS))
  return Devices(
    local=devices,
    replicated=NamedSharding(mesh, PartitionSpec()),
    shared=shared,
    replica=jax.device_put(numbers, shared),
    num_replicas=jax.process_count() * len(devices),
  )


class Programs(NamedTuple):
  """The compiled programs of a run. A `count` of steps is taken from `step` on, at most `steps_per_call` in a call."""

  steps_per_call: int
  plan: Callable[[RunState, Fixed, int], tuple[RunState, dict[str, Array]]]
  train: Callable[[RunState, Fixed, int, int, int], RunState]
  train_thinned: Callable[[RunState, Fixed, int, int, int], RunState]
  refresh: Callable[[RunState, Fixed, int], RunState]
  score: Callable[[RunState, Fixed, int, int, int], RunState]
  evaluate: Callable[[Evaluation, TrainState, Fixed, int, int], Evaluation]


def create_programs(steps: Steps, devices: Devices, *, looped: bool | None = None, streamed: bool = False) -> Programs:
  """Maps the steps over the devices.

  Args:
    steps: from `steps.create`.
    devices: from `local_devices`.
    looped: whether one call runs several steps in a loop on the device. The default is to do so on accelerators only:
      on CPU, XLA runs convolutions inside a loop many times slower, and its collectives may deadlock when
      calls are not awaited, so that there each call is one step and is awaited.
    streamed: whether the inputs in `Fixed` are one step's, shared among the devices (`Devices.share`), and no loop can
      be on the device.
  """
  on_cpu = devices.local[0].platform == "cpu"
  looped = not (on_cpu or streamed) if looped is None else looped
  fixed_axes = Fixed(Dataset(0, None), Dataset(0, None), None) if streamed else None  # type: ignore[arg-type]

  def awaited(result: Any) -> Any:
    return jax.block_until_ready(result) if on_cpu else result

  def mapped(function: Callable[..., Any], axes: tuple[Any, ...]) -> Callable[..., Any]:
    return jax.pmap(
      function,
      axis_name=AXIS,
      in_axes=(*axes, 0),
      out_axes=None,
      donate_argnums=(0,),
      devices=devices.local if jax.process_count() == 1 else None,
    )

  def stepping(one: Callable[..., Any], *axes: Any) -> Callable[..., Any]:
    """Maps a step `one(carry, *arguments, step, replica)`; the returned function takes `step, count` at the end."""

    def several(carry: Any, *rest: Any) -> Any:
      *arguments, first, count, replica = rest
      return jax.lax.fori_loop(
        first, first + count, lambda step, value: one(value, *arguments, step.astype(jnp.int32), replica), carry
      )

    program = mapped(several, (*axes, None)) if looped else mapped(one, axes)

    def call(carry: Any, *rest: Any) -> Any:
      *arguments, step, count = rest
      numbers = (np.int32(step), np.int32(count)) if looped else (np.int32(step),)
      return awaited(program(carry, *_as_int32(arguments), *numbers, devices.replica))

    return call

  plan, refresh = (mapped(function, (None, fixed_axes, None)) for function in (steps.plan, steps.refresh))
  return Programs(
    steps_per_call=STEPS_PER_CALL if looped else 1,
    plan=lambda run, fixed, epoch: awaited(plan(run, fixed, np.int32(epoch), devices.replica)),
    train=stepping(steps.train, None, fixed_axes, None, None),
    train_thinned=stepping(steps.train_thinned, None, fixed_axes, None, None),
    refresh=lambda run, fixed, epoch: awaited(refresh(run, fixed, np.int32(epoch), devices.replica)),
    score=stepping(steps.score, None, fixed_axes, None, None),
    evaluate=stepping(steps.evaluate, None, None, fixed_axes, None),
  )


def _as_int32(arguments: Sequence[Any]) -> list[Any]:
  return [np.int32(a) if isinstance(a, int) else a for a in arguments]


def fetch(tree: Any) -> Any:
  """Returns the pytree as numpy arrays."""
  return jax.tree.map(np.asarray, jax.device_get(tree))


def to_global(tree: Any) -> Any:
  """Makes replicated arrays of this process global ones, as a checkpoint over several processes needs."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.host_local_array_to_global_array(tree, _global_mesh(), PartitionSpec())


def to_local(tree: Any, devices: Devices) -> Any:
  """Takes back what `to_global` did, into memory of its own."""
  if jax.process_count() == 1:
    return tree
  local = multihost_utils.global_array_to_host_local_array(tree, _global_mesh(), PartitionSpec())
  return devices.place(fetch(local))


def _global_mesh() -> Mesh:
  return Mesh(np.array(jax.devices()), (AXIS,))


def is_first_process() -> bool:
  """Whether this process is the one that writes files and speaks."""
  return jax.process_index() == 0


def any_process(flag: bool) -> bool:
  """Whether `flag` is true on any process. Every process must ask."""
  return bool(any_of_processes(np.array(flag)))


def any_of_processes(flags: np.ndarray) -> np.ndarray:
  """Returns which of an array of bool are true on any process. Every process must ask."""
  if jax.process_count() == 1:
    return flags
  return np.any(multihost_utils.process_allgather(flags.astype(np.int8)), axis=0)


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
  """Lets the first process through before the others, which then find what it has put into a cache."""
  if not is_first_process():
    _meet()
  try:
    yield
  finally:
    if is_first_process():
      _meet()


def _meet() -> None:
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices("dynsel_jax")


def check_same_on_every_process(digest: str, what: str) -> None:
  """Raises `UserError` on every process if `digest`, hexadecimal digits of `what`, is not the same on all of them."""
  if jax.process_count() == 1:
    return
  all_of_them = multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(digest), np.uint8))
  differing = np.flatnonzero((all_of_them != all_of_them[0]).any(axis=1))
  if differing.size:
    raise UserError(f"process {differing[0]} of {jax.process_count()} was started with another {what} than process 0")
