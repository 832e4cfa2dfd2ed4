"""RHO-LOSS: trains on the samples of each meta-batch that are learnable, worth learning, and not yet learnt.

Mindermann et al., "Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet Learnt",
arXiv 2206.07137, Sec. 3 and Algorithm 1. A sample's reducible loss is its loss minus its irreducible loss, which is its
loss under a model trained on other data.

    trained on    the b samples of the meta-batch with the largest  l - irreducible_loss

`N` is the number of training samples, `B` the global batch size, `b` the number of samples a thinned batch trains on.
"""

from jax import Array

from dynsel_jax import options
from dynsel_jax.options import UserError
from dynsel_jax.selectors import memory, ranking, static, thinning
from dynsel_jax.selectors.memory import EmptyState
from dynsel_jax.types import SampleTable, Selector, Signals

__all__ = ["COLUMN", "rho_loss"]

COLUMN = "irreducible_loss"


def rho_loss(table: SampleTable, epochs: int, *, batch_fraction: float = 0.125) -> Selector:
  """Trains on the b samples of each meta-batch with the largest reducible loss.

  A non-finite reducible loss counts as the smallest; the log counts the non-finite irreducible ones. The paper trains
  on 32 of 320 samples.

  Args:
    table: the training set, N samples, with the column "irreducible_loss" in nats.
    epochs: unused.
    batch_fraction: b / B, in (0, 1]; b must be an integer.

  Raises:
    UserError: the column is missing or has no finite value, or the fraction lies outside its range; from `thin`, b is
      not an integer.
  """
  del epochs
  options.check_fraction("batch_fraction", batch_fraction)
  if COLUMN not in table.columns:
    raise UserError(
      f"selector=rho_loss reads the column {COLUMN!r}, which the table does not have: make it with"
      f" experiments.score_dataset --scores={COLUMN} and name its file in --config.scores.path"
    )
  irreducible_loss = static.column_of(table, COLUMN, "selector=rho_loss: column")

  def thin(key: Array, state: EmptyState, signals: Signals) -> tuple[Array, Array]:
    del state
    budget = thinning.batch_budget(batch_fraction, signals.index.shape[0])
    reducible_loss, _ = ranking.sanitize(signals.loss - memory.gather(irreducible_loss, signals))
    return thinning.top_rows(key, reducible_loss, signals, budget)

  return thinning.stateless(table.num_samples, thin, static.count_missing(irreducible_loss), (COLUMN,))
