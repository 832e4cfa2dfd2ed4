"""Data sets as arrays, and what turns sample indices into a batch."""

from dynsel_jax.data.sources import Dataset, Source, load

__all__ = ["Dataset", "Source", "load"]
