"""Fashion-MNIST, 28x28 grey, with ResNet-18 and the CIFAR recipe of RRD (arXiv 2603.04981, App. C).

The paper does not use this set, so there is no number to reproduce; it is smaller and easier than CIFAR-10. `size=cpu`
is a small patch-stem ResNet for 15 epochs, minutes on two cores; `size=smoke` is one epoch of it.

    python -m experiments.train --config=configs/fashion_mnist.py:size=cpu,selector=infobatch \
        --workdir=runs/fashion_mnist
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  return recipes.small_images("fashion_mnist", variants)
