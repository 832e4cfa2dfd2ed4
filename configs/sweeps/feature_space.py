"""Compares the feature spaces in which RRD finds its factors: arXiv 2603.04981, Table 7 (ResNet-18 on CIFAR-10).

    python -m experiments.sweep --sweep=configs/sweeps/feature_space.py:config=configs/cifar10.py,clip=clip_vit_l14 \
        --workdir=runs/feature_space

The table has 96.1, 95.6 and 95.3 % for CLIP and 95.9, 95.4 and 95.1 % for the ResNet-18's own features, under the keep
fractions 30, 50 and 70 %. Tables 1 and 4 have 96.1 % at 70 %, so the columns seem to be in reverse order. The spaces
here are the model's own features after a short run (`backbone`), `pixels`, CLIP if `clip` names its weights, and an
array file if `features` names one. Full training and random rotation are run for comparison. Further arguments:
`config`, a file in configs/ (digits); `size`, its size (cpu); `seeds`.
"""

from configs.sweeps import base

KEPT = (0.3, 0.5, 0.7)


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, config="configs/digits.py", size="cpu", clip="", features="", seeds=3)
  spaces = [base.Point(name, {"features": name}, {}) for name in ("backbone", "pixels")]
  for name, path in (("clip", chosen["clip"]), ("file", chosen["features"])):
    if path:
      spaces.append(base.Point(name, {"features": name}, {"features.path": path}))
  points = base.methods(("full",))
  for kept in KEPT:
    random, rrd = base.methods(("random", "rrd"), keep_fraction=kept)
    points.append(random)
    for space in spaces:
      points.append(
        base.Point(f"{rrd.name}_{space.name}", {**rrd.variants, **space.variants}, {**rrd.fields, **space.fields})
      )
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", [points, base.seeds(chosen["seeds"])])
