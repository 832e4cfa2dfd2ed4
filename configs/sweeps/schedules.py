"""Compares three learning-rate schedules for full training, random rotation and RRD: arXiv 2603.04981, Table 10.

    python -m experiments.sweep --sweep=configs/sweeps/schedules.py:config=configs/cifar100.py --workdir=runs/schedules

The table has full training and RRD, at a keep fraction that it does not state, with ResNet-18 on CIFAR-100: multi-step
77.3 and 77.6 %, one cycle 78.2 and 78.2 %, cosine 78.2 and 78.4 %. Here 30 % are kept.

Arguments: `config`, a file in configs/ (digits); `size`, its size (cpu); `features`, an array file of features for rrd
(pixels); `seeds`.
"""

from configs.sweeps import base


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, config="configs/digits.py", size="cpu", features="", seeds=3)
  *others, rrd = base.methods(("full", "random", "rrd"), keep_fraction=0.3)
  schedules = [base.Point(name, {"schedule": name}, {}) for name in ("cosine", "multi_step", "one_cycle")]
  axes = [[*others, base.with_features(rrd, chosen["features"])], schedules, base.seeds(chosen["seeds"])]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", axes)
