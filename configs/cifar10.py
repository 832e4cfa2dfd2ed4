"""CIFAR-10 with ResNet-18: RRD (arXiv 2603.04981), Table 1: 96.1 % on all data, 96.1 % at 70 % kept, 95.3 % at 30 %.

SGD with momentum 0.9 and weight decay 5e-4, batch 128, learning rate 0.1, cosine over 200 epochs, crop and flip. The
paper used one RTX A6000. `size=cpu` is a small patch-stem ResNet for 15 epochs, minutes on two cores; `size=smoke` is
one epoch of it.

    python -m experiments.train --config=configs/cifar10.py:selector=infobatch --workdir=runs/cifar10_infobatch
    python -m experiments.train --config=configs/cifar10.py:size=cpu,selector=random \
        --config.selector.keep_fraction=0.3 --workdir=runs/cifar10_random
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  return recipes.small_images("cifar10", variants)
