"""Builds a run from a config, a data set and a sample table; checks every option first. Host-side."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from dynsel_jax import data, models, options, selectors, tasks
from dynsel_jax.data import gather, stream
from dynsel_jax.runs import loggers
from dynsel_jax.selectors import wrappers
from dynsel_jax.tasks import Task
from dynsel_jax.training import (
  buckets,
  checks,
  contract,
  feed,
  optimizers,
  parallel,
  schedules,
  state,
  steps,
  warm_start,
)
from dynsel_jax.types import SampleTable, Signals

__all__ = ["Parts", "Run", "build", "description", "full_fraction", "matched", "parts", "table_of"]

_FIRST_IMAGES = 5000  # as many as arXiv 2404.00498 takes its statistics from
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Parts(NamedTuple):
  """The parts of a run that need no sample table, so that they are checked before one is made."""

  config: ml_collections.ConfigDict  # with `match_steps` applied
  source: data.Source
  devices: parallel.Devices
  module: nn.Module
  task: Task
  tx: Any
  schedule: schedules.Schedule
  wrappers: Mapping[str, Mapping[str, Any]]  # their options by name, the innermost first
  feed: feed.Feed
  signals: Signals  # shapes and types of a step's signals
  init_key: jax.Array


class Run(NamedTuple):
  """A run before its first step."""

  source: data.Source
  table: SampleTable
  recipe: steps.Recipe
  programs: parallel.Programs
  devices: parallel.Devices
  feed: feed.Feed
  initial: state.RunState

  @property
  def arrays(self) -> steps.Arrays:
    """The arrays that no step changes; the rows of a streamed data set are padding here."""
    return self.feed.arrays


def _named(config: ml_collections.ConfigDict, section: str) -> tuple[str, dict[str, Any]]:
  """Splits a section of the config into its name and its options."""
  settings = config[section].to_dict()
  options.check_present(section, settings, ("name",))
  return settings.pop("name"), settings


def _wrappers(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns the options of each wrapper by its name, the innermost first."""
  if "wrappers" not in config:
    return {}
  sections = config.wrappers.to_dict()
  options.check_present("wrappers", sections, ("names",))
  if len(set(map(wrappers.section, sections["names"]))) < len(sections["names"]):
    raise options.UserError(f"wrappers.names={tuple(sections['names'])} names a wrapper twice; each can be there once")
  return {name: sections.get(wrappers.section(name), {}) for name in sections["names"]}


def table_of(source: data.Source, columns: Mapping[str, Any] = {}) -> SampleTable:
  """Builds the sample table of a data set, with columns `[N]` float32 if there are any."""
  labels = None if source.labels is None else jnp.asarray(source.labels)
  placed = {name: jnp.asarray(column) for name, column in columns.items()}
  return SampleTable(source.num_samples, labels, source.num_classes, placed)


def parts(config: ml_collections.ConfigDict, source: data.Source, devices: Sequence[Any] | None = None) -> Parts:
  """Builds and checks the parts of a run that need no sample table.

  Args:
    config: as `recipes.get_config` makes it.
    source: the data, as `data.prepare` gives it for `config.dataset`.
    devices: the devices to train on, by default all of this process.

  Raises:
    UserError: a name, an option or a value is wrong, or the model or the task does not return what it must; the message
      names the field and the value.
  """
  checks.check_fields(config)
  loggers.check(config.get("loggers", ()))
  config = matched(config)
  placed = parallel.local_devices(devices)
  selector_name, selector_options = _named(config, "selector")
  options.check_settings("selector", selector_name, selector_options, selectors.defaults(selector_name))
  wrapped_in = _wrappers(config)
  for name, settings in wrapped_in.items():
    options.check_settings("wrapper", name, settings, wrappers.defaults(name))
  checks.check_numbers(config, placed.num_replicas, source.num_samples)
  schedule_name, schedule_options = _named(config, "schedule")
  optimizer_name, optimizer_options = _named(config, "optimizer")
  streamed = isinstance(source.train["inputs"], stream.Images)
  task = _task(config, source, streamed=streamed)
  module = _model(config, task.num_outputs, placed.num_replicas)
  checks.check_model_and_data(config, module, source)
  init_key, run_key = jax.random.split(jax.random.key(config.seed))
  return Parts(
    config=config,
    source=source,
    devices=placed,
    module=module,
    task=task,
    tx=optimizers.create(optimizer_name, **optimizer_options),
    schedule=schedules.create(schedule_name, config.learning_rate, **schedule_options),
    wrappers=wrapped_in,
    feed=_feed(config, source, run_key, placed, streamed=streamed),
    signals=checks.check_task(config, task, module, source, config.batch_size),
    init_key=init_key,
  )


