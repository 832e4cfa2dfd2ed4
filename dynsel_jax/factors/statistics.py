"""Statistics of a data set's codes: firing frequency, class spread and the set of common latents. Pure and jit-able.

arXiv 2603.04981, Sec. 3.3 and 3.4. `N` is the number of samples, `k` the code length, `L` the number of latents, `C`
the number of classes. Besides the codes, memory grows with C x L.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from dynsel_jax.factors.sae import Codes
from dynsel_jax.options import check_fraction

__all__ = ["FactorStatistics", "common_set", "factor_statistics"]

_CHUNK = 4096  # samples counted at a time


class FactorStatistics(NamedTuple):
  """Per-latent counts over a data set."""

  firing_frequency: Array  # [L] int32, number of samples in which the latent is active
  class_spread: Array  # [L] int32, number of classes with at least one such sample


@functools.partial(jax.jit, static_argnames=("num_classes", "num_latents"))
def factor_statistics(codes: Codes, labels: Array, *, num_classes: int, num_latents: int) -> FactorStatistics:
  """Counts the samples and the classes in which each latent is active.

  Args:
    codes: of N samples.
    labels: `[N]` int32, in [0, num_classes).
    num_classes: C.
    num_latents: L.
  """
  num_samples = labels.shape[0]
  chunk = min(_CHUNK, num_samples)

  def count(i: Array, counts: Array) -> Array:
    start = jnp.minimum(i * chunk, num_samples - chunk)  # the last chunk overlaps the previous one: equal shapes
    fresh = start + jnp.arange(chunk) >= i * chunk  # counts the samples in the overlap only once
    label, index, value = (lax.dynamic_slice_in_dim(x, start, chunk) for x in (labels, codes.indices, codes.values))
    active = (value > 0) & fresh[:, None]
    return counts.at[label[:, None] * num_latents + index].add(active.astype(jnp.int32))

  counts = lax.fori_loop(0, -(-num_samples // chunk), count, jnp.zeros(num_classes * num_latents, jnp.int32))
  counts = counts.reshape(num_classes, num_latents)
  return FactorStatistics(jnp.sum(counts, axis=0), jnp.sum(counts > 0, axis=0, dtype=jnp.int32))


def common_set(firing_frequency: Array, common_fraction: float) -> Array:
  """Selects the fraction `common_fraction` of the latents that fire most often, the set F of Eq. 3.

  Args:
    firing_frequency: `[L]` int32.
    common_fraction: in (0, 1]; selects floor(common_fraction * L) latents, but at least one.

  Returns:
    `[L]` bool. Ties go to the lower index.
  """
  check_fraction("common_fraction", common_fraction)
  count = max(1, int(common_fraction * firing_frequency.shape[0] + 1e-6))  # 1e-6: 0.29 * 100 is 28.999...
  return jnp.zeros(firing_frequency.shape, bool).at[lax.top_k(firing_frequency, count)[1]].set(True)
