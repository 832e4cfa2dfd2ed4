"""CIFAR-100 with label noise, ResNet-50: RRD (arXiv 2603.04981), Table 8: 60.9 % at 30 % kept, 60.3 % at 20 %.

20 % of the training labels are replaced by a class drawn uniformly from all 100, so that 19.8 % are wrong; the test
labels are unchanged. The same table has 55.7 % and 54.5 % for InfoBatch, and no result on all data. SGD with momentum
0.9 and weight decay 5e-4, batch 128, learning rate 0.1, cosine over 200 epochs, crop and flip, on one RTX A6000.
`size=cpu` is a small patch-stem ResNet for 15 epochs, minutes on two cores; `size=smoke` is one epoch of it.

    python -m experiments.train --config=configs/cifar100_noisy.py:selector=rrd \
        --config.selector.keep_fraction=0.3 --workdir=runs/cifar100_noisy_rrd
    python -m experiments.train --config=configs/cifar100_noisy.py:size=cpu,selector=infobatch \
        --config.dataset.label_noise.rate=0.4 --workdir=runs/cifar100_noisy_cpu

`noise.npz` in the workdir marks the wrong labels; `noisy_fraction_kept` in `metrics.jsonl` is the fraction of the
epoch's samples that have one.
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  config = recipes.small_images("cifar100", variants, model="resnet50")
  config.dataset.label_noise.rate = 0.2
  return config
