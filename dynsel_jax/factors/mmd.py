"""Maximum mean discrepancy (MMD) between a subset and its data set. Pure and jit-able.

arXiv 2603.04981, Eqs 4 and 26 and App. B.2: an RBF kernel with gamma = 1 / width. `n` and `m` are the numbers of
points, `d` the width. Kernel values are summed block by block, so that memory grows with the square of a block and not
with n x m. The sums are over kernel - 1: the ones cancel, and for unit features the kernel is so close to 1 that
float32 would lose most of the difference.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from dynsel_jax.options import UserError

__all__ = ["mmd_squared"]


@functools.partial(jax.jit, static_argnames=("unbiased", "block_size"))
def mmd_squared(
  u: Array, v: Array, *, gamma: float | None = None, unbiased: bool = True, block_size: int = 1024
) -> Array:
  """Returns the squared MMD of two sets of points, `[]` float32.

  Args:
    u: `[n, d]` float32.
    v: `[m, d]` float32.
    gamma: of the kernel exp(-gamma * squared distance), by default 1 / d.
    unbiased: exclude the pairs of a point with itself, which may give a result below 0; otherwise average over all
      pairs.
    block_size: number of points on each side of a block.

  Raises:
    UserError: the unbiased form gets fewer than two points in a set.
  """
  n, m = u.shape[0], v.shape[0]
  if unbiased and min(n, m) < 2:
    raise UserError(f"mmd_squared of {n} and {m} points: the unbiased form needs at least two in each set")
  gamma = 1 / u.shape[1] if gamma is None else gamma
  origin = jnp.mean(v, axis=0)[None, :]  # centring keeps the distances and reduces the rounding error
  u, v = u - origin, v - origin
  # The pairs of a point with itself are excluded in either form: their kernel - 1 is 0.
  within_u, within_v = (_kernel_sum(x, x, gamma, block_size, same=True) for x in (u, v))
  across = _kernel_sum(u, v, gamma, block_size, same=False) / (n * m)
  if unbiased:
    return within_u / (n * (n - 1)) + within_v / (m * (m - 1)) - 2 * across
  return within_u / (n * n) + within_v / (m * m) - 2 * across


def _kernel_sum(a: Array, b: Array, gamma: float, block_size: int, *, same: bool) -> Array:
  """Sums kernel - 1 over all pairs of rows, excluding the pairs of a row with itself if `a` and `b` are the `same`."""

  def starts(x: Array) -> Array:
    return jnp.arange(0, x.shape[0], block_size, dtype=jnp.int32)

  def rows(x: Array, start: Array) -> tuple[Array, Array]:
    position = start + jnp.arange(block_size, dtype=jnp.int32)
    return x[jnp.minimum(position, x.shape[0] - 1)], position

  def block(start_a: Array, start_b: Array) -> Array:
    left, row = rows(a, start_a)
    right, column = rows(b, start_b)
    squares = jnp.sum(left**2, axis=1)[:, None] + jnp.sum(right**2, axis=1)[None, :]
    kernel = jnp.expm1(-gamma * jnp.maximum(squares - 2 * left @ right.T, 0))
    counted = (row < a.shape[0])[:, None] & (column < b.shape[0])[None, :]
    if same:
      counted &= row[:, None] != column[None, :]
    return jnp.sum(jnp.where(counted, kernel, 0))

  return jnp.sum(lax.map(lambda i: jnp.sum(lax.map(lambda j: block(i, j), starts(b))), starts(a)))
