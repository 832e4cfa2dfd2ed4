"""From a config to everything that a run needs, with every value checked before a file is written. Host-side."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from dynsel_jax import data, models, options, selectors
from dynsel_jax.data import gather
from dynsel_jax.training import factor_columns, optimizers, parallel, schedules, signals, state, steps
from dynsel_jax.training.timing import Timers
from dynsel_jax.types import SampleTable, Selector

__all__ = ["Run", "build", "build_from", "description"]

WEIGHTINGS = ("mean_one", "sum_to_n")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Run(NamedTuple):
  """What a run is made of."""

  source: data.Source
  recipe: steps.Recipe
  programs: parallel.Programs
  devices: parallel.Devices
  fixed: steps.Fixed
  initial: state.RunState


def _named(section: ml_collections.ConfigDict) -> tuple[str, dict[str, Any]]:
  """Splits a config section into its name and the options beside it."""
  settings = section.to_dict()
  return settings.pop("name"), settings


def _check_numbers(config: ml_collections.ConfigDict, num_replicas: int, num_samples: int) -> None:
  for field in ("batch_size", "eval_batch_size"):
    value = config[field]
    if value < 1 or value % num_replicas:
      raise options.UserError(f"{field}={value} must be a multiple of the {num_replicas} device(s)")
  kept = num_samples * config.selector.get("keep_fraction", 1.0)
  if config.batch_size > kept:
    fraction = f" * keep_fraction={config.selector.keep_fraction}" if "keep_fraction" in config.selector else ""
    raise options.UserError(
      f"batch_size={config.batch_size} is larger than a selection of {int(kept)} samples ({num_samples}{fraction})"
    )
  if config.checkpoint_every_steps < 0:
    raise options.UserError(
      f"checkpoint_every_steps={config.checkpoint_every_steps} must be at least 0 (0: at the end)"
    )
  if not 0 <= config.label_smoothing < 1:
    raise options.UserError(f"label_smoothing={config.label_smoothing} must lie in [0, 1)")
  if config.weighting:
    options.check_choice("weighting", config.weighting, WEIGHTINGS)


def _check_selector(name: str, selector: Selector, num_samples: int, batch_size: int, num_replicas: int) -> None:
  """Raises `UserError` if a selector's functions do not return what `types` says, without computing anything."""
  scalar = jax.ShapeDtypeStruct((), jnp.int32)
  key = jax.eval_shape(jax.random.key, scalar)
  memory = jax.eval_shape(selector.init, key)
  selection, _ = jax.eval_shape(selector.select, key, memory, scalar)
  for field, right in jax.eval_shape(lambda: state.full_selection(num_samples))._asdict().items():
    shape = jnp.shape(getattr(selection, field))
    if shape != right.shape:
      raise options.UserError(f"selector={name}: Selection.{field} has shape {shape}, not {right.shape}")
  if selector.thin is not None:
    positions, _ = jax.eval_shape(selector.thin, key, memory, _signals_like(batch_size))
    if positions.shape[0] % num_replicas:
      raise options.UserError(
        f"batch_size={batch_size}: {name} trains on {positions.shape[0]} of a batch,"
        f" which must be a multiple of the {num_replicas} device(s)"
      )


def _signals_like(batch_size: int) -> Any:
  logits = jax.ShapeDtypeStruct((batch_size, 2), jnp.float32)
  labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
  trained = jax.ShapeDtypeStruct((batch_size,), jnp.bool_)
  return jax.eval_shape(signals.of_logits, logits, labels, labels, trained, jax.ShapeDtypeStruct((), jnp.int32))


def build(config: ml_collections.ConfigDict, timers: Timers, devices: Sequence[Any] | None = None) -> Run:
  """Loads the data and builds model, selector, steps and initial state.

  Args:
    config: as `configs/base.py` makes it.
    timers: get the seconds of features and factors, where the selector reads them.
    devices: the devices to train on, by default all of this process.

  Raises:
    UserError: a name, an option or a value is wrong; the message names the field and the value.
  """
  source = data.load(config.dataset.name, data_dir=config.dataset.data_dir or None)
  return build_from(config, source, timers, devices)


def build_from(
  config: ml_collections.ConfigDict, source: data.Source, timers: Timers, devices: Sequence[Any] | None = None
) -> Run:
  """As `build`, on data that is in memory already; `config.dataset` then gives the augmentations alone."""
  placed = parallel.local_devices(devices)
  num_samples = source.train.labels.shape[0]
  selector_name, selector_options = _named(config.selector)
  columns = factor_columns.factor_columns(config, source, timers) if "features" in config else {}
  table = SampleTable(jnp.asarray(source.train.labels), source.num_classes, columns)
  selector = selectors.create(selector_name, table, config.epochs, **selector_options)
  _check_numbers(config, placed.num_replicas, num_samples)
  _check_selector(selector_name, selector, num_samples, config.batch_size, placed.num_replicas)
  options.check_choice("model.dtype", config.model.dtype, DTYPES)

  model_name, model_options = _named(config.model)
  dtype = DTYPES[model_options.pop("dtype")]
  module = models.create(model_name, source.num_classes, dtype=dtype, axis_name=steps.AXIS, **model_options)
  schedule_name, schedule_options = _named(config.schedule)
  optimizer_name, optimizer_options = _named(config.optimizer)

  recipe = steps.Recipe(
    module=module,
    selector=selector,
    schedule=schedules.create(schedule_name, config.learning_rate, **schedule_options),
    augment=gather.augmentation(config.dataset.augmentations),
    normalize=lambda inputs: gather.normalize(inputs, source.mean, source.std),
    batch_size=config.batch_size,
    eval_batch_size=config.eval_batch_size,
    epochs=config.epochs,
    num_classes=source.num_classes,
    num_replicas=placed.num_replicas,
    label_smoothing=config.label_smoothing,
    weighting=config.weighting or selectors.weighting(selector_name),
  )
  tx = optimizers.create(optimizer_name, **optimizer_options)
  init_key, run_key = jax.random.split(jax.random.key(config.seed))
  initial = placed.build(
    lambda key, example: state.create_run_state(
      key, module, tx, selector, recipe.normalize(example), num_samples, source.num_classes
    ),
    init_key,
    jnp.asarray(source.train.inputs[:1]),
  )
  return Run(
    source=source,
    recipe=recipe,
    programs=parallel.create_programs(steps.create(recipe), placed),
    devices=placed,
    fixed=placed.place(steps.Fixed(source.train, source.test, run_key)),
    initial=initial,
  )


def description(run: Run, config: ml_collections.ConfigDict, steps_done: int) -> str:
  """Returns the run in one line for a person."""
  train, test = (dataset.labels.shape[0] for dataset in (run.source.train, run.source.test))
  parameters = sum(leaf.size for leaf in jax.tree.leaves(run.initial.train.params))
  devices = f"{run.devices.num_replicas} x {run.devices.local[0].device_kind}"
  continued = f", continuing after step {steps_done:,}" if steps_done else ""
  return (
    f"{config.selector.name} on {run.source.name}: {train:,} training and {test:,} test samples,"
    f" {config.model.name} with {parameters:,} parameters, {config.epochs} epochs on {devices}{continued}"
  )
