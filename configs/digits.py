"""scikit-learn's digits: 1,442 training and 355 test images of 8x8 pixels, bundled with the library, no download.

The default example: it takes seconds on any machine and shows that everything works, but is too small for a benchmark.

    python -m experiments.train --config=configs/digits.py --workdir=runs/digits
    python -m experiments.train --config=configs/digits.py:selector=infobatch --workdir=runs/digits_infobatch
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  chosen = recipes.parse(variants, ("cpu", "smoke"))
  size = chosen.pop("size")
  config = recipes.get_config("digits", **{"model": "mlp", "selector": "random", **chosen})
  config.dataset.augmentations = ()
  config.learning_rate = 0.1
  config.batch_size = 64
  config.eval_batch_size = 360
  config.epochs = 30
  config.checkpoint_every_steps = 100
  if "factors" in config:  # a small set has few factors, and needs small batches for enough steps
    config.factors.update(expansion_factor=4, k=8, batch_size=64, learning_rate=4e-3)
  recipes.name_proxy(config, "mlp", hidden=(16,))
  if size == "smoke":
    config.epochs = 2
  return config
