"""The `Sampler`: any method of selection in any training loop. Host-side, numpy in and out, no framework."""

from dynsel_jax.sampler.epoch import Batches, Epoch
from dynsel_jax.sampler.sampler import Sampler
from dynsel_jax.sampler.unread import Unread

__all__ = ["Batches", "Epoch", "Sampler", "Unread"]
