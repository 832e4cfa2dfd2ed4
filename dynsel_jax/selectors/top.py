"""The top of a static score, the subset of most coreset methods: they differ in the score.

Columns and their papers: `el2n` and `grand` (Paul et al., arXiv 2107.07075), `forgetting` (Toneva et al., arXiv
1812.05159), `moso`, class-balanced (Tan et al., arXiv 2310.14664), `tdds` (Zhang et al., arXiv 2311.13613). An order of
picks (`herding`, `k_center`, `d2`) is a column too, highest for the first pick.

`N` is the number of training samples.
"""

from dynsel_jax.selectors import static, subsets
from dynsel_jax.types import SampleTable, Selector

__all__ = ["top"]


def top(
  table: SampleTable,
  epochs: int,
  *,
  keep_fraction: float = 0.3,
  column: str = "el2n",
  largest: bool = True,
  class_balanced: bool = False,
) -> Selector:
  """Trains in every epoch on the samples with the highest or lowest scores; non-finite scores are kept last.

  Args:
    table: the training set, N samples, with the column.
    epochs: unused.
    keep_fraction: fraction of the training set kept, in (0, 1].
    column: the score.
    largest: keep the highest scores, else the lowest.
    class_balanced: keep that fraction of each class.

  Raises:
    UserError: the table has no such column, or the fraction lies outside its range.
  """
  del epochs
  counts, groups = static.counts_and_groups(table, keep_fraction, class_balanced)
  score = static.column_of(table, column, "selector=top: selector.column")
  score = score if largest else -score
  return static.fixed_subset(
    lambda key: subsets.top(key, score, counts, groups), {column: score}, labels=class_balanced
  )
