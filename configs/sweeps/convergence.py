"""How soon a method gets there: full training, RCAP and RRD, arXiv 2603.04981, Fig. 4 (there ResNet-18 on CIFAR-10).

    python -m experiments.sweep --sweep=configs/sweeps/convergence.py:config=configs/cifar10.py \
        --workdir=runs/convergence
    python -m experiments.report --workdir=runs/convergence --out=reports/convergence --target=0.9

The figure counts the steps to a validation accuracy of 90 %, of which RRD takes the fewest; it has no numbers and does
not say what was kept: `keep=0.3` here. The report's learning curves and its table of epochs, visits and seconds to the
target stand for it. `config` is a file of configs/, digits by default, `size` its size, cpu by default; `features` an
array file for rrd, pixels where it is not given.
"""

from configs.sweeps import base


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, config="configs/digits.py", size="cpu", features="", keep=0.3, seeds=3)
  *others, rrd = base.methods(("full", "random", "rcap", "rrd"), keep_fraction=chosen["keep"])
  axes = [[*others, base.with_features(rrd, chosen["features"])], base.seeds(chosen["seeds"])]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", axes)
