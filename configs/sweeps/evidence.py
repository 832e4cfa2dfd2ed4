"""Compares methods in a recipe with which full training converges, so that a selection can be lossless.

Three seeds each on CIFAR-10, or on Fashion-MNIST with `config=configs/fashion_mnist.py`: full training, random
selection in several forms, RRD's usage penalty alone, and published methods. Those with a keep fraction keep 30 and
50 %, the others have their authors' settings. The recipe is `base.converged`.

    python -m experiments.sweep --sweep=configs/sweeps/evidence.py:features=cifar10.npz --processes=2 \
        --workdir=runs/evidence/cifar10

Arguments: `config`; `features`, an array file of features for rrd (pixels); `seeds`.
"""

from configs.sweeps import base


def points(keep_fraction: float, features: str = "") -> list[base.Point]:
  """Returns the methods with a keep fraction; rrd reads the array file `features`, or pixels if it is empty."""
  known = base.methods(("random", "rs2", "ucb", "rcap", "rrd"), keep_fraction=keep_fraction)
  chance, rs2, *others, rrd = known
  replaced = rs2._replace(name=f"{rs2.name}_replacement", fields={**rs2.fields, "selector.replacement": True})
  alone = {"selector.representativeness": False, "selector.diversity": False}
  rotation = rrd._replace(name=f"rotation_keep{keep_fraction}", fields={**rrd.fields, **alone})
  return [chance, rs2, replaced, rotation, *others, base.with_features(rrd, features)]


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, config="configs/cifar10.py", features="", seeds=3)
  whole = base.methods(("full", "infobatch", "es", "eswp"))
  axes = [
    [*whole, *points(0.3, chosen["features"]), *points(0.5, chosen["features"])],
    base.seeds(chosen["seeds"]),
  ]
  return base.Sweep(f"{chosen['config']}:size=cpu", axes, base.converged(chosen["config"]))
