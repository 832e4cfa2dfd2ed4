"""Selective backprop: trains on the part of each meta-batch that is drawn by the rank of its losses.

Jiang et al., "Accelerating Deep Learning by Focusing on the Biggest Losers", arXiv 1910.00762. The paper decides for
each sample separately, with a probability that is a power of its loss's percentile among recent losses, so that the
number of trained samples varies. Here, as in MosaicML's Composer, percentiles are taken within the meta-batch and
exactly b samples are drawn, so that every step has the same shape. Composer also confines the method to a middle part
of training, which the wrapper `annealed` does for any method.

    p(sample with the r-th smallest of n losses)  proportional to  ((r - 1/2) / n) ^ (B / b - 1)

`B` is the global batch size, `b` the number of samples a thinned batch trains on.
"""

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax import options
from dynsel_jax.selectors import ranking, thinning
from dynsel_jax.selectors.memory import EmptyState
from dynsel_jax.types import SampleTable, Selector, Signals

__all__ = ["selective_backprop"]


def selective_backprop(table: SampleTable, epochs: int, *, batch_fraction: float = 0.5) -> Selector:
  """Draws b of the B samples of each meta-batch without replacement, favouring losses of a high rank.

  Of n valid samples the one with the r-th smallest loss has the sampling weight ((r - 1/2) / n)^(B / b - 1). A
  non-finite loss ranks as the smallest and is drawn only when no other is left.

  Args:
    table: the training set.
    epochs: unused.
    batch_fraction: b / B, in (0, 1]; b must be an integer.

  Raises:
    UserError: the fraction lies outside its range; from `thin`, b is not an integer.
  """
  del epochs
  options.check_fraction("batch_fraction", batch_fraction)

  def thin(key: Array, state: EmptyState, signals: Signals) -> tuple[Array, Array]:
    del state
    tie_key, draw_key = jax.random.split(key)
    batch_size = signals.index.shape[0]
    budget = thinning.batch_budget(batch_fraction, batch_size)
    valid = signals.index >= 0
    loss, _ = ranking.sanitize(signals.loss)
    order = thinning.rank_rows(tie_key, loss, valid)
    place = jnp.zeros(batch_size, jnp.int32).at[order].set(jnp.arange(batch_size, dtype=jnp.int32))  # 0: highest loss
    num_valid = jnp.sum(valid, dtype=jnp.int32)
    above = (num_valid - place).astype(jnp.float32) - 0.5
    percentile = jnp.where(valid, above, 1.0) / jnp.maximum(num_valid, 1).astype(jnp.float32)
    log_weights = (1.0 / batch_fraction - 1.0) * jnp.log(percentile)
    return thinning.sample_rows(
      draw_key, jnp.where(loss > -jnp.inf, log_weights, -jnp.inf), signals, budget, weights="none"
    )

  return thinning.stateless(table.num_samples, thin)
