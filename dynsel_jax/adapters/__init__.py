"""A `Sampler` inside other people's loaders and trainers, a file per framework, which is imported with its file.

    from dynsel_jax.adapters import torch  # or grain, transformers, tunix

In each of them a batch counts as done when `Sampler.observe` has been shown its losses, however far a loader with
workers has read, so `Sampler.state_dict` is all that a stopped loop needs to go on with the same samples.
"""

__all__: list[str] = []
