"""Masked pre-training on CIFAR-10: He et al., "Masked Autoencoders", arXiv 2111.06377, on small images.

The encoder is ViT-Small with patches of 4x4, of which it sees a quarter. AdamW with b2 = 0.95 and weight decay 0.05,
learning rate 1.5e-4 for each 256 samples of a batch, warmed up over a twentieth of the run, then a cosine (the paper's
App. A.1, there on ImageNet-1K at 224x224 for 800 epochs with batches of 4096). Crop and flip; labels are not read.
The paper does not use CIFAR, so there is no number to reproduce, and the full size has not been run here. `size=cpu` is
a ViT of width 128 for 15 epochs, minutes on two cores; `size=smoke` is two epochs of scikit-learn's digits.

    python -m experiments.train --config=configs/mae.py:size=cpu,selector=infobatch --workdir=runs/mae
    python -m experiments.train --config=configs/cifar10.py:size=cpu,model=vit_micro,optimizer=adamw \
        --config.learning_rate=1e-3 --config.model.weights=runs/mae --workdir=runs/mae_fine_tuned

The second command fine-tunes the encoder of the first. For images of 224x224 (`configs/imagenet.py` reads them) the
encoder is vit_b16 or vit_l16 and `task.patch` 16; `model.weights` may then also name a folder with the weights of
facebook/vit-mae-base.
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  chosen = recipes.parse(variants, ("cpu", "smoke"))
  size = chosen.pop("size")
  smoke = size == "smoke"
  named = {"model": "vit_mae", "task": "masked_image", "optimizer": "adamw", **chosen}
  config = recipes.get_config("digits" if smoke else "cifar10", **named)
  config.dataset.augmentations = () if smoke else config.dataset.augmentations
  if config.model.name == "vit_mae":
    config.model.encoder = "vit_small" if size == "full" else "vit_micro"
  if config.optimizer.name == "adamw":
    config.optimizer.update(b2=0.95, weight_decay=0.05)
  if config.schedule.name in ("cosine", "linear"):
    config.schedule.warmup = 0.05
  config.batch_size = {"full": 512, "cpu": 128, "smoke": 64}[size]
  config.learning_rate = {"full": 3e-4, "cpu": 1e-3, "smoke": 1e-3}[size]
  config.epochs = {"full": 400, "cpu": 15, "smoke": 2}[size]
  if smoke:
    config.eval_batch_size = 360
    if config.task.name == "masked_image":
      config.task.patch = 2
  return config
