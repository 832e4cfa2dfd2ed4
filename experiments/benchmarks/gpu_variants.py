"""Variants of the training step that the benchmark `gpu` compares: what XLA is told, and parts done in another way.

Nothing here is offered to a run. A variant that pays is adopted in the code, and then leaves this file.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
from jax import Array

from dynsel_jax.data import gather
from dynsel_jax.models import normalization
from dynsel_jax.training import parallel, steps

__all__ = ["VARIANTS", "Variant", "patched"]


class Variant(NamedTuple):
  """What differs from the step as a run takes it."""

  flags: str = ""  # added to XLA_FLAGS
  changes: tuple[Callable[[], Any], ...] = ()  # each returns a context in which a part is replaced


def _fixed_loop(first: Array, count: Array, body: Callable[..., Any], carry: Any) -> Any:
  """As `repeated`, with a number of steps that the compiler knows."""
  del count
  return jax.lax.fori_loop(0, parallel.STEPS_PER_CALL, lambda number, value: body(first + number, value), carry)


def _derived() -> Any:
  return mock.patch.object(normalization, "WRITTEN_OUT", ())


def _unchecked() -> Any:
  return mock.patch.object(steps, "checked", lambda run: run)


def _no_usage() -> Any:
  return mock.patch.object(steps, "record_usage", lambda usage, signals: usage)


def _no_augmentation() -> Any:
  return mock.patch.dict(gather.AUGMENTATIONS, {name: lambda keys, inputs: inputs for name in gather.AUGMENTATIONS})


def _fixed() -> Any:
  return mock.patch.object(parallel, "repeated", _fixed_loop)


VARIANTS: dict[str, Variant] = {
  "derived_normalization": Variant(changes=(_derived,)),
  "fixed_loop": Variant(changes=(_fixed,)),
  "fixed_concurrent": Variant("--xla_gpu_command_buffer_scheduling_mode=CONCURRENT", (_fixed,)),
  "concurrent": Variant("--xla_gpu_command_buffer_scheduling_mode=CONCURRENT"),
  "no_graphs": Variant("--xla_gpu_enable_command_buffer="),
  "unchecked": Variant(changes=(_unchecked,)),
  "no_augmentation": Variant(changes=(_no_augmentation,)),
  "no_usage": Variant(changes=(_no_usage,)),
}


@contextlib.contextmanager
def patched(name: str) -> Iterator[None]:
  """Replaces the parts of a variant; the name "" replaces none."""
  with contextlib.ExitStack() as stack:
    for change in VARIANTS[name].changes if name else ():
      stack.enter_context(change())
    yield
