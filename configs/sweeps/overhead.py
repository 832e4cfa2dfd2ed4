"""What RRD's offline stage costs, and what is left of the speed-up: arXiv 2603.04981, Table 5.

    python -m experiments.sweep --sweep=configs/sweeps/overhead.py:config=configs/cifar10.py --workdir=runs/overhead

The table has full training at 96.1 % on CIFAR-10 and 58.2 % on Tiny-ImageNet, and RRD at 95.7 % and 2.51 times as fast,
with 0.0028 GPU hours for features, autoencoder and scores, and at 58.1 % and 1.34 times as fast, with 0.12. It does not
say what was kept: at 30 and 70 % with the full data in the last 15 % of the epochs, a run trains on 1 / 2.47 and
1 / 1.34 of the samples. Random rotation, which has no such stage, stands beside them.

`config` is a file of configs/, digits by default, `size` its size, cpu by default; `features` an array file for rrd,
pixels where it is not given: one that was made before costs nothing here. `cache` is a folder that is not there yet,
runs/overhead_cache by default, so that the first seed at each share pays for the stage, as the report counts it.
"""

from configs.sweeps import base

KEPT = (0.3, 0.7)


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  files = {"features": "", "cache": "runs/overhead_cache"}
  chosen = base.parse(arguments, config="configs/digits.py", size="cpu", seeds=3, **files)
  points = base.methods(("full",))
  for share in KEPT:
    random, rrd = base.methods(("random", "rrd"), keep_fraction=share)
    rrd = base.with_features(rrd, chosen["features"])
    own_cache = {"cache_dir": f"{chosen['cache']}/{rrd.name}"}
    points += [random, base.Point(rrd.name, rrd.variants, {**rrd.fields, **own_cache})]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", [points, base.seeds(chosen["seeds"])])
