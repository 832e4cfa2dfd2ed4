"""`python -m experiments.faults`: breaks runs on purpose, and watches memory over long ones. See `docs/faults.md`."""
