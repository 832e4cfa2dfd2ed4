"""Random subset: one uniform draw before training, kept throughout. The baseline of static coresets.

`N` is the number of training samples.
"""

from dynsel_jax.selectors import ranking, static
from dynsel_jax.types import SampleTable, Selector

__all__ = ["random_static"]


def random_static(table: SampleTable, epochs: int, *, keep_fraction: float = 0.3) -> Selector:
  """Trains on the same uniformly drawn fraction of the samples in every epoch.

  Args:
    table: the training set, N samples.
    epochs: unused.
    keep_fraction: fraction of the training set kept, in (0, 1].

  Raises:
    UserError: a fraction lies outside its range.
  """
  del epochs
  count = ranking.keep_count(keep_fraction, table.num_samples)
  return static.fixed_subset(lambda key: ranking.uniform_subset(key, table.num_samples, count))
