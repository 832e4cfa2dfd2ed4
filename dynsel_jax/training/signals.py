"""From logits to losses and to the signals that selectors observe. Pure functions.

`B` is the number of samples, `C` the number of classes.
"""

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.types import Signals

__all__ = ["cross_entropy", "of_logits"]


def cross_entropy(logits: Array, labels: Array, label_smoothing: float = 0.0) -> Array:
  """Returns the cross-entropy of each sample in nats, `[B]` float32.

  With label smoothing e the target is (1 - e) on the label plus e / C on every class (arXiv 1512.00567, Sec. 7).
  """
  log_probabilities = jax.nn.log_softmax(logits)
  of_label = jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]
  if not label_smoothing:
    return -of_label
  return -(1.0 - label_smoothing) * of_label - label_smoothing * log_probabilities.mean(axis=-1)


def of_logits(logits: Array, labels: Array, index: Array, trained: Array, epoch: Array) -> Signals:
  """Returns what a selector may know of a batch.

  Args:
    logits: `[B, C]` float32.
    labels: `[B]` int32.
    index: `[B]` int32, -1 on padding.
    trained: `[B]` bool.
    epoch: `[]` int32.
  """
  probabilities = jax.nn.softmax(logits)
  is_label = jnp.arange(logits.shape[-1])[None, :] == labels[:, None]
  of_label = jnp.sum(jnp.where(is_label, probabilities, 0.0), axis=-1)
  largest_other = jnp.max(jnp.where(is_label, 0.0, probabilities), axis=-1)
  return Signals(
    index=index,
    loss=cross_entropy(logits, labels),
    confidence=jnp.max(probabilities, axis=-1),
    margin=of_label - largest_other,
    el2n=jnp.linalg.norm(probabilities - is_label.astype(probabilities.dtype), axis=-1),
    correct=jnp.argmax(logits, axis=-1) == labels,
    trained=trained,
    epoch=epoch,
  )
