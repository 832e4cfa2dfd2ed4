"""The cross-entropy of tokens without all of their logits at once. Pure functions.

With a vocabulary of 49,152 the logits of one sequence of 1,024 tokens take 200 MB in float32, and those of a batch more
than the model. So the tokens are divided into chunks, and the backward pass computes the logits of a chunk again.

`T` is the number of tokens, `D` the width of the model's states, `V` the vocabulary.
"""

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["CHUNK", "token_losses"]

CHUNK = 2**24  # logits that exist at a time: 64 MB in float32


def token_losses(states: Array, head: Array, targets: Array, *, chunk: int = CHUNK) -> tuple[Array, Array]:
  """Computes the loss of each token, and whether it has the largest logit.

  The logits are `states @ head.T`, accumulated and normalised in float32. If those of all tokens are no more than
  `chunk`, they are kept for the backward pass, which then does not compute them again.

  Args:
    states: `[T, D]` floating-point.
    head: `[V, D]` of the same type.
    targets: `[T]` int32 in [0, V).
    chunk: the largest number of logits that exist at a time, at least those of one token.

  Returns:
    The cross-entropy in nats, `[T]` float32, and `[T]` bool.
  """
  tokens, vocabulary = states.shape[0], head.shape[0]
  size = max(chunk // vocabulary, 1)
  if tokens <= size:
    return _of_chunk(states, head, targets)
  count = -(-tokens // size)
  size = -(-tokens // count)  # chunks of one size, with less padding
  padding = count * size - tokens

  def split(rows: Array) -> Array:
    return jnp.pad(rows, [(0, padding)] + [(0, 0)] * (rows.ndim - 1)).reshape(count, size, *rows.shape[1:])

  remembered = jax.checkpoint(lambda states, targets: _of_chunk(states, head, targets))
  losses, right = jax.lax.map(lambda rows: remembered(*rows), (split(states), split(targets)))
  return losses.reshape(-1)[:tokens], right.reshape(-1)[:tokens]


def _of_chunk(states: Array, head: Array, targets: Array) -> tuple[Array, Array]:
  logits = jnp.einsum("td,vd->tv", states, head, preferred_element_type=jnp.float32)
  of_target = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
  return jax.nn.logsumexp(logits, axis=-1) - of_target, jnp.argmax(logits, axis=-1) == targets
