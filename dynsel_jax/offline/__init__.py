"""Everything that is made before a run: features, factors, proxy scores. Hands training the columns of a `SampleTable`."""

from dynsel_jax.offline.columns import columns, train_and_evaluate

__all__ = ["columns", "train_and_evaluate"]
