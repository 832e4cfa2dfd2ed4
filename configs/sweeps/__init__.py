"""A file per sweep: many runs, made by `python -m experiments.sweep`."""
