"""CIFAR-100 with ResNet-18: RRD (arXiv 2603.04981), Table 1: 78.2 % on all data, 78.4 % at 70 % kept, 76.7 % at 30 %.

SGD with momentum 0.9 and weight decay 5e-4, batch 128, learning rate 0.1, cosine over 200 epochs, crop and flip. The
paper used one RTX A6000. With `model=resnet50` Table 1 has 79.1 %, 79.1 % and 75.7 %. `size=cpu` is a small patch-stem
ResNet for 15 epochs, minutes on two cores; `size=smoke` is one epoch of it.

    python -m experiments.train --config=configs/cifar100.py:selector=rrd --config.selector.keep_fraction=0.7 \
        --workdir=runs/cifar100_rrd
    python -m experiments.train --config=configs/cifar100.py:size=cpu,selector=infobatch --workdir=runs/cifar100_cpu

Appendix C.5 (Table 10) also has 77.3 % on all data with `schedule=multi_step`, which divides the learning rate by 5 at
epochs 60, 120 and 180, and 78.2 % with `schedule=one_cycle`.
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  return recipes.small_images("cifar100", variants)
