"""Compares RRD with an autoencoder of another data set and with one of its own: arXiv 2603.04981, Table 4.

    python -m experiments.fit_factors --config=configs/cifar100.py:features=file \
        --config.features.path=clip_cifar100.npz --workdir=runs/factors
    python -m experiments.sweep --sweep=configs/sweeps/sae_transfer.py:features=clip.npz,sae=runs/factors/sae.npz \
        --workdir=runs/sae_transfer

The table has ResNet-18 on CIFAR-10 at 70, 50 and 30 % kept: 96.1, 95.6 and 95.7 % with an autoencoder of ImageNet-1K,
96.1, 95.6 and 95.3 % with one of CIFAR-10, and 96.1 % on all data. Arguments: `features`, an array file with this set's
features, made by the same encoder as those of the other set; `sae`, the file that `experiments.fit_factors` wrote for
the other set; `config`, a file in configs/ (cifar10); `size`, its size (cpu); `seeds`.
"""

from configs.sweeps import base

KEPT = (0.7, 0.5, 0.3)


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  files = {"features": "clip.npz", "sae": "runs/factors/sae.npz"}
  chosen = base.parse(arguments, config="configs/cifar10.py", size="cpu", seeds=3, **files)
  points = base.methods(("full",))
  for kept in KEPT:
    (point,) = base.methods(("rrd",), keep_fraction=kept)
    own = base.with_features(point, chosen["features"])
    moved = {**own.fields, "factors.sae": chosen["sae"]}
    points += [own._replace(name=f"{point.name}_own"), base.Point(f"{point.name}_transferred", own.variants, moved)]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", [points, base.seeds(chosen["seeds"])])
