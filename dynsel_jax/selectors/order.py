"""The order in which an epoch visits its samples: a keyed permutation without a sort. Pure and jit-able.

The full permutation is shuffled first and filtered by membership afterwards. So keeping everything reproduces plain
training bit for bit, and two kept samples come in the same order whatever else is kept.

`N` is the number of training samples.
"""

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import words
from dynsel_jax.types import Selection

__all__ = ["everything", "nothing", "shuffled_positions", "visiting_order"]

_LARGEST_SORTED = 4096  # up to here a sort is cheap, and every permutation can occur
_BLOCK = 16  # XLA's CPU backend sums short rows several times faster than one long one


def shuffled_positions(key: Array, n: int) -> Array:
  """Returns a keyed permutation of range(n), `[n]` int32.

  Up to 4096 positions it is uniform over all permutations. Above, it is a keyed bijection of the next power of two
  from which the numbers below n are taken in order: a pass over memory in place of a sort.
  """
  candidates = _shuffled_candidates(key, n)
  return candidates if candidates.shape[0] == n else _compacted(candidates, candidates < n, n)[0]


def visiting_order(key: Array, keep: Array, weights: Array | None = None) -> Selection:
  """Plans an epoch over the samples to keep.

  Args:
    key: the second of `jax.random.split(key)` in `select`, for every method, so that methods which keep the same
      samples visit them in the same order.
    keep: `[N]` bool.
    weights: `[N]` float32, loss weight of each sample by its index; 1 if not given.

  Returns:
    A `Selection` whose every field is an array: thinned if the selector can, learning rate as scheduled.
  """
  n = keep.shape[0]
  candidates = _shuffled_candidates(key, n)
  member = (candidates < n) & keep[jnp.minimum(candidates, n - 1)]
  indices, size = _compacted(candidates, member, n)
  taken = jnp.arange(n, dtype=jnp.int32) < size
  if weights is None:
    chosen_weights = taken.astype(jnp.float32)
  else:
    chosen_weights = jnp.where(taken, weights[jnp.maximum(indices, 0)].astype(jnp.float32), jnp.float32(0))
  return Selection(indices, chosen_weights, size, jnp.float32(1), jnp.bool_(True))


def everything(key: Array, n: int) -> Selection:
  """Plans an epoch of plain training over all n samples: weight 1, not thinned.

  Args:
    key: the key that `select` was given, not yet split.
    n: the number of samples.
  """
  _, order_key = jax.random.split(key)
  plan = visiting_order(order_key, jnp.ones(n, bool))
  return Selection(plan.indices, plan.weights, plan.size, jnp.float32(1), jnp.bool_(False))


def nothing(n: int) -> Selection:
  """Returns the `Selection` that names none of n samples."""
  return Selection(
    jnp.full(n, -1, jnp.int32), jnp.zeros(n, jnp.float32), jnp.int32(0), jnp.float32(1), jnp.bool_(False)
  )


def _shuffled_candidates(key: Array, n: int) -> Array:
  """Returns distinct numbers `[M]` int32 in shuffled order, M >= n, among them each of range(n)."""
  if n <= _LARGEST_SORTED:
    return jax.random.permutation(key, n).astype(jnp.int32)
  bits = (n - 1).bit_length()
  return words.mixed(key, jnp.arange(1 << bits, dtype=jnp.uint32), bits).astype(jnp.int32)


def _compacted(values: Array, member: Array, n: int) -> tuple[Array, Array]:
  """Moves the members' values to the front of `[n]` int32 in their order, -1 behind them; and counts them."""
  place = _running_count(member.astype(jnp.int32))
  target = jnp.where(member, place - 1, n)  # the rest falls off the end
  return jnp.full(n, -1, jnp.int32).at[target].set(values, mode="drop"), place[-1]


def _running_count(counts: Array) -> Array:
  """Returns the cumulative sum of `[M]` int32."""
  length = counts.shape[0]
  if length <= _BLOCK**2:
    return jnp.cumsum(counts)
  within = jnp.cumsum(jnp.pad(counts, (0, -length % _BLOCK)).reshape(-1, _BLOCK), axis=1)
  totals = within[:, -1]
  before = _running_count(totals) - totals
  return (within + before[:, None]).reshape(-1)[:length]
