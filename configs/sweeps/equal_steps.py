"""Compares methods at the steps of full training, to tell a better choice of samples from mere training time.

Each method keeps 30 %, and runs once for the epochs of the recipe and once for as many epochs as give the steps of full
training (`match_steps`). The methods are those of `base.image_points` with an option `keep_fraction`, and a fixed
subset. The steps are computed from the keep fraction and the epochs on the full data; rcap, which takes the full data
in its first epoch, makes a few more.

    python -m experiments.sweep --sweep=configs/sweeps/equal_steps.py:config=configs/cifar10.py --workdir=runs/equal

Arguments: `config`, a file in configs/ (digits); `size`, its size (cpu); `epochs` (the recipe's); `features`, an array
file of features for rrd (pixels); `seeds`.
"""

from configs.sweeps import base

METHODS = ("random", "random_static", "rs2", "ucb", "rcap")
KEPT = 0.3


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, config="configs/digits.py", size="cpu", epochs=0, features="", seeds=3)
  full, *others, rrd = base.methods(("full", *METHODS, "rrd"), keep_fraction=KEPT)
  points = [*others, base.with_features(rrd, chosen["features"])]
  longer = [
    point._replace(name=f"{point.name}_equal_steps", fields={**point.fields, "match_steps": True}) for point in points
  ]
  fields = {"epochs": chosen["epochs"]} if chosen["epochs"] else {}
  axes = [[full, *points, *longer], base.seeds(chosen["seeds"])]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", axes, fields)
