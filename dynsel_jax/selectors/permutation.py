"""A keyed permutation without a sort, and the compaction of a masked array. Pure and jit-able.

`N` is the number of training samples, `M` a length of at least N.
"""

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.selectors import radix_select

__all__ = ["compact", "permutation", "shuffled_candidates"]

_LARGEST_SORTED = 4096  # up to here a sort is cheap, and every permutation can occur
_BLOCK = 16  # XLA's CPU backend sums short rows several times faster than one long one


def permutation(key: Array, n: int) -> Array:
  """Returns a keyed permutation of range(n), `[n]` int32.

  Up to 4096 positions it is uniform over all permutations. Above, it is a keyed bijection of the next power of two
  from which the numbers below n are taken in order: one pass over memory in place of a sort.
  """
  candidates = shuffled_candidates(key, n)
  return candidates if candidates.shape[0] == n else compact(candidates, candidates < n, n)[0]


def shuffled_candidates(key: Array, n: int) -> Array:
  """Returns distinct numbers `[M]` int32 in shuffled order, M >= n, that include all of range(n)."""
  if n <= _LARGEST_SORTED:
    return jax.random.permutation(key, n).astype(jnp.int32)
  bits = (n - 1).bit_length()
  return radix_select.keyed_bijection(key, jnp.arange(1 << bits, dtype=jnp.uint32), bits).astype(jnp.int32)


def compact(values: Array, member: Array, n: int) -> tuple[Array, Array]:
  """Moves the members' values to the front, in their order, and counts them.

  Args:
    values: `[M]` int32.
    member: `[M]` bool, at most n of them True.
    n: length of the result.

  Returns:
    `[n]` int32 with -1 behind the members' values, and their number `[]` int32.
  """
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
