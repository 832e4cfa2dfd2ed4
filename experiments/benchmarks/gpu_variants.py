"""Variants of the training step that the benchmark `gpu` compares: what XLA is told, and parts done in another way.

Nothing here is offered to a run. A variant that pays is adopted in the code, and then leaves this file.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.data import gather
from dynsel_jax.models import normalization
from dynsel_jax.training import parallel, steps

__all__ = ["VARIANTS", "Variant", "patched"]


class Variant(NamedTuple):
  """What differs from the step as a run takes it."""

  flags: str = ""  # added to XLA_FLAGS
  changes: tuple[Callable[[], Any], ...] = ()  # each returns a context in which a part is replaced


def _masked_moments(x: Array, valid: Array, axis_name: str | None) -> tuple[Array, Array, Array]:
  """As `valid_moments`, reduced over samples and space at once, without the small matrix products."""
  del axis_name  # one device
  x, weight = x.astype(jnp.float32), valid.astype(jnp.float32)
  axes, mask = tuple(range(x.ndim - 1)), weight.reshape(-1, *(1,) * (x.ndim - 1))
  count = jnp.sum(weight)
  divisor = jnp.maximum(count, 1.0) * x[0, ..., 0].size
  mean = jnp.sum(x * mask, axes) / divisor
  return mean, jnp.maximum(jnp.sum(jnp.square(x) * mask, axes) / divisor - jnp.square(mean), 0.0), count


def _fixed_loop(first: Array, count: Array, body: Callable[..., Any], carry: Any) -> Any:
  """As `repeated`, with a number of steps that the compiler knows."""
  del count
  return jax.lax.fori_loop(0, parallel.STEPS_PER_CALL, lambda number, value: body(first + number, value), carry)


def _moments() -> Any:
  return mock.patch.object(normalization, "valid_moments", _masked_moments)


def _only_loss_checked() -> Any:
  return mock.patch.object(steps, "all_finite", lambda tree: jnp.isfinite(tree[0]))


def _no_usage() -> Any:
  return mock.patch.object(steps, "record_usage", lambda usage, signals: usage)


def _no_augmentation() -> Any:
  return mock.patch.dict(gather.AUGMENTATIONS, {name: lambda keys, inputs: inputs for name in gather.AUGMENTATIONS})


def _fixed() -> Any:
  return mock.patch.object(parallel, "repeated", _fixed_loop)


_GRAPHS = (
  "--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,WHILE,DYNAMIC_SLICE_FUSION"
  " --xla_gpu_graph_min_graph_size=1"
)
VARIANTS: dict[str, Variant] = {
  "code": Variant(changes=(_moments, _only_loss_checked, _no_usage, _fixed)),
  "moments": Variant(changes=(_moments,)),
  "only_loss_checked": Variant(changes=(_only_loss_checked,)),
  "graphs": Variant(_GRAPHS),
  "no_graphs": Variant("--xla_gpu_enable_command_buffer="),
  "fixed_loop": Variant(changes=(_fixed,)),
  "code_graphs": Variant(
    f"{_GRAPHS} --xla_gpu_command_buffer_unroll_loops=true", (_moments, _only_loss_checked, _no_usage, _fixed)
  ),
  "conv_fusion": Variant("--xla_gpu_experimental_enable_conv_fusion=true"),
  "no_augmentation": Variant(changes=(_no_augmentation,)),
  "no_usage": Variant(changes=(_no_usage,)),
  "concurrent": Variant("--xla_gpu_command_buffer_scheduling_mode=CONCURRENT"),
}


@contextlib.contextmanager
def patched(name: str) -> Iterator[None]:
  """Replaces the parts of a variant; the name "" replaces none."""
  with contextlib.ExitStack() as stack:
    for change in VARIANTS[name].changes if name else ():
      stack.enter_context(change())
    yield
