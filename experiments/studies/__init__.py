"""Studies of a paper's claims beside training: `python -m experiments.studies.NAME`."""
