"""One step of training or scoring, and the plan of an epoch, as pure functions for the mapped axis "batch".

Every device has the same replicated arrays. A function takes the slice of the step's samples that belongs to `replica`,
and reduces over "batch", weighted by the valid samples.

Keys come from `fold_in` alone: run key -> epoch -> purpose -> sample index, so that neither the number of devices nor a
restart changes a draw. Dropout folds in the step and the row of the global batch instead of the sample; the order of an
epoch's batches folds in neither.

`N` is the number of training samples, `B` the global batch size, `b` the number of its rows that a thinned step trains
on.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dynsel_jax import batching
from dynsel_jax.batching import Purpose
from dynsel_jax.data import gather
from dynsel_jax.data.gather import Batch, Rows
from dynsel_jax.tasks import Task
from dynsel_jax.training import buckets as buckets_lib
from dynsel_jax.training.buckets import Buckets, Cut
from dynsel_jax.training.schedules import Schedule
from dynsel_jax.training.state import Meters, RunState, TrainState, empty_meters, record_usage
from dynsel_jax.types import Plan, Selection, Selector, Signals

__all__ = [
  "AXIS",
  "Arrays",
  "Recipe",
  "checked",
  "outputs_of",
  "plan",
  "refresh",
  "score",
  "summed",
  "train",
  "train_thinned",
  "variables_of",
  "watch",
]

AXIS = "batch"


class Recipe(NamedTuple):
  """The static part of a run: the functions and numbers that every step takes as its first argument."""

  module: nn.Module
  task: Task
  selector: Selector
  schedule: Schedule
  batch_size: int
  meta_batch_size: int  # rows that a thinned step scores; `batch_size` unless the config says more
  eval_batch_size: int
  epochs: int
  num_replicas: int  # devices over all processes
  buckets: Buckets | None = None  # None if all inputs have one length


class Arrays(NamedTuple):
  """Arrays that no step changes. A streamed data set is the `gather.Rows` of one step on one device."""

  train: Any  # a Dataset, or Rows
  test: Any  # likewise
  key: Array  # of the run
  frozen: Any = None  # the model's variables that are not trained, by collection; None if there are none


def summed(recipe: Recipe, tree: Any) -> Any:
  """Sums a pytree over the devices. One device needs no collective, and XLA would not remove it."""
  return tree if recipe.num_replicas == 1 else jax.lax.psum(tree, AXIS)


def gathered(recipe: Recipe, tree: Any) -> Any:
  """Concatenates the devices' slices of a pytree, in the order of the devices."""
  return tree if recipe.num_replicas == 1 else jax.lax.all_gather(tree, AXIS, tiled=True)


def _local_signals(recipe: Recipe, outputs: Any, batch: Batch, index: Array, trained: Array, epoch: Array) -> Signals:
  """Returns the signals of this device's rows, with the extras that the selector reads."""
  losses, extras = recipe.task.losses(outputs, batch)
  read = {name: extras[name] for name in recipe.task.signals if name in recipe.selector.reads}
  return batching.signals(index, losses, epoch, trained=trained, **read)


def _global_signals(recipe: Recipe, signals: Signals) -> Signals:
  """Returns the signals of the global batch, the same on every device."""
  rows = gathered(recipe, {name: value for name, value in signals._asdict().items() if name != "epoch"})
  return Signals(**rows, epoch=signals.epoch)


def _model_inputs(recipe: Recipe, arrays: Arrays, epoch: Array, index: Array) -> Batch:
  """Gathers the batch and augments it; the augmentation of a sample depends on (epoch, index) alone."""
  batch = gather.gather(arrays.train, index)
  key = batching.key_of(arrays.key, epoch, Purpose.AUGMENT)
  return recipe.task.inputs(key, index, batch)


def variables_of(state: TrainState, arrays: Arrays) -> dict[str, Any]:
  """Returns all variables of the model by collection."""
  return {"params": state.params, "batch_stats": state.batch_stats, **(arrays.frozen or {})}


