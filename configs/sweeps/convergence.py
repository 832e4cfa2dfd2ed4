"""Compares how fast full training, RCAP and RRD reach an accuracy: arXiv 2603.04981, Fig. 4 (ResNet-18, CIFAR-10).

    python -m experiments.sweep --sweep=configs/sweeps/convergence.py:config=configs/cifar10.py \
        --workdir=runs/convergence
    python -m experiments.report --workdir=runs/convergence --out=reports/convergence --target=0.9

The figure counts the steps to a validation accuracy of 90 %; RRD takes the fewest. It has no numbers and does not state
the keep fraction. Its counterparts in the report are the learning curves and the table of epochs, visits and seconds to
the target. Arguments: `config`, a file in configs/ (digits); `size`, its size (cpu); `features`, an array file of
features for rrd (pixels); `keep`, the keep fraction (0.3); `seeds`.
"""

from configs.sweeps import base


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, config="configs/digits.py", size="cpu", features="", keep=0.3, seeds=3)
  *others, rrd = base.methods(("full", "random", "rcap", "rrd"), keep_fraction=chosen["keep"])
  axes = [[*others, base.with_features(rrd, chosen["features"])], base.seeds(chosen["seeds"])]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", axes)
