"""Measures accuracy against the keep fraction: full training, and four methods at 10, 20, 30, 50 and 70 %.

    python -m experiments.sweep --sweep=configs/sweeps/ratio.py:config=configs/cifar100.py --workdir=runs/ratio

RRD (arXiv 2603.04981), Table 1, has these accuracies with ResNet-18 at 70 and 30 %, in this order:

    CIFAR-10   random 94.8, 93.0; RS2 94.9, 94.1; RCAP 95.9, 94.4; RRD 96.1, 95.3; full training 96.1
    CIFAR-100  random 77.3; RS2 76.9, 75.8; RCAP 77.6, 75.6; RRD 78.4, 76.7; full training 78.2

Arguments: `config`, a file in configs/ (digits); `size`, its size (cpu); `features`, an array file of features for rrd
(pixels); `seeds`.
"""

from configs.sweeps import base

KEPT = (0.1, 0.2, 0.3, 0.5, 0.7)
METHODS = ("random", "rs2", "rcap", "rrd")


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, config="configs/digits.py", size="cpu", features="", seeds=3)
  points = base.methods(("full",))
  for kept in KEPT:
    *others, rrd = base.methods(METHODS, keep_fraction=kept)
    points += [*others, base.with_features(rrd, chosen["features"])]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", [points, base.seeds(chosen["seeds"])])
