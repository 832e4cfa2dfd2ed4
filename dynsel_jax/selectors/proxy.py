"""Proxy: trains on the samples that a small network, trained before, found hardest in the same batches.

The idea and its rules are those of a published program without a paper, `airbench96_faster.py` of
KellerJordan/cifar10-airbench (f1c599c): a small network trains through the whole run, and at every step, from the first
on, the samples of its batch with the highest losses are noted; then the large network trains from scratch on the same
batches of the same augmented images, each cut to what was noted. No loss weights, no classes, no epochs on all data.

    r_it = the rank of sample i's loss in its batch of epoch t, divided by that batch's size; 1/B is the highest loss
    trained on in epoch t    the samples with  r_it <= keep_fraction

Ours: the program keeps a mask by step and position, which takes two data loaders in lockstep. Here a sample's place in
the order and its augmentation depend on seed, epoch and index alone, so that ranks by sample and epoch say the same,
and serve any keep fraction. With the seed of the small network's run, and batches of the size times the keep fraction
of its own, the large network's batches are its batches, cut. The method itself trains no network: the ranks are a
column of the table, which `offline.proxy_ranks` makes.

`N` is the number of training samples, `B` the batch size of the small network, `E` the number of masks: one an epoch,
or one for all.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dynsel_jax import options
from dynsel_jax.options import UserError
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["COLUMN", "ProxyState", "proxy"]

COLUMN = "proxy_rank"


class ProxyState(NamedTuple):
  """What is trained on. No step changes it; as a part of the state it is no constant of the compiled programs."""

  keep: Array  # [E, N] bool
  missing: Array  # [E] int32, number of samples without a finite rank


def proxy(table: SampleTable, epochs: int, *, keep_fraction: float = 0.5) -> Selector:
  """Trains each epoch on the samples that a small network found hardest in their batches of that epoch.

  A rank that is not finite counts as the worst: its sample is left out.

  Args:
    table: the training set, N samples, with the column "proxy_rank" in (0, 1]: `[N, epochs]`, or `[N]` for the same
      ranks in every epoch.
    epochs: of the run.
    keep_fraction: fraction of each of the small network's batches that is kept, in (0, 1].

  Raises:
    UserError: the column is missing, was made for another number of epochs, has no finite value, or none that is small
      enough in some epoch; or the fraction lies outside its range.
  """
  del epochs  # `create` compares the column with it
  options.check_fraction("keep_fraction", keep_fraction)
  ranks = _ranks(table)
  keep = ranks <= jnp.float32(keep_fraction)  # also False for a NaN
  kept = keep.any(axis=1)
  if not kept.all():
    raise UserError(
      f"selector=proxy keeps no sample in epoch {int(jnp.argmin(kept)) + 1}: no {COLUMN} of it is at most"
      f" keep_fraction={keep_fraction}"
    )
  state = ProxyState(keep, jnp.sum(~jnp.isfinite(ranks), axis=1, dtype=jnp.int32))

  def init(key: Array) -> ProxyState:
    del key
    return state

  def select(key: Array, state: ProxyState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del key
    row = jnp.minimum(epoch, len(state.keep) - 1)
    return Selection(keep=state.keep[row]), {"non_finite": state.missing[row]}

  def observe(state: ProxyState, signals: Signals) -> ProxyState:
    del signals
    return state

  return Selector(init, select, observe, reads=(COLUMN,))


def _ranks(table: SampleTable) -> Array:
  """Returns the column with an epoch a row, `[E, N]` float32."""
  if COLUMN not in table.columns:
    raise UserError(
      f"selector=proxy reads the column {COLUMN!r}, which the table does not have: a config with selector=proxy has"
      " a section proxy, which makes it; in a loop of your own give the ranks by a smaller network's losses"
    )
  column = jnp.asarray(table.columns[COLUMN], jnp.float32)
  ranks = column.T if column.ndim == 2 else column[None]
  if not jnp.isfinite(ranks).any():
    raise UserError(f"selector=proxy: {COLUMN} contains no finite value")
  return jnp.where(jnp.isfinite(ranks), ranks, jnp.nan)
