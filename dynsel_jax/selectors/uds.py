"""UDS, utility-diversity sampling: trains on the samples of each meta-batch with rich outputs, unlike recent ones.

"Utility-Diversity Aware Online Batch Selection for LLM Supervised Fine-tuning", arXiv 2510.16882. A sample's score is

  s = ||L||_* + alpha mean over the memory Q of ||z - q||,

with the nuclear norm of its logits L `[tokens, vocabulary]`, and the distance of a projection z of them to those of the
last M samples that were trained on; 0 while Q is empty. The b samples with the highest s are trained on, and their
projections take the place of the oldest ones in Q. The task computes both, as the extras `nuclear_norm` and
`projection`: see `tasks.logit_geometry`.

The projections are in unit scale, E ||z||^2 = ||L||_F^2, so that alpha means the same for every vocabulary and length:
an alpha of the published code is multiplied by sqrt(N V) / 2 for N tokens and a vocabulary of V. The paper scores
sequences of tokens. For a classifier L has one row, whose nuclear norm is its length: the rule then prefers confident
predictions, about which the paper says nothing.

`N` is the number of training samples, `B` the global batch size, `D` the width of a projection, `M` the size of Q.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax import options
from dynsel_jax.selectors import memory as memory_lib
from dynsel_jax.selectors import ranking, thinning
from dynsel_jax.types import PROJECTION_WIDTH, SampleTable, Selection, Selector, Signals

__all__ = ["Memory", "UdsState", "diversity", "empty_memory", "remember", "uds"]


_AT_ONCE = 8  # samples whose distances are computed at a time: 32 MB of differences at M = D = 1024


class Memory(NamedTuple):
  """A ring of the projections of the samples that were trained on last."""

  rows: Array  # [M, D] float32
  filled: Array  # [] int32, number of rows that are filled, the first ones
  pointer: Array  # [] int32, the row that is written next


class UdsState(NamedTuple):
  """The state of UDS."""

  memory: Memory
  last_epoch: Array  # [N] int32, the epoch in which a sample was observed last, -1 if never
  ratio_sum: Array  # [] float32, over steps: the median over a meta-batch of alpha times diversity over nuclear norm
  steps: Array  # [] int32, number of those steps


def empty_memory(size: int, width: int) -> Memory:
  """Returns a memory of M = `size` rows, none of them filled, for projections of D = `width` numbers."""
  return Memory(jnp.zeros((size, width), jnp.float32), jnp.int32(0), jnp.int32(0))


def diversity(memory: Memory, projection: Array) -> Array:
  """Computes the mean Euclidean distance of each projection `[B, D]` to the memory, `[B]`; 0 while that is empty."""
  known = jnp.arange(memory.rows.shape[0]) < memory.filled

  def total_of(row: Array) -> Array:
    # Written out: as |z|^2 + |q|^2 - 2 z.q, distances of similar samples would lose their digits.
    distances = jnp.sqrt(jnp.sum(jnp.square(row[None, :] - memory.rows), axis=-1))
    return jnp.sum(jnp.where(known, distances, 0.0))

  total = jax.lax.map(total_of, projection, batch_size=_AT_ONCE)  # all [B, M, D] differences might not fit
  return total / jnp.maximum(memory.filled, 1).astype(jnp.float32)


def remember(memory: Memory, projection: Array, place: Array, chosen: Array) -> Memory:
  """Writes projections into the memory in place of the oldest ones; of more than M the last M.

  Args:
    memory: the ring.
    projection: `[B, D]` float32.
    place: `[B]` int32, the chosen rows are written in ascending order of these distinct numbers.
    chosen: `[B]` bool, the rows to write.
  """
  size, total = memory.rows.shape[0], jnp.sum(chosen, dtype=jnp.int32)
  before = jnp.sum(chosen[None, :] & (place[None, :] < place[:, None]), axis=1, dtype=jnp.int32)
  written = chosen & (before >= total - size)
  row = jnp.where(written, (memory.pointer + before) % size, size)
  return Memory(
    rows=memory.rows.at[row].set(projection, mode="drop"),
    filled=jnp.minimum(memory.filled + total, size),
    pointer=(memory.pointer + total) % size,
  )


def _observed(state: UdsState, signals: Signals, ratio: Array) -> UdsState:
  """Returns the state after a step; `ratio` `[B]` is alpha times diversity over nuclear norm."""
  new = memory_lib.first_this_epoch(state.last_epoch, signals)
  known = new & jnp.isfinite(ratio)
  median = jnp.where(jnp.any(known), jnp.nanmedian(jnp.where(known, ratio, jnp.nan)), 0.0)
  projection = signals.extras["projection"]
  finite = jnp.all(jnp.isfinite(projection), axis=-1)  # one that is not would spoil every distance from now on
  return UdsState(
    memory=remember(state.memory, projection, signals.index, new & signals.trained & finite),
    last_epoch=memory_lib.scatter(state.last_epoch, signals, signals.epoch, new),
    ratio_sum=state.ratio_sum + median,
    steps=state.steps + jnp.any(known).astype(jnp.int32),
  )


def uds(
  table: SampleTable, epochs: int, *, batch_fraction: float = 0.25, alpha: float = 6.6, memory_size: int = 1024
) -> Selector:
  """Trains on the b samples of each meta-batch with the highest sum of nuclear norm and distance to recent samples.

  The log's `diversity_ratio` is the mean over the steps so far of the meta-batch's median of alpha times distance over
  nuclear norm: far below 1 the norm alone decides, far above 1 the distance.

  The memory is a queue: unlike the state of other methods, it depends on the order of an epoch's steps. A sample is
  written at most once an epoch, those of a step by index (in the published code the order is arbitrary).

  Args:
    table: the training set, N samples.
    epochs: unused.
    batch_fraction: b / B, in (0, 1]; b must be an integer. The published script trains on a quarter.
    alpha: weight of the distance, at least 0, for projections in unit scale. The default is the published script's
      1.5e-3 at 512 tokens and a vocabulary of 152,064.
    memory_size: M, at least 1.

  Raises:
    UserError: a value lies outside its range; from `thin`, b is not an integer.
  """
  del epochs
  options.check_fraction("batch_fraction", batch_fraction)
  options.check_positive("alpha", alpha, zero=True)
  options.check_positive("memory_size", memory_size)
  num_samples = table.num_samples

  def init(key: Array) -> UdsState:
    del key
    return UdsState(
      memory=empty_memory(memory_size, PROJECTION_WIDTH),
      last_epoch=jnp.full(num_samples, -1, jnp.int32),
      ratio_sum=jnp.float32(0),
      steps=jnp.int32(0),
    )

  def select(key: Array, state: UdsState, epoch: Array) -> tuple[Selection, dict[str, Array]]:
    del key, epoch
    ratio = state.ratio_sum / jnp.maximum(state.steps, 1).astype(jnp.float32)
    return Selection(keep=jnp.ones(num_samples, bool)), {"diversity_ratio": ratio}

  def parts(state: UdsState, signals: Signals) -> tuple[Array, Array]:
    norm, projection = signals.extras["nuclear_norm"], signals.extras["projection"]
    return norm, jnp.float32(alpha) * diversity(state.memory, projection)

  def observe(state: UdsState, signals: Signals) -> UdsState:
    norm, distance = parts(state, signals)
    return _observed(state, signals, distance / norm)

  def thin(key: Array, state: UdsState, signals: Signals) -> tuple[Array, Array]:
    budget = thinning.batch_budget(batch_fraction, signals.index.shape[0])
    norm, distance = parts(state, signals)
    score, _ = ranking.sanitize(norm + distance)
    return thinning.top_rows(key, score, signals, budget)

  return Selector(init, select, observe, thin, reads=("nuclear_norm", "projection"))
