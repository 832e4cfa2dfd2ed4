"""Measures the cost of RRD's offline stage, and the speed-up that remains: arXiv 2603.04981, Table 5.

    python -m experiments.sweep --sweep=configs/sweeps/overhead.py:config=configs/cifar10.py --workdir=runs/overhead

On CIFAR-10 the table has 96.1 % for full training and 95.7 % for RRD, 2.51 times as fast, with 0.0028 GPU hours for
features, autoencoder and scores; on Tiny-ImageNet 58.2 % and 58.1 %, 1.34 times as fast, with 0.12 GPU hours. It does
not state the keep fraction. With the full data in the last 15 % of the epochs, a run at 30 % trains on 1 / 2.47 of the
samples, and one at 70 % on 1 / 1.34. Random rotation, which has no offline stage, is run for comparison.

Arguments: `config`, a file in configs/ (digits); `size`, its size (cpu); `features`, an array file of features for rrd,
whose making is not counted (pixels); `cache`, a folder that does not exist yet, so that the first seed at each keep
fraction computes the stage and the report counts it (runs/overhead_cache); `seeds`.
"""

from configs.sweeps import base

KEPT = (0.3, 0.7)


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  files = {"features": "", "cache": "runs/overhead_cache"}
  chosen = base.parse(arguments, config="configs/digits.py", size="cpu", seeds=3, **files)
  points = base.methods(("full",))
  for kept in KEPT:
    random, rrd = base.methods(("random", "rrd"), keep_fraction=kept)
    rrd = base.with_features(rrd, chosen["features"])
    own_cache = {"cache_dir": f"{chosen['cache']}/{rrd.name}"}
    points += [random, base.Point(rrd.name, rrd.variants, {**rrd.fields, **own_cache})]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", [points, base.seeds(chosen["seeds"])])
