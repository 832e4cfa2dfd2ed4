"""Methods of dynamic data selection, one to a file, and what they are written with."""

from dynsel_jax.selectors.registry import METHODS, Method, columns, create, defaults, weighting

__all__ = ["METHODS", "Method", "columns", "create", "defaults", "weighting"]
