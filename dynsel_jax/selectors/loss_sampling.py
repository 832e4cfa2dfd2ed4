"""Loss sampling: trains on the part of each meta-batch that is drawn in proportion to the current losses.

The baseline "Loss" of "Data-Efficient Training by Evolved Sampling", arXiv 2509.23461; ES with both betas 0.

`B` is the global batch size, `b` the number of samples a thinned batch trains on.
"""

from jax import Array

from dynsel_jax import options
from dynsel_jax.selectors import thinning
from dynsel_jax.selectors.memory import EmptyState
from dynsel_jax.types import SampleTable, Selector, Signals

__all__ = ["loss_sampling"]


def loss_sampling(table: SampleTable, epochs: int, *, batch_fraction: float = 0.25, weights: str = "none") -> Selector:
  """Draws b of the B samples of each meta-batch without replacement, in proportion to their losses.

  Args:
    table: the training set.
    epochs: unused.
    batch_fraction: b / B, in (0, 1]; b must be an integer.
    weights: loss weights, "none" or "inverse_probability", as in `es`.

  Raises:
    UserError: a value lies outside its range; from `thin`, b is not an integer.
  """
  del epochs
  options.check_fraction("batch_fraction", batch_fraction)
  options.check_choice("weights", weights, thinning.WEIGHTS)

  def thin(key: Array, state: EmptyState, signals: Signals) -> tuple[Array, Array]:
    del state
    budget = thinning.batch_budget(batch_fraction, signals.index.shape[0])
    return thinning.sample_rows(key, thinning.log_weight(signals.loss), signals, budget, weights=weights)

  selector = thinning.stateless(table.num_samples, thin)
  return selector._replace(loss_normalization=thinning.normalization(weights))
