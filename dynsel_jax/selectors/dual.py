"""DUAL with Beta sampling: prefers difficult and uncertain samples, and easier ones as fewer samples are kept.

Cho et al., "Lightweight Dataset Pruning without Full Training via Example Difficulty and Prediction Uncertainty", arXiv
2502.06905. Reads the columns `dual` and `label_probability`, the mean of the label's probability over the epochs of the
proxy run. Without the sampling, DUAL is `top` with the column `dual`.

With the fraction r that is left out, the score s and the mean probability q of a sample's label, and the mean
probability mu of the ten highest scores:

    b = 15 (1 - mu) (1 - r^c),   a = 16 - b
    p(sample)  proportional to  s Beta(q; a, b)

`N` is the number of training samples.
"""

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax import options
from dynsel_jax.selectors import ranking, static
from dynsel_jax.types import SampleTable, Selector

__all__ = ["COLUMNS", "dual", "log_weights"]

COLUMNS = ("dual", "label_probability")

_CONCENTRATION = 16.0  # a + b
_LARGEST_B = 15.0
_ANCHORS = 10  # number of the highest scores that mu is averaged over
_EPSILON = 1e-6


def log_weights(score: Array, probability: Array, keep_fraction: float, difficulty: float) -> Array:
  """Returns the logarithm of each sample's sampling weight, `[N]` float32; -inf where an input is not finite.

  With the fraction r that is left out and the mean probability mu of the ten highest scores, b = 15 (1 - mu) (1 - r^c)
  and a = 16 - b; the weight is the density of Beta(a, b) at the sample's probability, times its score.

  Args:
    score: `[N]` float32, at least 0.
    probability: `[N]` float32, in [0, 1]; clipped 1e-6 away from the ends, where the density is infinite or 0.
    keep_fraction: 1 - r.
    difficulty: c.
  """
  score, _ = ranking.sanitize(jnp.where(jnp.isfinite(probability), score, jnp.nan))
  highest, anchors = jax.lax.top_k(score, min(_ANCHORS, score.shape[0]))
  anchor = jnp.mean(jnp.clip(probability[anchors], 0.0, 1.0), where=jnp.isfinite(highest))
  b = jnp.maximum(_LARGEST_B * (1.0 - anchor) * (1.0 - (1.0 - keep_fraction) ** difficulty), _EPSILON)
  density = jax.scipy.stats.beta.logpdf(jnp.clip(probability, _EPSILON, 1.0 - _EPSILON), _CONCENTRATION - b, b)
  weight = density + jnp.log(jnp.maximum(score, 0.0))
  return jnp.where(jnp.isfinite(weight), weight, -jnp.inf)


def dual(table: SampleTable, epochs: int, *, keep_fraction: float = 0.3, difficulty: float = 4.0) -> Selector:
  """Trains in every epoch on one weighted draw without replacement.

  Args:
    table: the training set, N samples, with the columns `COLUMNS`.
    epochs: unused.
    keep_fraction: fraction of the training set kept, in (0, 1].
    difficulty: the paper's c_D, greater than 0; the larger, the more easy samples are kept at small fractions. The
      paper uses 4 for CIFAR-100.

  Raises:
    UserError: a column is missing, or a value lies outside its range.
  """
  del epochs
  options.check_positive("difficulty", difficulty)
  count, _ = static.counts_and_groups(table, keep_fraction, class_balanced=False)
  score, probability = (static.column_of(table, name, "selector=dual: column") for name in COLUMNS)
  weights = log_weights(score, probability, keep_fraction, difficulty)
  columns = dict(zip(COLUMNS, (score, probability), strict=True))
  return static.fixed_subset(lambda key: ranking.weighted_subset(key, weights, count), columns)
