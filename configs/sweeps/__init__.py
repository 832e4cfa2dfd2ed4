"""Sweeps: many runs from one file, for `python -m experiments.sweep`."""
