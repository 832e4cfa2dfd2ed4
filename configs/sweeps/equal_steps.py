"""The equal-step control: does a method gain by its samples, or only by more epochs of the same ones?

At 30 % kept, each method runs for the epochs of the recipe, and again for as many as give the steps of full training
(`match_steps`). The methods are those of `base.image_points` that keep a share of their user's choice, and a fixed
subset. The steps are those of the share and of epochs on all data; rcap, which warms up on all in its first epoch,
makes a few more.

    python -m experiments.sweep --sweep=configs/sweeps/equal_steps.py:config=configs/cifar10.py --workdir=runs/equal

`config` is a file of configs/, digits by default, `size` its size, cpu by default; `epochs` the recipe's epochs where
it is to have others; `features` an array file for rrd, pixels where it is not given.
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
