"""What is measured, compared or drawn beside the sweeps: `python -m experiments.studies.NAME`."""
