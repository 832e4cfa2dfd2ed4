"""How `python -m experiments.sweep` makes its cells: one of them, the table of all, and several processes."""
