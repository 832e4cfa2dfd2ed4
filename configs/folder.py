"""Your own images, in a folder for each class, with ResNet-18 and the CIFAR recipe of RRD (arXiv 2603.04981, App. C).

    DIR/train/CLASS/*.png    and    DIR/test/CLASS/*.png, or val/ in its place; .jpeg and .jpg too

    python -m experiments.train --config=configs/folder.py:selector=infobatch --config.dataset.data_dir=DIR \
        --workdir=runs/folder

Images of many sizes or modes are brought to one by `--config.dataset.image_size=64 --config.dataset.image_mode=RGB`.
All of them must fit in memory, and on the accelerator, as bytes. `size=cpu` is a small patch-stem ResNet for 15 epochs;
`size=smoke` is an epoch of it.
"""

import ml_collections

from configs import base


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `configs/base.py`."""
  return base.small_images("folder", variants)
