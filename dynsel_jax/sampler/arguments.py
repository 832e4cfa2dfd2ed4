"""Checks what a `Sampler` is built from. Host-side."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from dynsel_jax import hashing
from dynsel_jax.options import UserError, check_at_least, check_positive, check_seed
from dynsel_jax.types import SampleTable

__all__ = ["check_numbers", "check_rank", "digest", "sample_table", "wrappers"]


def check_numbers(num_samples: int, epochs: int, batch_size: int, seed: int) -> None:
  """Raises `UserError` if a count is below 1, or the seed is none."""
  for name, value in (("num_samples", num_samples), ("epochs", epochs), ("batch_size", batch_size)):
    check_at_least(name, value, 1)
  check_seed("seed", seed)


def wrappers(wrap: Sequence[str] | Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
  """Returns the options of each wrapper by its name, the innermost first.

  Raises:
    UserError: one is named twice.
  """
  named = dict(wrap) if isinstance(wrap, Mapping) else {name: {} for name in wrap}
  if len(named) < len(wrap):
    raise UserError(f"wrap={list(wrap)} names a wrapper twice")
  return named


def check_rank(rank: int, world_size: int, batch_size: int) -> None:
  """Raises `UserError` if the rank is none of the world's, or a batch does not divide among them."""
  check_positive("world_size", world_size)
  if not 0 <= rank < world_size:
    raise UserError(f"rank={rank} must lie in [0, world_size={world_size})")
  if batch_size % world_size:
    raise UserError(f"batch_size={batch_size} must be a multiple of world_size={world_size}")


def sample_table(num_samples: int, labels: Any, num_classes: int, columns: Mapping[str, Any]) -> SampleTable:
  """Returns the table of labels and columns.

  Raises:
    UserError: the labels are not `[N]` integers.
  """
  if labels is not None:
    labels = np.asarray(labels)
    if labels.shape != (num_samples,) or not np.issubdtype(labels.dtype, np.integer):
      raise UserError(
        f"labels has shape {labels.shape} and type {labels.dtype}; it must be num_samples={num_samples} integers"
      )
    num_classes = num_classes or int(labels.max()) + 1
    labels = jnp.asarray(labels, jnp.int32)
  return SampleTable(num_samples, labels, num_classes, {k: jnp.asarray(v, jnp.float32) for k, v in columns.items()})


def digest(table: SampleTable) -> str:
  """Returns 64 hexadecimal digits that change with any label, column or name of a column."""
  arrays = {} if table.labels is None else {"labels": table.labels}
  arrays |= {f"column {name}": column for name, column in table.columns.items()}
  return hashing.checksum({name: np.asarray(array) for name, array in arrays.items()})