def build(made: Parts, table: SampleTable) -> Run:
  """Builds selector, programs and initial state.

  Args:
    made: from `parts`.
    table: the training set, as the selector knows it.

  Raises:
    UserError: the table or the task lacks what the selector reads, or a function of the selector does not return what
      `types` says.
  """
  config, source, task, module, devices = made.config, made.source, made.task, made.module, made.devices
  name, settings = _named(config, "selector")
  selector = selectors.create(name, table, config.epochs, made.wrappers, **settings)
  if config.loss_normalization:
    selector = selector._replace(loss_normalization=config.loss_normalization)
  whole_name = "+".join((name, *made.wrappers))
  checks.check_reads(whole_name, selector, table, task)
  checks.check_meta_batch(config, whole_name, selector, devices.num_replicas, source)
  scored = checks.of_size(made.signals, config.meta_batch_size or config.batch_size)
  checks.check_selector(whole_name, selector, source.num_samples, scored, devices.num_replicas)
  if ":" in whole_name:  # a user's own
    contract.check_values(whole_name, selector, source.num_samples, scored)
  recipe = steps.Recipe(
    module=module,
    task=task,
    selector=selector,
    schedule=made.schedule,
    batch_size=config.batch_size,
    meta_batch_size=config.meta_batch_size or config.batch_size,
    eval_batch_size=config.eval_batch_size,
    epochs=config.epochs,
    num_replicas=devices.num_replicas,
    buckets=_buckets(source),
  )

  def initial_state(key: jax.Array, example: Any) -> tuple[state.RunState, Any]:
    inputs = task.inputs(None, jnp.zeros(1, jnp.int32), example)["inputs"]
    return state.create_run_state(key, module, made.tx, selector, inputs, source.num_samples)

  example = {name: jnp.asarray(array[:1]) for name, array in source.train.items()}
  initial, frozen = devices.build(initial_state, made.init_key, example)
  params = warm_start.first_params(module, initial.train.params)
  if params is not initial.train.params:
    initial = initial._replace(train=initial.train.replace(params=devices.copy(params)))
  if frozen is not None:
    held = models.pretrained_frozen(module, frozen)
    made.feed.arrays = made.feed.arrays._replace(frozen=frozen if held is frozen else devices.place(held))
  initial = _with_statistics(initial, made)
  streamed = isinstance(made.feed, feed.Streamed)
  programs = parallel.create_programs(recipe, devices, streamed=streamed)
  return Run(source, table, recipe, programs, devices, made.feed, initial)


def _with_statistics(initial: state.RunState, made: Parts) -> state.RunState:
  """Gives a model that asks for it the first training images, normalised, before the first step."""
  if not isinstance(made.module, models.fast_net.FastNet):
    return initial
  first = {name: jnp.asarray(array[:_FIRST_IMAGES]) for name, array in made.source.train.items()}
  images = made.task.inputs(None, jnp.zeros(len(first["inputs"]), jnp.int32), first)["inputs"]
  batch_stats = made.module.with_statistics(initial.train.batch_stats, images)
  return initial._replace(train=initial.train.replace(batch_stats=made.devices.copy(batch_stats)))


def full_fraction(config: ml_collections.ConfigDict) -> float:
  """Returns the fraction of the epochs that train on all data: those of annealing, and the last ones of RRD.

  The selector's own epochs and those of the wrapper `annealed` are the same epochs, so that at either end the longer
  ones count.
  """
  selector, annealed = config.selector, config.get("wrappers", {}).get("annealed", {})
  first = max(selector.get("anneal_first", 0.0), annealed.get("first", 0.0))
  last = max(*(selector.get(name, 0.0) for name in ("refinement", "anneal_last")), annealed.get("last", 0.0))
  return min(1.0, first + last)


