"""Devices and processes: places arrays, maps steps over devices, and compiles the programs that a run calls.

Steps are mapped with `jax.pmap(..., axis_name="batch")` over replicated arrays (`in_axes=None`); the only mapped
argument is each device's number. Arguments must be placed on the devices before the first call: otherwise the second
call compiles again, and over several processes donation deletes arrays that are still in use.
"""

import contextlib
import functools
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dynsel_jax.options import UserError
from dynsel_jax.training import evaluation, steps
from dynsel_jax.training.evaluation import Evaluation
from dynsel_jax.training.state import RunState, TrainState
from dynsel_jax.training.steps import AXIS, Arrays, Recipe

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
  "repeated",
  "to_global",
  "to_local",
]

# Between calls the host handles signals, checkpoints and non-finite losses, so a call must stay short; 32 steps are
# enough to hide the time of dispatching one.
STEPS_PER_CALL = 32


class Devices(NamedTuple):
  """The devices of this process, and the placement of arrays on them."""

  local: Sequence[Any]
  replicated: NamedSharding
  shared: NamedSharding  # split along the first axis
  replica: Array  # [local devices] int32, each device's number over all processes
  num_replicas: int  # devices over all processes

  def place(self, tree: Any) -> Any:
    """Copies a pytree to every local device. Both may use the same memory, so that donating one deletes the other."""
    return jax.device_put(tree, self.replicated)

  def share(self, tree: Any) -> Any:
    """Splits rows of numpy arrays evenly over the local devices: `[devices, rows / devices, ...]`."""
    split = jax.tree.map(lambda rows: rows.reshape(len(self.local), -1, *rows.shape[1:]), tree)
    return jax.device_put(split, self.shared)

  def build(self, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a pure `function`; its results are on every local device, in buffers of their own."""
    return jax.jit(function, out_shardings=self.replicated)(*arguments)

  def copy(self, tree: Any) -> Any:
    """Copies a pytree to every local device, into buffers of its own."""
    # As a list: a train state's structure holds the run's own functions, and a program would be kept for each run.
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, self.build(_copy, leaves))


def _copy(leaves: list[Array]) -> list[Array]:
  return list(map(jnp.copy, leaves))


def local_devices(devices: Sequence[Any] | None = None) -> Devices:
  """Describes `devices`, by default all of this process; with several processes they must be all."""
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
  """The compiled programs of a run. A call takes `count` steps from `step` on, at most `steps_per_call`."""

  steps_per_call: int
  plan: Callable[[RunState, Arrays, int], tuple[RunState, dict[str, Array]]]
  train: Callable[[RunState, Arrays, int, int, int], RunState]
  train_thinned: Callable[[RunState, Arrays, int, int, int], RunState]
  refresh: Callable[[RunState, Arrays, int], RunState]
  score: Callable[[RunState, Arrays, int, int, int], RunState]
  evaluate: Callable[[Evaluation, TrainState, Arrays, int, int], Evaluation]


def repeated(first: Array, count: Array, body: Callable[..., Any], carry: Any) -> Any:
  """Applies `body(step, carry)` to `count` steps from `first` on, both `[]` int32, on the device."""
  return jax.lax.fori_loop(first, first + count, body, carry)


def _several(one: Callable[..., Any], last: Callable[[Any], Any], recipe: Recipe, carry: Any, *rest: Any) -> Any:
  *arguments, first, count, replica = rest
  carry = repeated(
    first, count, lambda step, value: one(recipe, value, *arguments, step.astype(jnp.int32), replica), carry
  )
  return last(carry)


def _single(one: Callable[..., Any], last: Callable[[Any], Any], *arguments: Any) -> Any:
  return last(one(*arguments))


def _mapped(recipe: Recipe, devices: Devices, function: Callable[..., Any], axes: tuple[Any, ...]) -> Any:
  """Maps `function(recipe, carry, *arguments, replica)` over the devices; `axes` are those of carry and arguments."""
  of_run = functools.partial(function, recipe)
  program = jax.pmap(
    of_run,
    axis_name=AXIS,
    in_axes=(*axes, 0),
    out_axes=None,
    donate_argnums=(0,),
    devices=devices.local if jax.process_count() == 1 else None,
  )
  weakref.finalize(program, _forget, of_run).atexit = False
  return program


def create_programs(
  recipe: Recipe,
  devices: Devices,
  *,
  looped: bool | None = None,
  streamed: bool = False,
  thinned: Callable[..., RunState] = steps.train_thinned,
) -> Programs:
  """Maps the steps of a run over the devices.

  Args:
    recipe: the static side of the run.
    devices: from `local_devices`.
    looped: whether a call runs several steps in a loop on the device. By default only on accelerators. On CPU each call
      is one step and is awaited: XLA runs convolutions inside a loop many times slower there, and its collectives may
      deadlock when calls are not awaited.
    streamed: whether the data sets in `Arrays` are the rows of one step, split over the devices (`Devices.share`), so
      that no loop can run on the device.
    thinned: the step of `train_thinned`, which `steps.watch` may replace.
  """
  on_cpu = devices.local[0].platform == "cpu"
  looped = not (on_cpu or streamed) if looped is None else looped
  axes_of_arrays = Arrays(0, 0, None, None) if streamed else None  # type: ignore[arg-type]

  def awaited(result: Any) -> Any:
    return jax.block_until_ready(result) if on_cpu else result

  mapped = functools.partial(_mapped, recipe, devices)

  def stepping(one: Callable[..., Any], *axes: Any, last: Callable[[Any], Any] = lambda carry: carry) -> Any:
    """Maps a step `one(recipe, carry, *arguments, step, replica)`, and `last(carry)` at the end of each call.

    The result takes `step, count` at the end.
    """

    taking = functools.partial(_several if looped else _single, one, last)
    program = mapped(taking, (*axes, None) if looped else axes)

    def call(carry: Any, *rest: Any) -> Any:
      *arguments, step, count = rest
      numbers = (np.int32(step), np.int32(count)) if looped else (np.int32(step),)
      return awaited(program(carry, *_as_int32(arguments), *numbers, devices.replica))

    return call

  plan, refresh = (mapped(function, (None, axes_of_arrays, None)) for function in (steps.plan, steps.refresh))
  return Programs(
    steps_per_call=STEPS_PER_CALL if looped else 1,
    plan=lambda run, arrays, epoch: awaited(plan(run, arrays, np.int32(epoch), devices.replica)),
    train=stepping(steps.train, None, axes_of_arrays, None, None, last=steps.checked),
    train_thinned=stepping(thinned, None, axes_of_arrays, None, None, last=steps.checked),
    refresh=lambda run, arrays, epoch: awaited(refresh(run, arrays, np.int32(epoch), devices.replica)),
    score=stepping(steps.score, None, axes_of_arrays, None, None),
    evaluate=stepping(evaluation.evaluate, None, None, axes_of_arrays, None),
  )


def _forget(function: Callable[..., Any]) -> None:
  """Drops what `jax.pmap` has compiled of a function, once nobody can call the mapped function any more.

  `jax.pmap` (0.10) keeps it under a weak reference to the function, but refers to the function from there, so that all
  programs of a process and the constants in them would stay until its end. JAX has no public way to drop one function;
  in a version without this one they stay.
  """
  evict = getattr(getattr(sys.modules.get("jax._src.pmap"), "_cached_shard_map", None), "evict_function", None)
  if evict is not None:
    evict(function)


def _as_int32(arguments: Sequence[Any]) -> list[Any]:
  return [np.int32(a) if isinstance(a, int) else a for a in arguments]


def fetch(tree: Any) -> Any:
  """Returns the pytree as numpy arrays."""
  return jax.tree.map(np.asarray, jax.device_get(tree))


def to_global(tree: Any) -> Any:
  """Turns replicated arrays of this process into global ones, as a checkpoint over several processes needs them."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.host_local_array_to_global_array(tree, _global_mesh(), PartitionSpec())


def to_local(tree: Any, devices: Devices) -> Any:
  """Inverts `to_global`, into buffers of its own."""
  if jax.process_count() == 1:
    return tree
  local = multihost_utils.global_array_to_host_local_array(tree, _global_mesh(), PartitionSpec())
  return devices.place(fetch(local))


def _global_mesh() -> Mesh:
  return Mesh(np.array(jax.devices()), (AXIS,))


def is_first_process() -> bool:
  """Whether this process is the one that writes files and prints."""
  return jax.process_index() == 0


def any_process(flag: bool) -> bool:
  """Whether `flag` is true on any process. Every process must call it."""
  return bool(any_of_processes(np.array(flag)))


def any_of_processes(flags: np.ndarray) -> np.ndarray:
  """Combines boolean arrays over the processes by a logical or. Every process must call it."""
  if jax.process_count() == 1:
    return flags
  return np.any(multihost_utils.process_allgather(flags.astype(np.int8)), axis=0)


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
  """Runs the block on the first process before the others, which then find its results in the cache."""
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
  """Raises `UserError` on every process if `digest`, hexadecimal digits of `what`, differs between processes."""
  if jax.process_count() == 1:
    return
  all_of_them = multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(digest), np.uint8))
  differing = np.flatnonzero((all_of_them != all_of_them[0]).any(axis=1))
  if differing.size:
    raise UserError(
      f"process {differing[0]} of {jax.process_count()} was started with a different {what} from process 0"
    )
