"""Methods of dynamic data selection, one to a file, with their building blocks and the wrappers around them."""

from dynsel_jax.selectors.registry import METHODS, Method, check_reads, columns, create, defaults

__all__ = ["METHODS", "Method", "check_reads", "columns", "create", "defaults"]
