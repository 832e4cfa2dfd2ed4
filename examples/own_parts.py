"""A data set, a model and a task of your own, for the trainer: a quantile of the progression of diabetes.

    pip install '.[train]'
    python examples/own_parts.py

In a package of yours, my_lab/parts.py, the same run is the command

    python -m experiments.train --config=configs/digits.py:dataset=my_lab.parts:load,model=my_lab.parts:net,\
    task=my_lab.parts:quantile,selector=infobatch --config.epochs=20 --config.learning_rate=0.01 --workdir=runs/mine
"""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from sklearn.datasets import load_diabetes

from dynsel_jax import data, offline, options, recipes, tasks


# --8<-- [start:data]
def load(*, test_fraction: float = 0.2) -> data.Source:
  """Returns scikit-learn's 442 patients; the option is `--config.dataset.test_fraction=0.3`."""
  x, y = load_diabetes(return_X_y=True)
  x, y = (x / x.std(axis=0)).astype(np.float32), (y / y.std()).astype(np.float32)
  held_out = np.random.default_rng(0).random(len(x)) < test_fraction
  parts = [{"inputs": x[rows], "targets": y[rows]} for rows in (~held_out, held_out)]
  return data.from_arrays("patients", *parts)


# --8<-- [end:data]
# --8<-- [start:model]
class Net(nn.Module):
  """A perceptron; it returns outputs `[B, num_outputs]` and intermediates by name."""

  num_outputs: int
  width: int

  @nn.compact
  def __call__(self, inputs, valid, train):
    """Computes the outputs."""
    features = nn.relu(nn.Dense(self.width)(inputs))
    return nn.Dense(self.num_outputs, name="head")(features), {"features": features}


def net(num_outputs, dtype, axis_name, *, width: int = 32) -> nn.Module:
  """Returns the model; the option is `--config.model.width=64`."""
  return Net(num_outputs, width)


# --8<-- [end:model]
# --8<-- [start:task]
def quantile(source, view, *, level: float = 0.9) -> tasks.Task:
  """Predicts a quantile of the targets; the option is `--config.task.level=0.5`."""
  options.check_fraction("task.level", level)

  def losses(outputs, batch):
    error = batch["targets"] - outputs[:, 0]
    return jnp.maximum(level * error, (level - 1) * error), {"above": error > 0}  # selectors may read `above`

  def metrics(outputs, batch, valid):
    loss, extras = losses(outputs, batch)
    count = jnp.sum(valid, dtype=jnp.int32)
    return {"pinball_loss": (jnp.sum(loss, where=valid), count), "above": (jnp.sum(valid & extras["above"]), count)}

  headline = tasks.Metric("pinball_loss", "", larger_is_better=False)
  return tasks.Task("quantile", headline, ("above",), 1, view, losses, metrics)


# --8<-- [end:task]
if __name__ == "__main__":
  mine = {"dataset": f"{__name__}:load", "model": f"{__name__}:net", "task": f"{__name__}:quantile"}
  config = recipes.get_config("patients", **mine, selector="infobatch")
  config.update(batch_size=32, epochs=20, learning_rate=0.01)
  offline.train_and_evaluate(config, "runs/own_parts")
