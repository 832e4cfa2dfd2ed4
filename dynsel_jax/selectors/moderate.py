"""Moderate coreset: the middle of a static score.

Xia et al., "Moderate Coreset: A Universal Method of Data Selection for Real-world Data-efficient Deep Learning", ICLR
2023, whose score is the distance to the class's median feature, the column `moderate`.

    kept    of n ascending scores the c in the middle, from position floor((n - c) / 2) on

`N` is the number of training samples.
"""

from dynsel_jax.selectors import static, subsets
from dynsel_jax.types import SampleTable, Selector

__all__ = ["moderate"]


def moderate(table: SampleTable, epochs: int, *, keep_fraction: float = 0.3, column: str = "moderate") -> Selector:
  """Trains in every epoch on the samples in the middle of the ascending scores; non-finite scores are kept last.

  Args:
    table: the training set, N samples, with the column.
    epochs: unused.
    keep_fraction: fraction of the training set kept, in (0, 1].
    column: the score.

  Raises:
    UserError: the table has no such column, or the fraction lies outside its range.
  """
  del epochs
  counts, _ = static.counts_and_groups(table, keep_fraction, class_balanced=False)
  score = static.column_of(table, column, "selector=central: selector.column")
  return static.fixed_subset(lambda key: subsets.central(key, score, counts), {column: score})
