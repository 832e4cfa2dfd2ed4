"""The stage before a run: makes features, factors and proxy scores, the columns of a `SampleTable`."""

from dynsel_jax.options import needs

with needs(__name__, "dynsel_jax[train]"):
  from dynsel_jax.offline.columns import columns, train_and_evaluate

__all__ = ["columns", "train_and_evaluate"]