def matched(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Applies a config's `match_steps`: raises the number of epochs until a run takes as many steps as full training.

  The number assumes that `keep_fraction` of the samples is kept in all epochs except those of `full_fraction`, as in
  RRD (arXiv 2603.04981), Table 2.

  Raises:
    UserError: the selector has no `keep_fraction`, or it lies outside (0, 1].
  """
  if not config.match_steps or (name := _named(config, "selector")[0]) == "full":
    return config
  if "keep_fraction" not in config.selector:
    raise options.UserError(f"match_steps=True needs a selector.keep_fraction; selector={name} has none")
  options.check_fraction("selector.keep_fraction", config.selector.keep_fraction)
  full = full_fraction(config)
  raised = config.copy_and_resolve_references()
  raised.epochs = round(config.epochs / (full + (1 - full) * config.selector.keep_fraction))
  raised.match_steps = False  # done
  return raised


def _task(config: ml_collections.ConfigDict, source: data.Source, *, streamed: bool) -> Task:
  on_host = stream.AUGMENTATIONS if streamed else ()
  names = [name for name in gather.augmentation_names(config.dataset.augmentations) if name not in on_host]
  name, settings = _named(config, "task")
  return tasks.create(name, source, gather.view(source, gather.augmentation(names)), **settings)


def _buckets(source: data.Source) -> buckets.Buckets | None:
  """Returns the lengths to which texts are truncated; None if there is only one."""
  text = source.text
  return buckets.Buckets(text.lengths, text.pad_id) if text is not None and len(text.lengths) > 1 else None


def _feed(
  config: ml_collections.ConfigDict, source: data.Source, key: jax.Array, devices: parallel.Devices, *, streamed: bool
) -> feed.Feed:
  if not streamed:
    arrays, validation = devices.place((steps.Arrays(source.train, source.test, key), source.validation))
    return feed.Resident(arrays, validation)
  sizes = {name: config[name] for name in ("batch_size", "eval_batch_size")}
  cropped = bool(set(gather.augmentation_names(config.dataset.augmentations)) & set(stream.AUGMENTATIONS))
  if cropped and not config.dataset.image_size:
    raise options.UserError("dataset.augmentations: resized_crop needs a dataset.image_size greater than 0")
  return feed.Streamed(source, key, devices, cropped=cropped, **sizes)


def _model(config: ml_collections.ConfigDict, num_outputs: int, num_replicas: int) -> nn.Module:
  name, settings = _named(config, "model")
  dtype = settings.pop("dtype", "float32")
  options.check_choice("model.dtype", dtype, DTYPES)
  axis_name = steps.AXIS if num_replicas > 1 else None
  return models.create(name, num_outputs, dtype=DTYPES[dtype], axis_name=axis_name, **settings)


def description(run: Run, config: ml_collections.ConfigDict, steps_done: int) -> str:
  """Describes the run in one line for people."""
  train, test = data.num_samples(run.source.train), data.num_samples(run.source.test)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(run.initial.train.params))
  frozen = sum(leaf.size for leaf in jax.tree.leaves(run.arrays.frozen))
  beside = f" beside {frozen:,} frozen ones" if frozen else ""
  devices = f"{run.devices.num_replicas} x {run.devices.local[0].device_kind}"
  noise = "" if run.source.noisy is None else f" ({run.source.noisy.mean():.1%} of the training labels are wrong)"
  continued = f", continuing after step {steps_done:,}" if steps_done else ""
  selector = " + ".join((config.selector.name, *_wrappers(config)))
  names = gather.augmentation_names(config.dataset.augmentations)
  augmented = f", augmentations {' '.join(names) or 'none'}" if run.source.mean else ""
  return options.printable(
    f"{selector} on {run.source.name}: {train:,} training and {test:,} test samples{noise}{augmented},"
    f" {config.model.name} with {parameters:,} parameters{beside}, {config.epochs} epochs on {devices}{continued}"
  )
