"""Regression: least squares on one number per sample. Pure functions, except the correlations.

`b` is the number of samples of a batch, `N` that of a data set.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import scipy  # imports its `stats` on use, which takes longer than JAX
from jax import Array

from dynsel_jax.data.gather import View
from dynsel_jax.data.source import Source
from dynsel_jax.options import UserError
from dynsel_jax.tasks.task import Batch, Metric, Task

__all__ = ["regression"]


def regression(source: Source, view: View) -> Task:
  """Predicts the "targets" of a data set, `[N]` float32, by least squares.

  The metrics are the mean squared error and, over the whole data set, the correlations of Pearson and Spearman between
  predictions and targets. A correlation is NaN if the predictions or the targets are constant.

  Args:
    source: the data set, with targets; scale them to a standard deviation around 1.
    view: its augmentation and normalisation.

  Raises:
    UserError: the data set has no targets, or they are not one floating-point number per sample.
  """
  targets = source.train.get("targets")
  if targets is None:
    raise UserError(
      f"task.name=regression reads the array 'targets'; dataset.name={source.name} has {', '.join(source.train)}"
    )
  if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.floating):
    raise UserError(
      f"task.name=regression: 'targets' of dataset.name={source.name} has shape {targets.shape} and type"
      f" {targets.dtype}; it must be [N] floating-point numbers"
    )

  def squared_error(outputs: Array, batch: Batch) -> Array:
    return jnp.square(outputs[:, 0] - batch["targets"].astype(jnp.float32))

  def losses(outputs: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
    return squared_error(outputs, batch), {}

  def metrics(outputs: Array, batch: Batch, valid: Array) -> dict[str, tuple[Array, Array]]:
    total, count = jnp.sum(jnp.where(valid, squared_error(outputs, batch), 0.0)), jnp.sum(valid, dtype=jnp.int32)
    return {"loss": (total, count), "mean_squared_error": (total, count)}

  def rows(outputs: Array, batch: Batch) -> dict[str, Array]:
    return {"prediction": outputs[:, 0], "target": batch["targets"].astype(jnp.float32)}

  def summarize(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    pair = rows["prediction"], rows["target"]
    if any(len(values) < 2 or np.ptp(values) == 0 for values in pair):
      return {"pearson": float("nan"), "spearman": float("nan")}
    return {"pearson": float(np.corrcoef(*pair)[0, 1]), "spearman": float(scipy.stats.spearmanr(*pair)[0])}

  return Task(
    name="regression",
    metric=Metric("mean_squared_error", larger_is_better=False),
    signals=(),
    num_outputs=1,
    inputs=view,
    losses=losses,
    metrics=metrics,
    rows=rows,
    summarize=summarize,
  )
