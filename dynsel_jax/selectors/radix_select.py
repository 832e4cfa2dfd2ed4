"""Radix select over 32-bit words, and keyed bijections of them: the primitives of `ranking`.

Pure and jit-able. A threshold is found digit by digit from histograms (a radix select), so that a choice among
millions of samples costs a few passes over memory and no sort.

`N` is the number of samples, `G` the number of groups that are ranked separately.
"""

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["keyed_bijection", "sortable_bits", "thresholds"]

_ROUNDS = 6
_SIGN = 0x80000000


def keyed_bijection(key: Array, words: Array, bits: int = 32) -> Array:
  """Applies a keyed bijection of the words of `bits` bits, so that distinct words stay distinct.

  Each round multiplies by a random odd number, adds a random number and folds the upper half into the lower one; all
  three can be undone modulo 2 ** bits.

  Args:
    key: the same key gives the same bijection.
    words: `[N]` uint32, below 2 ** bits.
    bits: from 2 to 32.

  Returns:
    `[N]` uint32, below 2 ** bits.
  """
  constants = jax.random.bits(key, (_ROUNDS, 2), jnp.uint32)
  mask = jnp.uint32(2**bits - 1)
  for factor, offset in constants:
    words = (words * (factor | jnp.uint32(1)) + offset) & mask
    words = words ^ (words >> jnp.uint32((bits + 1) // 2))
  return words


def sortable_bits(score: Array) -> Array:
  """Maps float32 to uint32 in the same order: -0.0 equals 0.0, and NaN lies below -inf.

  Args:
    score: `[N]` float32.

  Returns:
    `[N]` uint32, 0 for NaN alone.
  """
  words = jax.lax.bitcast_convert_type(score.astype(jnp.float32), jnp.uint32)
  words = jnp.where(words == jnp.uint32(_SIGN), jnp.uint32(0), words)
  words = jnp.where(words >= jnp.uint32(_SIGN), ~words, words | jnp.uint32(_SIGN))
  return jnp.where(jnp.isnan(score), jnp.uint32(0), words)


def thresholds(words: Array, groups: Array, counts: Array, where: Array) -> tuple[Array, Array]:
  """Finds the `counts`-th highest word of each group, and how many members at that word to take.

  A group with count 0 takes none of its members; a group with a count above its size gets the threshold 0.

  Args:
    words: `[N]` uint32.
    groups: `[N]` int32, in [0, G).
    counts: `[G]` int32, number of members to take from each group.
    where: `[N]` bool, the members; the rest is ignored.

  Returns:
    The thresholds `[G]` uint32, and `[G]` int32: the counts minus the number of members above the threshold.
  """
  num_groups = counts.shape[0]
  width = _digit_width(num_groups, words.shape[0])
  num_bins = 1 << width
  num_digits = -(-32 // width)

  def narrow(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    level, remaining, members = carry
    shift = (jnp.uint32(num_digits - 1) - i.astype(jnp.uint32)) * jnp.uint32(width)
    digit = ((words >> shift) & jnp.uint32(num_bins - 1)).astype(jnp.int32)
    bins = jnp.where(members, groups * num_bins + digit, num_groups * num_bins)  # the rest falls off the end
    histogram = jnp.zeros(num_groups * num_bins, jnp.int32).at[bins].add(1, mode="drop").reshape(num_groups, num_bins)
    at_least = jnp.cumsum(histogram[:, ::-1], axis=1)[:, ::-1]  # members with this digit or a higher one
    chosen = jnp.maximum(jnp.sum(at_least >= remaining[:, None], axis=1, dtype=jnp.int32) - 1, 0)
    above = jnp.take_along_axis(at_least - histogram, chosen[:, None], axis=1)[:, 0]
    return level | (chosen.astype(jnp.uint32) << shift), remaining - above, members & (digit == chosen[groups])

  start = (jnp.zeros(num_groups, jnp.uint32), jnp.maximum(counts, 0), where)
  level, remaining, _ = jax.lax.fori_loop(0, num_digits, narrow, start)
  return level, remaining


def _digit_width(num_groups: int, num_words: int) -> int:
  """Returns the bits of a digit: wide for few passes, but with histograms that fit a cache and stay below N bins."""
  most_bins = min(num_words, 1 << 18)
  return next((width for width in (11, 8, 6) if num_groups << width <= most_bins), 4)