def outputs_of(
  recipe: Recipe, variables: dict[str, Any], batch: Batch, valid: Array, cut: Cut, *, running: bool
) -> Any:
  """Runs the model without dropout and without updates; `running` says whether running statistics are used."""

  def forward(batch: Batch) -> Any:
    outputs, _ = recipe.module.apply(variables, batch["inputs"], valid, train=not running)
    return recipe.task.reduced(outputs, batch)

  return cut(forward, batch)


def _cut_of_plan(recipe: Recipe, plan: Plan, arrays: Arrays, step: Array, size: int) -> Cut:
  index, _ = batching.batch_of(plan, step, size)  # of all devices
  return buckets_lib.cutting(recipe.buckets, arrays.train, index)


def _planned_size(recipe: Recipe, thin: Array) -> Array | int:
  """Returns how many samples of the plan a step of the epoch takes, where `thin` `[]` bool says whether it thins."""
  if recipe.selector.thin is None or recipe.meta_batch_size == recipe.batch_size:
    return recipe.batch_size
  return jnp.where(thin, recipe.meta_batch_size, recipe.batch_size)


def _progress(recipe: Recipe, run: RunState, epoch: Array, step: Array) -> Array:
  """Returns the fraction of training done before this step, `[]` float32."""
  steps_of_epoch = jnp.maximum(-(-run.plan.size // _planned_size(recipe, run.thin)), 1)
  done_of_epoch = step.astype(jnp.float32) / steps_of_epoch.astype(jnp.float32)
  return (epoch.astype(jnp.float32) + done_of_epoch) / recipe.epochs


def _first_bad(meters: Meters, finite: Array, step: Array | int) -> Array:
  """Returns the first step with a non-finite value, `[]` int32: `step` if it has one and none before had."""
  return jnp.where(finite | (meters.non_finite_step >= 0), meters.non_finite_step, step)


def checked(run: RunState) -> RunState:
  """Notes the last step as non-finite if a parameter or a running statistic is, and no step before was.

  Once a call, since it reads every parameter. A gradient that is not finite makes parameters that are not, and these
  the loss of the next step: so a call of several steps may name the step after it, and a checkpoint never holds one.
  """
  leaves = jax.tree.leaves((run.train.params, run.train.batch_stats))
  finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
  return run._replace(meters=run.meters._replace(non_finite_step=_first_bad(run.meters, finite, run.train.step)))


def _backward(
  recipe: Recipe, run: RunState, arrays: Arrays, epoch: Array, step: Array, index: Array, weights: Array, cut: Cut
) -> tuple[TrainState, Signals, Meters]:
  """Takes one optimizer step on the samples of all devices, of which this device computes its own.

  Returns the new train state, the signals of this device's rows, and the meters except the sums over samples.
  """
  state, task, selector = run.train, recipe.task, recipe.selector
  valid = index >= 0
  batch = _model_inputs(recipe, arrays, epoch, index)
  dropout = jax.random.fold_in(batching.key_of(arrays.key, epoch, Purpose.DROPOUT), step)
  weights = jnp.where(valid, weights, 0.0)
  rows = None if task.row_weights is None else task.row_weights(batch)
  scale = batching.loss_scale(index, weights, selector.loss_normalization, functools.partial(summed, recipe), rows)
  objective = task.objective or (lambda outputs, batch: task.losses(outputs, batch)[0])

  def loss_part(params: Any, batch: Batch) -> tuple[Array, tuple[Any, Any]]:
    (outputs, _), new = recipe.module.apply(
      variables_of(state, arrays) | {"params": params},
      batch["inputs"],
      valid,
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": dropout},
    )
    outputs = task.reduced(outputs, batch)
    # A padded row is a copy of sample 0, so that its loss is finite and a scale of 0 removes it.
    return jnp.sum(objective(outputs, batch) * scale), (outputs, new.get("batch_stats", state.batch_stats))

  local = functools.partial(jax.value_and_grad(loss_part, has_aux=True), state.params)
  (part, (outputs, batch_stats)), grads = cut(local, batch)
  loss, grads = summed(recipe, (part, grads))
  progress = _progress(recipe, run, epoch, step)
  learning_rate = recipe.schedule(progress) * run.learning_rate_multiplier
  new = state.apply_gradients(grads=grads, learning_rate=learning_rate, progress=progress, batch_stats=batch_stats)
  meters = run.meters._replace(
    learning_rate=learning_rate,
    non_finite_step=_first_bad(run.meters, jnp.isfinite(loss), new.step),
    weight_sum=run.meters.weight_sum + summed(recipe, jnp.sum(weights)),
  )
  return new, _local_signals(recipe, outputs, batch, index, valid, epoch), meters


def _record(
  recipe: Recipe, run: RunState, state: TrainState, signals: Signals, meters: Meters, forward: Array
) -> RunState:
  """Updates the selector, the usage counts and the meters with one step's global batch."""
  trained = signals.trained
  return run._replace(
    train=state,
    selector=recipe.selector.observe(run.selector, signals),
    usage=record_usage(run.usage, signals),
    meters=meters._replace(
      loss_sum=meters.loss_sum + jnp.sum(jnp.where(trained, signals.loss, 0.0)),
      forward_visits=meters.forward_visits + forward,
      backward_visits=meters.backward_visits + jnp.sum(trained, dtype=jnp.int32),
    ),
  )


def _score(
  recipe: Recipe, run: RunState, arrays: Arrays, epoch: Array, batch: Batch, index: Array, cut: Cut, *, running: bool
) -> Signals:
  """Computes the signals of the global batch by a forward pass that changes nothing."""
  outputs = outputs_of(recipe, variables_of(run.train, arrays), batch, index >= 0, cut, running=running)
  return _global_signals(recipe, _local_signals(recipe, outputs, batch, index, jnp.zeros_like(index, bool), epoch))


def _grouped(recipe: Recipe, plan: Plan, arrays: Arrays) -> Plan:
  """Groups a plan by the lengths of texts."""
  if recipe.buckets is None:
    return plan
  return buckets_lib.group(plan, buckets_lib.of_rows(recipe.buckets, arrays.train["inputs"]))


def plan(
  recipe: Recipe, run: RunState, arrays: Arrays, epoch: Array, replica: Array
) -> tuple[RunState, dict[str, Array]]:
  """Begins an epoch: selects the samples, orders them, groups texts by length, and clears the meters.

  Here and below `epoch` and `step` (within the epoch) are `[]` int32, counted from 0; `replica` `[]` int32 is this
  device's number over all processes.
  """
  del replica  # every device plans the same epoch
  select_key, order_key = batching.epoch_keys(arrays.key, epoch)
  selection, info = recipe.selector.select(select_key, run.selector, epoch)
  plan = _grouped(recipe, batching.order(order_key, selection), arrays)
  thin = jnp.asarray(selection.thin, bool)
  if recipe.buckets is not None:  # otherwise each epoch would go from short texts to long ones
    batches_key = batching.key_of(arrays.key, epoch, Purpose.BATCHES)
    plan = buckets_lib.shuffle_batches(batches_key, plan, _planned_size(recipe, thin))
  multiplier = jnp.asarray(selection.learning_rate_multiplier, jnp.float32)
  return run._replace(plan=plan, learning_rate_multiplier=multiplier, thin=thin, meters=empty_meters()), info


def train(recipe: Recipe, run: RunState, arrays: Arrays, epoch: Array, step: Array, replica: Array) -> RunState:
  """Takes one optimizer step on one global batch of the plan."""
  index, weights = batching.batch_of(run.plan, step, recipe.batch_size, shard=replica, num_shards=recipe.num_replicas)
  cut = _cut_of_plan(recipe, run.plan, arrays, step, recipe.batch_size)
  new, local, meters = _backward(recipe, run, arrays, epoch, step, index, weights, cut)
  seen = _global_signals(recipe, local)
  return _record(recipe, run, new, seen, meters, jnp.sum(seen.index >= 0, dtype=jnp.int32))


def _scored_meta_batch(
  recipe: Recipe, run: RunState, arrays: Arrays, epoch: Array, step: Array, replica: Array
) -> tuple[Signals, Array]:
  """Returns the signals of one meta-batch of the plan, and the plan's weights of this device's rows."""
  size = recipe.meta_batch_size
  index, weights = batching.batch_of(run.plan, step, size, shard=replica, num_shards=recipe.num_replicas)
  batch = _model_inputs(recipe, arrays, epoch, index)
  # With batch statistics of the meta-batch, the losses are those of training on all of it.
  cut = _cut_of_plan(recipe, run.plan, arrays, step, size)
  return _score(recipe, run, arrays, epoch, batch, index, cut, running=False), weights


def watch(recipe: Recipe, run: RunState, arrays: Arrays, epoch: Array, step: Array, replica: Array) -> RunState:
  """Scores one meta-batch of the plan as `train_thinned` does, and trains on none of it."""
  seen, _ = _scored_meta_batch(recipe, run, arrays, epoch, step, replica)
  return _record(recipe, run, run.train, seen, run.meters, jnp.sum(seen.index >= 0, dtype=jnp.int32))


def train_thinned(recipe: Recipe, run: RunState, arrays: Arrays, epoch: Array, step: Array, replica: Array) -> RunState:
  """Scores one meta-batch of the plan and takes one optimizer step on the rows that `thin` picks."""
  selector, replicas = recipe.selector, recipe.num_replicas
  assert selector.thin is not None
  scored, plan_weights = _scored_meta_batch(recipe, run, arrays, epoch, step, replica)
  key = jax.random.fold_in(batching.key_of(arrays.key, epoch, Purpose.THIN), step)
  positions, thin_weights = selector.thin(key, run.selector, scored)
  weights = thin_weights * gathered(recipe, plan_weights)[positions]
  rows = positions.shape[0] // replicas
  mine = replica * rows + jnp.arange(rows, dtype=jnp.int32)
  chosen = jnp.where(thin_weights > 0, scored.index[positions], -1)
  part = arrays._replace(train=_rows_at(recipe, arrays.train, positions[mine]))
  cut = buckets_lib.cutting(recipe.buckets, arrays.train, chosen)
  new, _, meters = _backward(recipe, run, part, epoch, step, chosen[mine], weights[mine], cut)
  trained = jnp.zeros_like(scored.trained).at[positions].set(chosen >= 0)
  forward = jnp.sum(scored.index >= 0, dtype=jnp.int32) + jnp.sum(trained, dtype=jnp.int32)
  return _record(recipe, run, new, scored._replace(trained=trained), meters, forward)


def _rows_at(recipe: Recipe, dataset: Any, positions: Array) -> Any:
  """Gathers the rows of a streamed data set at `positions` of the global batch; returns other data sets unchanged."""
  if not isinstance(dataset, Rows):
    return dataset
  return jax.tree.map(lambda rows: rows[positions], gathered(recipe, dataset))


def refresh(recipe: Recipe, run: RunState, arrays: Arrays, epoch: Array, replica: Array) -> RunState:
  """Plans the forward passes after an epoch, over the samples that the selector's `refresh` names."""
  assert recipe.selector.refresh is not None
  del replica
  keep = recipe.selector.refresh(run.selector, epoch)
  # A forward pass changes nothing, so that the order does not matter and any key will do.
  return run._replace(plan=_grouped(recipe, batching.order(jax.random.key(0), Selection(keep)), arrays))


def score(recipe: Recipe, run: RunState, arrays: Arrays, epoch: Array, step: Array, replica: Array) -> RunState:
  """Takes one forward pass of the plan by `refresh`, on unaugmented samples with running statistics."""
  index, _ = batching.batch_of(run.plan, step, recipe.batch_size, shard=replica, num_shards=recipe.num_replicas)
  batch = recipe.task.inputs(None, index, gather.gather(arrays.train, index))
  cut = _cut_of_plan(recipe, run.plan, arrays, step, recipe.batch_size)
  seen = _score(recipe, run, arrays, epoch, batch, index, cut, running=True)
  return _record(recipe, run, run.train, seen, run.meters, jnp.sum(seen.index >= 0, dtype=jnp.int32))
