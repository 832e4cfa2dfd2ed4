"""The extras `nuclear_norm` and `projection` of a sample's logits, which UDS reads (arXiv 2510.16882). Pure functions.

A sample's logits are a matrix L `[T, V]` of T tokens and V words, or of one row for a classifier. Both extras are
computed from rows that count; the others must be zero, which changes neither. Logits need not exist: where they are the
product of states `[T, D]` and a head `[D, V]` without bias, `nuclear_norm_of_product` and `projection_of_product` give
the same numbers from its factors.

The projection is z = vec(A L G^T), the token axis first, with random rows of signed cosines in A and G. It is in unit
scale: E ||z||^2 = ||L||_F^2. The published code's is larger by sqrt(T V) / 2.
"""

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.types import PROJECTION_WIDTH

__all__ = [
  "TOKEN_ROWS",
  "WORD_ROWS",
  "of_one_row",
  "cosines",
  "nuclear_norm",
  "nuclear_norm_of_product",
  "project",
  "projection_of_product",
  "random_cosines",
]

TOKEN_ROWS, WORD_ROWS = 8, 128  # of the matrices A and G, as published; their product is PROJECTION_WIDTH
_SEED = 251_016_882  # the matrices are the same in every run


def nuclear_norm(logits: Array) -> Array:
  """Computes the sum of the singular values of each matrix, `[...]`, from logits `[..., T, V]` float32.

  The singular values are those of the square factor of a QR decomposition of the longer axis.
  """
  tall = logits if logits.shape[-2] >= logits.shape[-1] else jnp.swapaxes(logits, -1, -2)
  square = jnp.linalg.qr(tall, mode="r")
  return jnp.sum(jnp.linalg.svd(square, compute_uv=False), axis=-1)


def nuclear_norm_of_product(states: Array, head: Array) -> Array:
  """Computes the nuclear norm of `states @ head`, `[...]`, without the product.

  With the Cholesky factor C of head head^T it is that of states C. If V is less than D, the product is the smaller one.

  Args:
    states: `[..., T, D]` float32, zero in rows that do not count.
    head: `[D, V]` float32, of full rank.
  """
  if head.shape[1] < head.shape[0]:
    return nuclear_norm(states @ head)
  with jax.default_matmul_precision("highest"):
    factor = jnp.linalg.cholesky(head @ head.T)
    return nuclear_norm(states @ factor)


def cosines(indices: Array, signs: Array) -> Array:
  """Returns sqrt(2 / d) cos(2 pi a n / L) e_n for the indices a `[d]` int32 and the signs e `[L]`, `[d, L]` float32.

  Frequencies are reduced modulo L as integers, since a float32 phase loses its digits at a long axis; L below 2^19.
  """
  length, place = signs.shape[0], jnp.arange(signs.shape[0], dtype=jnp.int32)
  high, low = place // 256, place % 256  # no product leaves int32
  turns = ((indices[:, None] * high[None]) % length * 256 + indices[:, None] * low[None]) % length
  waves = jnp.cos(turns.astype(jnp.float32) * (2 * jnp.pi / length))
  return jnp.sqrt(jnp.float32(2 / indices.shape[0])) * waves * signs[None].astype(jnp.float32)


def random_cosines(purpose: int, rows: int, length: int) -> Array:
  """Returns `cosines` with indices drawn uniformly with replacement and with random signs, `[rows, length]` float32.

  Args:
    purpose: tells apart the draws of two axes.
    rows: d.
    length: L, of the axis that is projected.
  """
  index_key, sign_key = jax.random.split(jax.random.fold_in(jax.random.key(_SEED), purpose))
  indices = jax.random.randint(index_key, (rows,), 0, length, jnp.int32)
  return cosines(indices, jax.random.rademacher(sign_key, (length,), jnp.float32))


def project(logits: Array, tokens: Array, words: Array) -> Array:
  """Projects logits `[..., T, V]` by A `[d2, T]` and G `[d1, V]` to `[..., d2 d1]` float32."""
  with jax.default_matmul_precision("highest"):
    small = tokens @ (logits @ words.T)
  return small.reshape(*small.shape[:-2], -1)


def projection_of_product(states: Array, head: Array, length: int) -> Array:
  """Projects `states @ head` to `[..., PROJECTION_WIDTH]` float32 without the product.

  Args:
    states: `[..., T, D]` float32, zero in rows that do not count.
    head: `[D, V]` float32.
    length: the number of tokens to which all samples are padded, at least T; rows up to it count as zero.
  """
  words = random_cosines(1, WORD_ROWS, head.shape[1])
  with jax.default_matmul_precision("highest"):
    return project(states, random_cosines(0, TOKEN_ROWS, length)[:, : states.shape[-2]], words @ head.T)


def of_one_row(logits: Array) -> dict[str, Array]:
  """Returns both extras of a classifier's logits `[b, C]` float32: matrices of one row.

  The nuclear norm is the Euclidean one. Up to PROJECTION_WIDTH logits are projected by appending zeros, which keeps all
  distances; more are projected by random cosines.
  """
  if logits.shape[-1] > PROJECTION_WIDTH:
    with jax.default_matmul_precision("highest"):
      projection = logits @ random_cosines(1, PROJECTION_WIDTH, logits.shape[-1]).T
  else:
    projection = jnp.pad(logits, ((0, 0), (0, PROJECTION_WIDTH - logits.shape[-1])))
  return {"nuclear_norm": jnp.linalg.norm(logits, axis=-1), "projection": projection}
