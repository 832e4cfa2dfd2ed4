"""The `Sampler`: any method of selection in any training loop. Host-side, numpy in and out, no framework."""

from dynsel_jax.sampler.sampler import Epoch, Sampler

__all__ = ["Epoch", "Sampler"]
