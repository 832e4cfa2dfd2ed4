"""The keyed permutation and what it is made of: bijections, and the statistics of a shuffle without a sort."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dynsel_jax.selectors import permutation, radix_select


@pytest.mark.parametrize("bits", [2, 5, 12, 13])
def test_keyed_bijection_is_one(bits):
  words = radix_select.keyed_bijection(jax.random.key(0), jnp.arange(1 << bits, dtype=jnp.uint32), bits)
  np.testing.assert_array_equal(np.sort(words), np.arange(1 << bits))


@pytest.mark.parametrize("n", [1, 2, 100, 4096, 4097, 8192, 10_001])
def test_permutations_hold_each_position_once(n):
  np.testing.assert_array_equal(np.sort(permutation.permutation(jax.random.key(0), n)), np.arange(n))


@pytest.fixture(scope="module")
def shuffles():
  """600 permutations of 5000 positions, the least favourable size: barely too large for a sort."""
  return np.asarray(
    jax.jit(jax.vmap(lambda key: permutation.permutation(key, 5000)))(jax.random.split(jax.random.key(1), 600))
  )


def test_each_place_holds_each_position_equally_often(shuffles):
  for place in (0, 1, 2499, 4999):
    assert stats.chisquare(np.bincount(shuffles[:, place] // 250, minlength=20)).pvalue > 1e-4
  first = shuffles[:, :1500] // 100  # a subset of 30 %: positions of each hundred
  assert stats.chisquare(np.bincount(first.ravel(), minlength=50)).pvalue > 1e-4


def test_neighbours_are_unrelated(shuffles):
  now, after = shuffles[:, :-1], shuffles[:, 1:]
  pairs = (now // 313) * 16 + after // 313
  expected = np.outer(np.bincount(np.arange(5000) // 313), np.bincount(np.arange(5000) // 313)).ravel()
  assert (
    stats.chisquare(np.bincount(pairs.ravel(), minlength=256), expected * pairs.size / expected.sum()).pvalue > 1e-4
  )
  distance = (after - now) % 5000  # uniform over 1 ... 4999
  assert stats.chisquare(np.bincount((distance.ravel() - 1) * 20 // 4999, minlength=20)).pvalue > 1e-4
  rising = (after > now).sum(axis=1)  # of variance (n + 1) / 12 over random permutations
  assert abs(rising.mean() - 4999 / 2) < 5 * math.sqrt(5001 / 12 / 600)
  assert 0.75 < rising.var() / (5001 / 12) < 1.3


def test_permutations_of_different_keys_are_unrelated(shuffles):
  fixed_points = (shuffles[:-1] == shuffles[1:]).sum(axis=1)  # Poisson of mean 1
  assert abs(fixed_points.mean() - 1) < 5 / math.sqrt(599)
  assert fixed_points.max() < 10


@pytest.mark.parametrize("m, n", [(10, 10), (300, 200), (5000, 3000)])
def test_compact_moves_the_members_to_the_front_in_their_order(m, n):
  values = np.random.default_rng(m).permutation(m).astype(np.int32)
  for fraction in (0.0, 0.3, 1.0):
    member = (values < n) & (values % 10 < 10 * fraction)
    moved, count = permutation.compact(jnp.asarray(values), jnp.asarray(member), n)
    assert (moved.shape, moved.dtype, int(count)) == ((n,), jnp.int32, member.sum())
    np.testing.assert_array_equal(moved[: int(count)], values[member])
    assert np.all(moved[int(count) :] == -1)
