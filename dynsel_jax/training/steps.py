"""One step of training, scoring and evaluating, and the plan of an epoch, as pure functions for a mapped axis "batch".

Every function sees the same replicated arrays on every device, takes its own slice of the step's samples by `replica`,
and reduces over "batch", weighted by the valid samples. Randomness comes from `fold_in` alone:
run key -> epoch -> purpose -> sample index, so that neither the devices' number nor a restart changes a draw; dropout
has step and row of the global batch in place of the sample, and the order of an epoch's batches has no sample.

`N` is the number of training samples, `B` the global batch size, `b` the part of it that a thinned step trains on.
"""

import enum
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dynsel_jax.data import gather
from dynsel_jax.data.sources import Dataset
from dynsel_jax.training import buckets as buckets_lib
from dynsel_jax.training import signals as signals_lib
from dynsel_jax.training.buckets import Buckets, Cut
from dynsel_jax.training.schedules import Schedule
from dynsel_jax.training.state import Meters, RunState, TrainState, empty_meters, record_usage
from dynsel_jax.types import Selection, Selector, Signals

__all__ = ["AXIS", "Evaluation", "Fixed", "Purpose", "Recipe", "Steps", "create"]

AXIS = "batch"


class Purpose(enum.IntEnum):
  """What a key is folded for, so that two uses never share random bits."""

  SELECT = 0
  AUGMENT = 1
  THIN = 2
  DROPOUT = 3
  BATCHES = 4


class Recipe(NamedTuple):
  """The static side of a run: functions and numbers that the steps close over."""

  module: nn.Module
  selector: Selector
  schedule: Schedule
  augment: Callable[[Array, Array, Array], Array]  # (key, index [b], inputs [b, ...]) -> inputs
  normalize: Callable[[Array], Array]  # inputs as the set has them -> as the model takes them
  batch_size: int
  eval_batch_size: int
  epochs: int
  num_classes: int
  num_replicas: int  # devices over all processes
  label_smoothing: float = 0.0
  weighting: str = "mean_one"  # or "sum_to_n"
  buckets: Buckets | None = None  # None where all inputs are of one length


class Fixed(NamedTuple):
  """Arrays that no step changes. The inputs of a streamed set are the `gather.Rows` of one step on one device."""

  train: Dataset
  test: Dataset
  key: Array  # the run's key


class Evaluation(NamedTuple):
  """Sums over the test samples seen so far."""

  loss_sum: Array  # [] float32, nats
  correct: Array  # [] int32
  samples: Array  # [] int32


class Steps(NamedTuple):
  """The functions that a run maps over its devices; see `create`."""

  plan: Callable[[RunState, Fixed, Array, Array], tuple[RunState, dict[str, Array]]]
  train: Callable[[RunState, Fixed, Array, Array, Array], RunState]
  train_thinned: Callable[[RunState, Fixed, Array, Array, Array], RunState]
  refresh: Callable[[RunState, Fixed, Array, Array], RunState]
  score: Callable[[RunState, Fixed, Array, Array, Array], RunState]
  evaluate: Callable[[Evaluation, TrainState, Fixed, Array, Array], Evaluation]


def _summed(recipe: Recipe, tree: Any) -> Any:
  """Adds a pytree up over the devices. On one device nothing is called: XLA would not remove the collective."""
  return tree if recipe.num_replicas == 1 else jax.lax.psum(tree, AXIS)


def _gathered(recipe: Recipe, tree: Any) -> Any:
  """Joins the devices' slices of arrays, in the order of the devices."""
  return tree if recipe.num_replicas == 1 else jax.lax.all_gather(tree, AXIS, tiled=True)


def _global_signals(recipe: Recipe, signals: Signals) -> Signals:
  """Returns the signals of the global batch, the same on every device."""
  of_samples = {name: value for name, value in signals._asdict().items() if name != "epoch"}
  return Signals(**_gathered(recipe, of_samples), epoch=signals.epoch)


def _local_slots(step: Array, replica: Array, batch_size: int, num_replicas: int) -> Array:
  """Returns this device's places in the epoch's plan, `[batch_size / num_replicas]` int32."""
  share = batch_size // num_replicas
  return step * batch_size + replica * share + jnp.arange(share, dtype=jnp.int32)


