"""The equal-step control: does a method gain by its samples, or only by more epochs of the same ones?

At 30 % kept, each method runs for the epochs of the recipe, and again for as many as give the steps of full training.

    python -m experiments.sweep --sweep=configs/sweeps/equal_steps.py:config=configs/cifar10.py --workdir=runs/equal

`config` is a file of configs/, digits by default, `size` its size, cpu by default, and `epochs` the recipe's epochs, 15
by default.
"""

from configs.sweeps import base

KEPT = 0.3


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, config="configs/digits.py", size="cpu", epochs=15, seeds=3)
  points = base.methods(("full", "random", "random_static", "rs2", "rcap"), keep_fraction=KEPT)
  longer = [
    base.Point(f"{point.name}_equal_steps", point.variants, {**point.fields, "epochs": round(chosen["epochs"] / KEPT)})
    for point in points[1:]
  ]
  fields = {"epochs": chosen["epochs"]}
  axes = [points + longer, base.seeds(chosen["seeds"])]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", axes, fields)
