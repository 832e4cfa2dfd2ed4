"""Coverage-centric coreset selection (CCS): cuts the hardest samples and covers the range of a score evenly.

Zheng et al., arXiv 2210.15809, Algorithm 1, with the area under the margin, the column `aum`. `subsets.strata` makes
the choice and lists its differences from the published code.

    cut     the beta N hardest samples
    kept    from each of num_strata equal parts of the remaining range of scores as many, as far as it has them

`N` is the number of training samples.
"""

from dynsel_jax import options
from dynsel_jax.selectors import ranking, static, subsets
from dynsel_jax.types import SampleTable, Selector

__all__ = ["strata"]


def strata(
  table: SampleTable,
  epochs: int,
  *,
  keep_fraction: float = 0.3,
  column: str = "aum",
  largest_is_hardest: bool = False,
  hard_fraction: float = 0.1,
  num_strata: int = 50,
) -> Selector:
  """Trains in every epoch on samples from all strata of a score, after the hardest samples are cut.

  A sample with a non-finite score is never kept.

  Args:
    table: the training set, N samples, with the column.
    epochs: unused.
    keep_fraction: fraction of the training set kept, in (0, 1].
    column: the score.
    largest_is_hardest: whether a high score means hard; for the area under the margin a low score does.
    hard_fraction: fraction of the training set that is cut, beta, in [0, 1]; fewer are cut where `keep_fraction` needs
      them. The authors tune it for each fraction kept.
    num_strata: number of strata of equal width.

  Raises:
    UserError: the table has no such column, or a value lies outside its range.
  """
  del epochs
  options.check_fraction("hard_fraction", hard_fraction, zero=True)
  options.check_positive("num_strata", num_strata)
  count, _ = static.counts_and_groups(table, keep_fraction, class_balanced=False)
  score = static.column_of(table, column, "selector=strata: selector.column")
  score = -score if largest_is_hardest else score
  num_samples = table.num_samples
  cut = min(ranking.budget(hard_fraction, num_samples, least=0), num_samples - int(count))
  return static.fixed_subset(lambda key: subsets.strata(key, score, count, cut, num_strata=num_strata), {column: score})
