"""A wrapper that keeps the classes in the proportions of the training set, whatever the inner selector chose.

The selection keeps its size M; class c gets M n_c / N of it, as in RRD's class balance (arXiv 2603.04981, Sec. 3.5).
A `Selection` holds no scores: within a class the samples that the inner selector chose come first, and chance decides
among them and among the others.

`N` is the number of training samples, n_c of them of class c, `C` the number of classes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dynsel_jax.selectors import ranking
from dynsel_jax.selectors.ranking import ClassLayout
from dynsel_jax.selectors.wrappers.full_data import Selected
from dynsel_jax.selectors.wrappers.replacing import replace_samples
from dynsel_jax.types import SampleTable, Selector, SelectorState

__all__ = ["class_balanced", "class_quotas"]

_PURPOSE = 10_001  # folded into the key that the inner selector also gets


def class_quotas(key: Array, size: Array, layout: ClassLayout) -> Array:
  """Divides `size` samples among the classes in proportion to n_c, by systematic rounding.

  Each class gets size n_c / N, rounded down or up at random so that this is also its mean over keys; the sum is exactly
  `size`. A class too small for one sample an epoch gets one in some epochs, and no class gets more than it has.

  Args:
    key: consumed.
    size: `[]` int32 in [0, N]; may be traced.
    layout: from `ranking.class_layout`; N below 2^30.

  Returns:
    `[C]` int32.
  """
  total = int(layout.sizes.sum())
  ends = jnp.asarray(np.cumsum(layout.sizes), jnp.uint32)
  whole, rest = _product_divided(size.astype(jnp.uint32), ends, total)
  offset = jax.random.randint(key, (), 0, total).astype(jnp.uint32)
  bounds = (whole + (rest + offset >= total).astype(jnp.uint32)).astype(jnp.int32)
  return jnp.diff(bounds, prepend=jnp.zeros(1, jnp.int32))


def _product_divided(factor: Array, counts: Array, divisor: int) -> tuple[Array, Array]:
  """Returns quotient and remainder of factor * counts / divisor, uint32: long division, as the product has 64 bits."""

  def step(place: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
    quotient, rest = carry
    bit = (counts >> (31 - place).astype(jnp.uint32)) & 1
    rest = 2 * rest + bit * factor
    return 2 * quotient + rest // divisor, rest % divisor

  return jax.lax.fori_loop(0, 32, step, (jnp.zeros_like(counts), jnp.zeros_like(counts)))


def class_balanced(selector: Selector, table: SampleTable, epochs: int) -> Selector:
  """Keeps the classes of every epoch's selection in the proportions of the training set.

  Where the inner selector chose too many of a class, a random part of them stays; where it chose too few, random
  further samples of the class are added, redrawn in each epoch, with the mean weight of the selection. The others keep
  their weights, which were made for another selection: InfoBatch's no longer give an unbiased gradient. The log's
  `filled_in` counts the added samples. A selection of all samples stays as it is; so do `thin` and `refresh`.

  Args:
    selector: chooses how many samples, and which come first in their class.
    table: the training set, N samples.
    epochs: unused.
  """
  del epochs
  layout = ranking.class_layout(table)

  def select(key: Array, state: SelectorState, epoch: Array) -> Selected:
    selection, info = selector.select(key, state, epoch)
    quota_key, tie_key = jax.random.split(jax.random.fold_in(key, _PURPOSE))
    chosen = selection.keep
    quotas = class_quotas(quota_key, jnp.sum(chosen, dtype=jnp.int32), layout)
    keep = ranking.top_by_class(tie_key, chosen.astype(jnp.float32), layout, quotas)
    return replace_samples(selection, keep), {**info, "filled_in": jnp.sum(keep & ~chosen, dtype=jnp.int32)}

  return selector._replace(select=select, reads=tuple(dict.fromkeys((*selector.reads, "labels"))))
