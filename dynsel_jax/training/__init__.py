"""Training on a changing subset: state, steps, devices, checkpoints, and the loop over them.

`train_and_evaluate(config, workdir)` makes a whole run, with a config from `dynsel_jax.recipes.get_config`. A method
that reads columns, such as rrd, is trained by the function of the same name in `dynsel_jax.offline`, which makes them.
"""

from dynsel_jax.options import needs

with needs(__name__, "dynsel_jax[train]"):
  from dynsel_jax.training.loop import Result, train_and_evaluate

__all__ = ["Result", "train_and_evaluate"]
