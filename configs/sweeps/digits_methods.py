"""Compares on digits every method that needs no score file, three seeds each: minutes on two CPU cores.

    python -m experiments.sweep --sweep=configs/sweeps/digits_methods.py --workdir=runs/digits_methods

Arguments: `seeds`, `epochs`.
"""

from configs.sweeps import base


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, seeds=3, epochs=30)
  axes = [base.methods(base.needs_no_file()), base.seeds(chosen["seeds"])]
  return base.Sweep("configs/digits.py", axes, {"epochs": chosen["epochs"]})
