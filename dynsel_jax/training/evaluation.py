"""Evaluates the task's metrics over a data set, one batch at a time.

`evaluate` is a pure function for the mapped axis "batch"; the others run on the host.
`n` is the number of samples of the evaluated data set.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dynsel_jax import tasks
from dynsel_jax.data import gather
from dynsel_jax.data.gather import Batch, Rows
from dynsel_jax.tasks import Task
from dynsel_jax.training import buckets, steps
from dynsel_jax.training.state import TrainState
from dynsel_jax.training.steps import Arrays, Recipe

__all__ = ["Evaluation", "empty", "evaluate", "shapes", "values"]


class Evaluation(NamedTuple):
  """Sums over the samples that have been evaluated so far."""

  sums: dict[str, tuple[Array, Array]]  # the sum and the count of each metric, both []
  rows: dict[str, Array]  # {name: [n] float32}, the task's `rows`; {} if it has none
  seen: Array  # [n] bool, True for the samples whose `rows` are filled in


def _measured(task: Task, outputs: Any, batch: Batch, valid: Array) -> tuple[Any, dict[str, Array]]:
  return task.metrics(outputs, batch, valid), {} if task.rows is None else task.rows(outputs, batch)


def shapes(recipe: Recipe, state: TrainState, arrays: Arrays, num_samples: int) -> Evaluation:
  """Returns the shapes and types of an `Evaluation` of n = `num_samples` samples; traces the model once."""

  def one_batch(state: TrainState, arrays: Arrays) -> Evaluation:
    index = jnp.zeros(1, jnp.int32)
    test = arrays.test
    # The rows of a streamed set come with an axis of devices in front: nothing is mapped here.
    dataset = jax.tree.map(lambda x: x[0], test.batch) if isinstance(test, Rows) else test
    batch = jax.tree.map(lambda x: x[:1], dataset)
    batch, valid = recipe.task.inputs(None, index, batch), jnp.ones(1, bool)
    outputs, _ = recipe.module.apply(steps.variables_of(state, arrays), batch["inputs"], valid, train=False)
    sums, rows = _measured(recipe.task, recipe.task.reduced(outputs, batch), batch, valid)
    return Evaluation(sums, {name: jnp.zeros(num_samples) for name in rows}, jnp.zeros(num_samples, bool))

  return jax.eval_shape(one_batch, state, arrays)


def empty(like: Evaluation) -> Evaluation:
  """Returns the evaluation before the first batch, as numpy arrays of the shapes and types `like`."""
  return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)


def evaluate(
  recipe: Recipe, done: Evaluation, state: TrainState, arrays: Arrays, step: Array, replica: Array
) -> Evaluation:
  """Adds one batch of `arrays.test`; arguments as in `steps.plan`."""
  num_samples = done.seen.shape[0]

  def slots_of(replica: Array, num_replicas: int) -> Array:
    rows = recipe.eval_batch_size // num_replicas
    slots = step * recipe.eval_batch_size + replica * rows + jnp.arange(rows, dtype=jnp.int32)
    return jnp.where(slots < num_samples, slots, -1)

  index = slots_of(replica, recipe.num_replicas)
  test = arrays.test
  batch = recipe.task.inputs(None, index, gather.gather(test, index))
  valid = index >= 0
  if isinstance(test, Rows):
    valid &= test.readable  # a damaged image counts nowhere
  cut = buckets.cutting(recipe.buckets, test, slots_of(jnp.int32(0), 1))
  outputs = steps.outputs_of(recipe, steps.variables_of(state, arrays), batch, valid, cut, running=True)
  sums, rows = _measured(recipe.task, outputs, batch, valid)
  sums = jax.tree.map(jnp.add, done.sums, steps.summed(recipe, sums))
  if not rows:
    return done._replace(sums=sums)
  place, rows = steps.gathered(recipe, (jnp.where(valid, index, num_samples), rows))
  return Evaluation(
    sums=sums,
    rows={name: done.rows[name].at[place].set(rows[name].astype(jnp.float32), mode="drop") for name in rows},
    seen=done.seen.at[place].set(True, mode="drop"),
  )


def values(task: Task, done: Evaluation) -> dict[str, float]:
  """Computes the metrics of the data set by name, from an `Evaluation` of numpy arrays; NaN for a count of 0.

  Raises:
    UserError: the task's headline metric is not among them.
  """
  found = {name: float(total) / float(count) if count else math.nan for name, (total, count) in done.sums.items()}
  if task.summarize is not None:
    seen = np.asarray(done.seen)
    of_rows = task.summarize({name: np.asarray(rows)[seen] for name, rows in done.rows.items()})
    found |= {name: float(value) for name, value in of_rows.items()}
  tasks.check_headline(f"task {task.name}", task, found)
  return found
