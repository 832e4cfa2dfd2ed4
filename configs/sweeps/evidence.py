"""The evidence grid: methods side by side where full training has converged, so that a selection could be lossless.

On Fashion-MNIST (`config=configs/fashion_mnist.py`) or CIFAR-10, three seeds each: plain training, chance in its forms,
the rotation of RRD's penalty alone, and the published methods; those that keep an exact share at 30 and at 50 %, the
others at their authors' settings. The recipe is that of `base.converged`.

    python -m experiments.sweep --sweep=configs/sweeps/evidence.py:features=cifar10.npz --processes=2 \
        --workdir=runs/evidence/cifar10

`features` is an array file for rrd, pixels where it is not given; `:seeds=N` another number of seeds.
"""

from configs.sweeps import base


def points(keep_fraction: float, features: str = "") -> list[base.Point]:
  """Returns the methods that keep an exact share, at `keep_fraction`; rrd reads the array file `features`, if any."""
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
