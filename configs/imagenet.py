"""ImageNet-1K with ResNet-34: RRD (arXiv 2603.04981), Table 2: 73.1 % on all data, 73.8 % at 30 % kept.

SGD with Nesterov momentum 0.9 and weight decay 5e-4, batch 256, learning rate 0.1, cosine to 1e-6 over 90 epochs,
random resized crops of 224 and flips; evaluation takes the centre of an image whose shorter side is 256. Images stay on
disk and are read ahead of each step (`dynsel_jax/data/stream.py`). This recipe has not been run here at full size.

In the paper's table a method that keeps less trains for more epochs, so that every row makes as many forward passes as
full training and none saves time. `--config.match_steps=True` does the same, computed from the keep fraction.

    DIR/train/CLASS/*.JPEG and DIR/val/CLASS/*.JPEG, or a set that TensorFlow Datasets has prepared as ArrayRecord

    python -m experiments.train --config=configs/imagenet.py:selector=random --config.dataset.data_dir=DIR \
        --workdir=runs/imagenet
    python -m experiments.train --config=configs/imagenet.py:selector=random --config.dataset.name=imagenet2012 \
        --config.match_steps=True --workdir=runs/imagenet_random

Any other set of large images is read the same way, whatever its number of classes. For a method that reads factor
scores the default is `features=clip`. `size=cpu` is a small patch-stem ResNet at 64x64 for 15 epochs, `size=smoke` one
epoch of it; both are meant for a few of the classes.
"""

import ml_collections

from dynsel_jax import recipes, selectors
from dynsel_jax.data import stream_sets
from dynsel_jax.offline import factor_stage


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  chosen = recipes.parse(variants, ("cpu", "smoke"))
  size = chosen.pop("size")
  if set(selectors.columns(chosen.get("selector", "full"))) & set(factor_stage.COLUMNS):
    chosen.setdefault("features", "clip")
  config = recipes.get_config("folder", **{"model": "resnet34" if size == "full" else "resnet_patch", **chosen})
  config.dataset.update(stream=True, augmentations=("resized_crop", "flip"), **stream_sets.defaults())
  if "imagenet_stem" in config.model:
    config.model.imagenet_stem = True
  if config.schedule.name == "cosine":
    config.schedule.end = 1e-6
  config.batch_size = 256
  config.epochs = 90
  recipes.name_proxy(config, "resnet_patch", **({} if size == "full" else {"width": 16}))
  if size != "full":
    config.dataset.update(image_size=64, resize=72)
    config.epochs = 15 if size == "cpu" else 1
  return config
