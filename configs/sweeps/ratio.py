"""Accuracy against the share kept: `full`, and four methods that keep an exact share at 10, 20, 30, 50 and 70 %.

    python -m experiments.sweep --sweep=configs/sweeps/ratio.py:config=configs/cifar100.py --workdir=runs/ratio

`config` is a file of configs/, digits by default, `size` its size, cpu by default; `:seeds=N` as everywhere.
"""

from configs.sweeps import base

KEPT = (0.1, 0.2, 0.3, 0.5, 0.7)
METHODS = ("random", "rs2", "rcap", "rrd")


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, config="configs/digits.py", size="cpu", seeds=3)
  points = base.methods(("full",)) + [point for kept in KEPT for point in base.methods(METHODS, keep_fraction=kept)]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", [points, base.seeds(chosen["seeds"])])
