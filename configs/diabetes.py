"""scikit-learn's diabetes: 354 training and 88 test patients of 10 numbers, bundled with the library, no download.

The default example of a regression: the task predicts the progression of the disease after a year, standardised by the
training patients, so that a constant prediction has a mean squared error of 1. It takes seconds on any machine.

    python -m experiments.train --config=configs/diabetes.py --workdir=runs/diabetes
    python -m experiments.train --config=configs/diabetes.py:selector=infobatch --workdir=runs/diabetes_infobatch

Methods that read labels or signals of a classifier, such as kakurenbo, rcap and rrd, are refused.
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  chosen = recipes.parse(variants, ("cpu", "smoke"))
  size = chosen.pop("size")
  config = recipes.get_config("diabetes", **{"model": "mlp", "selector": "random", "task": "regression", **chosen})
  config.dataset.augmentations = ()
  config.learning_rate = 0.003
  config.batch_size = 32
  config.eval_batch_size = 88
  config.epochs = 30
  config.checkpoint_every_steps = 100
  if size == "smoke":
    config.epochs = 2
  return config
