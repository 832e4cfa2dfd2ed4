"""Studies that do not train: `python -m experiments.studies.NAME`."""