def _apply(
  recipe: Recipe, train: TrainState, params: Any, inputs: Array, valid: Array, dropout: Array
) -> tuple[Array, Any]:
  """Runs the model as it trains, with the key `dropout`; returns logits and the running statistics renewed."""
  (logits, _), new = recipe.module.apply(
    {"params": params, "batch_stats": train.batch_stats},
    inputs,
    valid,
    train=True,
    mutable=["batch_stats"],
    rngs={"dropout": dropout},
  )
  return logits, new.get("batch_stats", train.batch_stats)


def _logits(recipe: Recipe, train: TrainState, inputs: Array, valid: Array, cut: Cut, *, running: bool) -> Array:
  """Runs the model without changing or dropping anything; `running` takes the running statistics."""
  variables = {"params": train.params, "batch_stats": train.batch_stats}
  return cut(lambda inputs: recipe.module.apply(variables, inputs, valid, train=not running)[0], inputs)


def _inputs(recipe: Recipe, fixed: Fixed, epoch: Array, index: Array) -> tuple[Array, Array]:
  """Returns augmented, normalised inputs and labels; a sample's view depends on (epoch, index) alone."""
  inputs, labels = gather.gather(fixed.train, index)
  key = jax.random.fold_in(jax.random.fold_in(fixed.key, epoch), Purpose.AUGMENT)
  return recipe.normalize(recipe.augment(key, index, inputs)), labels


def _at(recipe: Recipe, dataset: Dataset, positions: Array) -> Dataset:
  """Returns a streamed set with the rows at `positions` of the global batch; a set on the device as it is."""
  if not isinstance(dataset.inputs, gather.Rows):
    return dataset
  rows = _gathered(recipe, dataset.inputs)
  return dataset._replace(inputs=jax.tree.map(lambda of_batch: of_batch[positions], rows))


def _progress(recipe: Recipe, run: RunState, epoch: Array, step: Array) -> Array:
  """Returns the share of training that is done before this step, `[]` float32."""
  steps_of_epoch = jnp.maximum(-(-run.plan.size // recipe.batch_size), 1)
  done_of_epoch = step.astype(jnp.float32) / steps_of_epoch.astype(jnp.float32)
  return (epoch.astype(jnp.float32) + done_of_epoch) / recipe.epochs


def _backward(
  recipe: Recipe, run: RunState, fixed: Fixed, epoch: Array, step: Array, index: Array, weights: Array, cut: Cut
) -> tuple[TrainState, Signals, Meters]:
  """Takes one optimizer step on this device's samples together with the other devices' samples.

  Returns the new train state, this device's signals, and the meters without the samples' sums.
  """
  train = run.train
  valid = index >= 0
  inputs, labels = _inputs(recipe, fixed, epoch, index)
  dropout = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(fixed.key, epoch), Purpose.DROPOUT), step)
  weights = jnp.where(valid, weights, 0.0)
  # The divisor of the step's loss: the sum of its weights, or the number of its samples.
  divisor = _summed(recipe, jnp.sum(weights if recipe.weighting == "mean_one" else valid.astype(jnp.float32)))
  scale = weights / jnp.maximum(divisor, jnp.finfo(jnp.float32).tiny)

  def loss_share(params: Any, inputs: Array) -> tuple[Array, tuple[Array, Any]]:
    logits, batch_stats = _apply(recipe, train, params, inputs, valid, dropout)
    losses = signals_lib.cross_entropy(logits, labels, recipe.label_smoothing)
    # A padded row holds a real sample's pixels, so its loss is finite and the zero scale removes it.
    return jnp.sum(losses * scale), (logits, batch_stats)

  local = functools.partial(jax.value_and_grad(loss_share, has_aux=True), train.params)
  (share, (logits, batch_stats)), grads = cut(local, inputs)
  loss, grads = _summed(recipe, (share, grads))
  learning_rate = recipe.schedule(_progress(recipe, run, epoch, step)) * run.plan.learning_rate_multiplier
  new = train.apply_gradients(grads=grads, learning_rate=learning_rate, batch_stats=batch_stats)
  # What the step leaves behind is looked at too, or a checkpoint could hold what overflowed.
  checked = (loss, grads, new.params, batch_stats)
  finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(checked)]))
  first_bad = run.meters.non_finite_step
  meters = run.meters._replace(
    learning_rate=learning_rate,
    non_finite_step=jnp.where(finite | (first_bad >= 0), first_bad, new.step),
    weight_sum=run.meters.weight_sum + _summed(recipe, jnp.sum(weights)),
  )
  return new, signals_lib.of_logits(logits, labels, index, valid, epoch), meters


