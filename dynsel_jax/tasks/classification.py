"""Classification: softmax cross-entropy over classes. Pure functions.

`b` is the number of samples of a batch, `C` the number of classes.
"""

import jax
import jax.numpy as jnp
from jax import Array

from dynsel_jax.data.gather import View
from dynsel_jax.data.source import Source
from dynsel_jax.options import UserError, check_fraction
from dynsel_jax.tasks import logit_geometry
from dynsel_jax.tasks.task import Batch, Metric, Task

__all__ = ["SIGNALS", "classification", "cross_entropy", "signals"]

SIGNALS = ("confidence", "margin", "el2n", "correct", "nuclear_norm", "projection")


def cross_entropy(logits: Array, labels: Array, label_smoothing: float = 0.0) -> Array:
  """Computes the cross-entropy of each sample in nats, `[b]` float32.

  With label smoothing e the target is (1 - e) on the label plus e / C on every class (arXiv 1512.00567, Sec. 7).
  """
  log_probabilities = jax.nn.log_softmax(logits)
  label_log_probability = jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)[:, 0]
  if not label_smoothing:
    return -label_log_probability
  return -(1.0 - label_smoothing) * label_log_probability - label_smoothing * log_probabilities.mean(axis=-1)


def signals(logits: Array, labels: Array) -> dict[str, Array]:
  """Computes the extras of a batch, `[b]` each, from logits `[b, C]` float32 and labels `[b]` int32.

  `confidence` is the probability of the predicted class; `margin` is the probability of the label minus the largest
  other one; `el2n` is the Euclidean norm of probabilities minus one-hot label (arXiv 2107.07075); `correct` (bool) says
  whether the predicted class is the label.
  """
  probabilities = jax.nn.softmax(logits)
  is_label = jnp.arange(logits.shape[-1])[None, :] == labels[:, None]
  label_probability = jnp.sum(jnp.where(is_label, probabilities, 0.0), axis=-1)
  largest_other = jnp.max(jnp.where(is_label, 0.0, probabilities), axis=-1)
  return {
    "confidence": jnp.max(probabilities, axis=-1),
    "margin": label_probability - largest_other,
    "el2n": jnp.linalg.norm(probabilities - is_label.astype(probabilities.dtype), axis=-1),
    "correct": jnp.argmax(logits, axis=-1) == labels,
  }


def classification(source: Source, view: View, *, label_smoothing: float = 0.0) -> Task:
  """Predicts the "labels" of a data set with softmax cross-entropy; the extras are of `signals` and `of_one_row`.

  Args:
    source: the data set, with labels.
    view: its augmentation and normalisation.
    label_smoothing: in [0, 1), applied to the loss that is minimised. Selectors observe the loss without it.

  Raises:
    UserError: the data set has no labels, or the label smoothing lies outside its range.
  """
  check_fraction("task.label_smoothing", label_smoothing, zero=True, one=False)
  if source.labels is None:
    raise UserError(
      f"task.name=classification reads the array 'labels'; dataset.name={source.name} has {', '.join(source.train)}"
    )

  def losses(outputs: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
    extras = signals(outputs, batch["labels"]) | logit_geometry.of_one_row(outputs)
    return cross_entropy(outputs, batch["labels"]), extras

  def objective(outputs: Array, batch: Batch) -> Array:
    return cross_entropy(outputs, batch["labels"], label_smoothing)

  def metrics(outputs: Array, batch: Batch, valid: Array) -> dict[str, tuple[Array, Array]]:
    correct = valid & (jnp.argmax(outputs, axis=-1) == batch["labels"])
    losses = jnp.where(valid, cross_entropy(outputs, batch["labels"]), 0.0)
    count = jnp.sum(valid, dtype=jnp.int32)
    return {"loss": (jnp.sum(losses), count), "accuracy": (jnp.sum(correct, dtype=jnp.int32), count)}

  return Task(
    name="classification",
    metric=Metric("accuracy", unit="%"),
    signals=SIGNALS,
    num_outputs=source.num_classes,
    inputs=view,
    losses=losses,
    metrics=metrics,
    objective=objective,
  )
