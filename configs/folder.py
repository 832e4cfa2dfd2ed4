"""Your own images, in a folder per class, with ResNet-18 and the CIFAR recipe of RRD (arXiv 2603.04981, App. C).

    DIR/train/CLASS/*.png    and    DIR/test/CLASS/*.png; val/ may stand for test/, any format of Pillow for .png

    python -m experiments.train --config=configs/folder.py:selector=infobatch --config.dataset.data_dir=DIR \
        --workdir=runs/folder

`--config.dataset.image_size=64 --config.dataset.image_mode=RGB` converts images of several sizes or modes to one. All
images must fit, as bytes, in memory and on the accelerator. One line says which classes were read and which files were
passed over. Photos are turned upright by their EXIF orientation, transparency is laid on white, 16-bit grey is scaled
to 8 bits, and of several frames the first is taken. Nothing is augmented, since only you know what may be mirrored:
photos gain by `--config.dataset.augmentations=crop,flip`, digits and letters lose by a flip. `size=cpu` is a small
patch-stem ResNet for 15 epochs; `size=smoke` is one epoch of it.
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  config = recipes.small_images("folder", variants)
  config.dataset.augmentations = ()  # a mirrored digit or letter is another one
  return config