def _record(
  recipe: Recipe, run: RunState, fixed: Fixed, train: TrainState, signals: Signals, meters: Meters, forward: Array
) -> RunState:
  """Lets the selector, the usage counts and the meters see one step's global batch."""
  trained = signals.trained
  label = jnp.where(trained, fixed.train.labels[jnp.maximum(signals.index, 0)], recipe.num_classes)
  return RunState(
    train=train,
    selector=recipe.selector.observe(run.selector, signals),
    usage=record_usage(run.usage, signals),
    plan=run.plan,
    meters=meters._replace(
      loss_sum=meters.loss_sum + jnp.sum(jnp.where(trained, signals.loss, 0.0)),
      forward_visits=meters.forward_visits + forward,
      backward_visits=meters.backward_visits + jnp.sum(trained, dtype=jnp.int32),
      trained_by_class=meters.trained_by_class.at[label].add(1, mode="drop"),
    ),
  )


def _score(
  recipe: Recipe,
  run: RunState,
  epoch: Array,
  inputs: Array,
  labels: Array,
  index: Array,
  cut: Cut,
  *,
  running: bool,
) -> Signals:
  """Returns the global batch's signals from a forward pass that changes nothing."""
  logits = _logits(recipe, run.train, inputs, index >= 0, cut, running=running)
  local = signals_lib.of_logits(logits, labels, index, jnp.zeros_like(index, bool), epoch)
  return _global_signals(recipe, local)


def create(recipe: Recipe) -> Steps:
  """Binds `recipe` to the functions of a run.

  Each takes `replica`, this device's number over all processes (`[]` int32), last; `epoch` and `step` (in the epoch)
  are `[]` int32, counted from 0.

  Returns:
    `plan` begins an epoch: selects, groups texts by length, and clears the meters. `train` steps on one global batch of
    the plan; `train_thinned` scores that batch and steps on the part that the selector's `thin` names. `refresh` plans
    the forward passes after an epoch and `score` takes one of them, on unaugmented samples with running statistics.
    `evaluate` adds one batch of test samples to an `Evaluation`.
  """
  selector, replicas = recipe.selector, recipe.num_replicas

  def cutting(dataset: Dataset, index: Array) -> Cut:
    return buckets_lib.cutting(recipe.buckets, dataset.inputs, index)

  def batch_of_plan(plan: Selection, step: Array, replica: Array) -> tuple[Array, Array]:
    slots = _local_slots(step, replica, recipe.batch_size, replicas)
    index = plan.indices.at[slots].get(mode="fill", fill_value=-1)
    return index, plan.weights.at[slots].get(mode="fill", fill_value=0.0)

  def cut_of_plan(plan: Selection, fixed: Fixed, step: Array) -> Cut:
    slots = _local_slots(step, jnp.int32(0), recipe.batch_size, 1)  # those of all devices
    return cutting(fixed.train, plan.indices.at[slots].get(mode="fill", fill_value=-1))

  def planned(run: RunState, fixed: Fixed, selection: Selection) -> Selection:
    plan = jax.tree.map(lambda value, like: jnp.asarray(value, like.dtype), selection, run.plan)
    if recipe.buckets is None:
      return plan
    return buckets_lib.grouped(plan, buckets_lib.of_rows(recipe.buckets, fixed.train.inputs))

  def plan(run: RunState, fixed: Fixed, epoch: Array, replica: Array) -> tuple[RunState, dict[str, Array]]:
    del replica  # every device plans the same epoch
    epoch_key = jax.random.fold_in(fixed.key, epoch)
    selection, info = selector.select(jax.random.fold_in(epoch_key, Purpose.SELECT), run.selector, epoch)
    plan = planned(run, fixed, selection)
    if recipe.buckets is not None:  # or a run would go from the short texts to the long ones in each epoch
      plan = buckets_lib.shuffled(jax.random.fold_in(epoch_key, Purpose.BATCHES), plan, recipe.batch_size)
    return run._replace(plan=plan, meters=empty_meters(recipe.num_classes)), info

  def train(run: RunState, fixed: Fixed, epoch: Array, step: Array, replica: Array) -> RunState:
    index, weights = batch_of_plan(run.plan, step, replica)
    cut = cut_of_plan(run.plan, fixed, step)
    new, local, meters = _backward(recipe, run, fixed, epoch, step, index, weights, cut)
    seen = _global_signals(recipe, local)
    return _record(recipe, run, fixed, new, seen, meters, jnp.sum(seen.index >= 0, dtype=jnp.int32))

  def train_thinned(run: RunState, fixed: Fixed, epoch: Array, step: Array, replica: Array) -> RunState:
    assert selector.thin is not None
    index, plan_weights = batch_of_plan(run.plan, step, replica)
    inputs, labels = _inputs(recipe, fixed, epoch, index)
    # Batch statistics of the meta-batch: the losses that training on it would have.
    cut = cut_of_plan(run.plan, fixed, step)
    scored = _score(recipe, run, epoch, inputs, labels, index, cut, running=False)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(fixed.key, epoch), Purpose.THIN), step)
    positions, thin_weights = selector.thin(key, run.selector, scored)
    weights = thin_weights * _gathered(recipe, plan_weights)[positions]
    mine = _local_slots(jnp.int32(0), replica, positions.shape[0], replicas)
    chosen = jnp.where(thin_weights > 0, scored.index[positions], -1)
    part = fixed._replace(train=_at(recipe, fixed.train, positions[mine]))
    cut = cutting(fixed.train, chosen)
    new, _, meters = _backward(recipe, run, part, epoch, step, chosen[mine], weights[mine], cut)
    trained = jnp.zeros_like(scored.trained).at[positions].set(chosen >= 0)
    forward = jnp.sum(scored.index >= 0, dtype=jnp.int32) + jnp.sum(trained, dtype=jnp.int32)
    return _record(recipe, run, fixed, new, scored._replace(trained=trained), meters, forward)

  def refresh(run: RunState, fixed: Fixed, epoch: Array, replica: Array) -> RunState:
    assert selector.refresh is not None
    del replica
    return run._replace(plan=planned(run, fixed, selector.refresh(run.selector, epoch)))

  def score(run: RunState, fixed: Fixed, epoch: Array, step: Array, replica: Array) -> RunState:
    index, _ = batch_of_plan(run.plan, step, replica)
    inputs, labels = gather.gather(fixed.train, index)
    cut = cut_of_plan(run.plan, fixed, step)
    seen = _score(recipe, run, epoch, recipe.normalize(inputs), labels, index, cut, running=True)
    return _record(recipe, run, fixed, run.train, seen, run.meters, jnp.sum(seen.index >= 0, dtype=jnp.int32))

  def evaluate(sums: Evaluation, state: TrainState, fixed: Fixed, step: Array, replica: Array) -> Evaluation:
    def rows(replica: Array, num_replicas: int) -> Array:
      slots = _local_slots(step, replica, recipe.eval_batch_size, num_replicas)
      return jnp.where(slots < fixed.test.labels.shape[0], slots, -1)

    index = rows(replica, replicas)
    inputs, labels = gather.gather(fixed.test, index)
    valid = (index >= 0) & (labels >= 0)  # an image that cannot be read counts nowhere
    cut = cutting(fixed.test, rows(jnp.int32(0), 1))
    logits = _logits(recipe, state, recipe.normalize(inputs), valid, cut, running=True)
    correct = valid & (jnp.argmax(logits, axis=-1) == labels)
    losses = jnp.where(valid, signals_lib.cross_entropy(logits, labels), 0.0)
    seen = Evaluation(jnp.sum(losses), jnp.sum(correct, dtype=jnp.int32), jnp.sum(valid, dtype=jnp.int32))
    return jax.tree.map(jnp.add, sums, _summed(recipe, seen))

  return Steps(plan, train, train_thinned, refresh, score, evaluate)
