"""From a config and data to everything that a run needs, with every value checked on the way. Host-side."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from dynsel_jax import data, models, options, selectors
from dynsel_jax.data import gather, stream
from dynsel_jax.factors import coverage
from dynsel_jax.selectors import ranking, wrapping
from dynsel_jax.training import (
  buckets,
  factor_columns,
  feed,
  optimizers,
  parallel,
  schedules,
  score_file,
  signals,
  state,
  steps,
)
from dynsel_jax.training.timing import Timers
from dynsel_jax.types import SampleTable, Selection, Selector

__all__ = ["Run", "build", "description", "full_share", "matched"]

WEIGHTINGS = ("mean_one", "sum_to_n")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Run(NamedTuple):
  """What a run is made of."""

  source: data.Source
  columns: Mapping[str, jax.Array]  # of the `SampleTable`
  firings: coverage.Firings | None  # where this call made the columns, and factor scores are among them
  recipe: steps.Recipe
  programs: parallel.Programs
  devices: parallel.Devices
  feed: feed.Feed
  initial: state.RunState

  @property
  def fixed(self) -> steps.Fixed:
    """The arrays that no step changes; of a streamed set the inputs are padding."""
    return self.feed.fixed


def _named(config: ml_collections.ConfigDict, section: str) -> tuple[str, dict[str, Any]]:
  """Splits a config's section into its name and the options beside it."""
  settings = config[section].to_dict()
  options.check_present(section, settings, ("name",))
  return settings.pop("name"), settings


def _wrappers(config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
  """Returns the options of each wrapper by its name, the innermost first."""
  if "wrappers" not in config:
    return {}
  sections = config.wrappers.to_dict()
  options.check_present("wrappers", sections, ("names",))
  return {name: sections.get(wrapping.section(name), {}) for name in sections["names"]}


def _check_numbers(config: ml_collections.ConfigDict, num_replicas: int, num_samples: int) -> None:
  options.check_positive("epochs", config.epochs)
  for field in ("batch_size", "eval_batch_size"):
    value = config[field]
    if value < 1 or value % num_replicas:
      raise options.UserError(f"{field}={value} must be a multiple of the {num_replicas} device(s)")
  fraction = config.selector.get("keep_fraction")
  if not isinstance(fraction, int | float):
    fraction = 1.0
  options.check_fraction("selector.keep_fraction", fraction)
  if config.batch_size > num_samples * fraction:
    raise options.UserError(
      f"batch_size={config.batch_size} is larger than a selection of {int(num_samples * fraction)} samples"
      f" ({num_samples} * keep_fraction={fraction})"
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
  epoch = jax.ShapeDtypeStruct((), jnp.int32)
  key = jax.eval_shape(jax.random.key, epoch)
  memory = jax.eval_shape(selector.init, key)
  seen = _signals_like(batch_size)
  if any(leaf.size == 0 for leaf in jax.tree.leaves(memory)):
    raise options.UserError(f"selector={name}: init returns an array of size 0, which a checkpoint cannot hold")
  if _shapes(jax.eval_shape(selector.observe, memory, seen)) != _shapes(memory):
    raise options.UserError(f"selector={name}: observe returns a state of other structure, shapes or types than init")
  planned = jax.eval_shape(selector.select, key, memory, epoch)
  if not (isinstance(planned, tuple) and len(planned) == 2 and isinstance(planned[0], Selection)):
    raise options.UserError(f"selector={name}: select must return a Selection and a dict of scalars")
  _check_plan(name, "select", planned[0], num_samples)
  for field, value in planned[1].items():
    if value.shape:
      raise options.UserError(f"selector={name}: info {field!r} has shape {value.shape}, not that of a scalar")
  if selector.refresh is not None:
    _check_plan(name, "refresh", jax.eval_shape(selector.refresh, memory, epoch), num_samples)
  if selector.thin is not None:
    positions, _ = jax.eval_shape(selector.thin, key, memory, seen)
    if positions.shape[0] % num_replicas:
      raise options.UserError(
        f"batch_size={batch_size}: {name} trains on {positions.shape[0]} of a batch,"
        f" which must be a multiple of the {num_replicas} device(s)"
      )


def _check_inputs(config: ml_collections.ConfigDict, module: nn.Module, source: data.Source) -> None:
  """Raises `UserError` unless the model takes what the set holds."""
  kinds = {True: "texts", False: "images"}
  reads_text, text = models.reads_text(module), source.text
  if reads_text != (text is not None):
    raise options.UserError(
      f"model.name={config.model.name} is for {kinds[reads_text]}, dataset.name={source.name} is of"
      f" {kinds[not reads_text]}"
    )
  if text is None:
    return
  if config.dataset.augmentations:
    raise options.UserError(f"dataset.augmentations={config.dataset.augmentations} are for images, not for texts")
  sizes, length = module.sizes, source.train.inputs.shape[1]
  for what, fits, found, taken in (
    ("vocabulary", text.vocabulary <= sizes.vocabulary, text.vocabulary, sizes.vocabulary),
    ("longest text", length <= sizes.max_length, length, sizes.max_length),
    ("padding id", text.pad_id == sizes.pad_id, text.pad_id, sizes.pad_id),
  ):
    if not fits:
      raise options.UserError(
        f"dataset.tokenizer={config.dataset.tokenizer!r} does not fit model.name={config.model.name}: its {what} is"
        f" {found}, the model's {taken}"
      )


def _shapes(tree: Any) -> tuple[Any, list[Any]]:
  leaves, structure = jax.tree.flatten(tree)
  return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def _check_plan(name: str, function: str, selection: Selection, num_samples: int) -> None:
  for field, right in jax.eval_shape(lambda: ranking.nothing(num_samples))._asdict().items():
    shape = jnp.shape(getattr(selection, field))
    if shape != right.shape:
      raise options.UserError(f"selector={name}: {function} gives {field} of shape {shape}, not {right.shape}")


def _signals_like(batch_size: int) -> Any:
  logits = jax.ShapeDtypeStruct((batch_size, 2), jnp.float32)
  labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
  trained = jax.ShapeDtypeStruct((batch_size,), jnp.bool_)
  return jax.eval_shape(signals.of_logits, logits, labels, labels, trained, jax.ShapeDtypeStruct((), jnp.int32))


def build(
  config: ml_collections.ConfigDict,
  source: data.Source,
  timers: Timers,
  devices: Sequence[Any] | None = None,
  columns: Mapping[str, Any] | None = None,
) -> Run:
  """Builds model, selector, steps and initial state.

  Args:
    config: as `configs/base.py` makes it.
    source: the data, as `data.prepare` gives it for `config.dataset`.
    timers: get the seconds of features and factors, where the selector reads them.
    devices: the devices to train on, by default all of this process.
    columns: of the `SampleTable`, `[N]` float32 each, where the run has begun with them; made by default.

  Raises:
    UserError: a name, an option or a value is wrong; the message names the field and the value.
  """
  config = matched(config)
  placed = parallel.local_devices(devices)
  num_samples = source.train.labels.shape[0]
  selector_name, selector_options = _named(config, "selector")
  options.check_settings("selector", selector_name, selector_options, selectors.defaults(selector_name))
  wrapped_in = _wrappers(config)
  for name, settings in wrapped_in.items():
    options.check_settings("wrapper", name, settings, wrapping.defaults(name))
  _check_numbers(config, placed.num_replicas, num_samples)
  module = _model(config, source.num_classes, placed.num_replicas)
  _check_inputs(config, module, source)
  schedule_name, schedule_options = _named(config, "schedule")
  schedule = schedules.create(schedule_name, config.learning_rate, **schedule_options)
  optimizer_name, optimizer_options = _named(config, "optimizer")
  tx = optimizers.create(optimizer_name, **optimizer_options)
  streamed = isinstance(source.train.inputs, stream.Images)
  of_host = stream.AUGMENTATIONS if streamed else ()
  augment = gather.augmentation([name for name in config.dataset.augmentations if name not in of_host])

  # What costs minutes comes after everything that can be wrong at once.
  with parallel.first_process_first():
    firings = None
    if columns is None:
      columns, firings = _columns(config, source, timers)
  columns = {name: jnp.asarray(column) for name, column in columns.items()}
  table = SampleTable(jnp.asarray(source.train.labels), source.num_classes, columns)
  selector = selectors.create(selector_name, table, config.epochs, wrapped_in, **selector_options)
  _check_selector(selector_name, selector, num_samples, config.batch_size, placed.num_replicas)

  recipe = steps.Recipe(
    module=module,
    selector=selector,
    schedule=schedule,
    augment=augment,
    normalize=gather.normalization(source),
    batch_size=config.batch_size,
    eval_batch_size=config.eval_batch_size,
    epochs=config.epochs,
    num_classes=source.num_classes,
    num_replicas=placed.num_replicas,
    label_smoothing=config.label_smoothing,
    weighting=config.weighting or selectors.weighting(selector_name, wrapped_in),
    buckets=_buckets(source),
  )
  init_key, run_key = jax.random.split(jax.random.key(config.seed))
  initial = placed.build(
    lambda key, example: state.create_run_state(
      key, module, tx, selector, recipe.normalize(example), num_samples, source.num_classes
    ),
    init_key,
    jnp.asarray(source.train.inputs[:1]),
  )
  params = models.pretrained(module, initial.train.params)
  if params is not initial.train.params:
    initial = initial._replace(train=initial.train.replace(params=placed.copy(params)))
  return Run(
    source=source,
    columns=columns,
    firings=firings,
    recipe=recipe,
    programs=parallel.create_programs(steps.create(recipe), placed, streamed=streamed),
    devices=placed,
    feed=_feed(config, source, run_key, placed, streamed=streamed),
    initial=initial,
  )


def full_share(config: ml_collections.ConfigDict) -> float:
  """Returns the share of the epochs that a config gives to the full data: annealing, and RRD's last epochs.

  Of the selector's own and the wrapper's, the longer counts at either end: they are the same epochs.
  """
  selector, annealed = config.selector, config.get("wrappers", {}).get("annealed", {})
  first = max(selector.get("anneal_first", 0.0), annealed.get("first", 0.0))
  last = max(*(selector.get(name, 0.0) for name in ("refinement", "anneal_last")), annealed.get("last", 0.0))
  return min(1.0, first + last)


def matched(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns a config that carries out its `match_steps`: with the epochs that take as many steps as full training.

  Nominally: of `keep_fraction` of the samples in all epochs but those of `full_share`. As in RRD (arXiv 2603.04981),
  Table 2, epochs grow in proportion as less is kept.

  Raises:
    UserError: the selector's `keep_fraction` is not a share, or there is none.
  """
  if not config.match_steps or (name := _named(config, "selector")[0]) == "full":
    return config
  if "keep_fraction" not in config.selector:
    raise options.UserError(f"match_steps=True needs a selector.keep_fraction; selector={name} has none")
  options.check_fraction("selector.keep_fraction", config.selector.keep_fraction)
  full = full_share(config)
  raised = config.copy_and_resolve_references()
  raised.epochs = round(config.epochs / (full + (1 - full) * config.selector.keep_fraction))
  raised.match_steps = False  # it is done
  return raised


def _buckets(source: data.Source) -> buckets.Buckets | None:
  """Returns the lengths that texts are cut to, where there is more than one."""
  text = source.text
  return buckets.Buckets(text.lengths, text.pad_id) if text is not None and len(text.lengths) > 1 else None


def _feed(
  config: ml_collections.ConfigDict, source: data.Source, key: jax.Array, devices: parallel.Devices, *, streamed: bool
) -> feed.Feed:
  if not streamed:
    return feed.Resident(devices.place(steps.Fixed(source.train, source.test, key)))
  sizes = {name: config[name] for name in ("batch_size", "eval_batch_size")}
  cropped = bool(set(config.dataset.augmentations) & set(stream.AUGMENTATIONS))
  if cropped and not config.dataset.image_size:
    raise options.UserError("dataset.augmentations: resized_crop needs dataset.image_size")
  return feed.Streamed(source, key, devices, cropped=cropped, **sizes)


def _columns(
  config: ml_collections.ConfigDict, source: data.Source, timers: Timers
) -> tuple[dict[str, jax.Array], coverage.Firings | None]:
  """Makes what the selector reads of each sample, from a score file and from the factors, and which of these fire."""
  columns, firings = {}, None
  if "scores" in config:
    options.check_present("scores", config.scores.to_dict(), score_file.defaults())
    columns = score_file.read_columns(config.scores.path, source)
  if "features" in config:
    stage = factor_columns.Stage(config, source, timers)
    columns, firings = {**columns, **stage.columns}, stage.firings
  return columns, firings


def _model(config: ml_collections.ConfigDict, num_classes: int, num_replicas: int) -> nn.Module:
  name, settings = _named(config, "model")
  dtype = settings.pop("dtype", "float32")
  options.check_choice("model.dtype", dtype, DTYPES)
  axis_name = steps.AXIS if num_replicas > 1 else None
  return models.create(name, num_classes, dtype=DTYPES[dtype], axis_name=axis_name, **settings)


def description(run: Run, config: ml_collections.ConfigDict, steps_done: int) -> str:
  """Returns the run in one line for a person."""
  train, test = (dataset.labels.shape[0] for dataset in (run.source.train, run.source.test))
  parameters = sum(leaf.size for leaf in jax.tree.leaves(run.initial.train.params))
  devices = f"{run.devices.num_replicas} x {run.devices.local[0].device_kind}"
  noise = "" if run.source.noisy is None else f" ({run.source.noisy.mean():.1%} of the training labels are wrong)"
  continued = f", continuing after step {steps_done:,}" if steps_done else ""
  selector = " + ".join((config.selector.name, *_wrappers(config)))
  return (
    f"{selector} on {run.source.name}: {train:,} training and {test:,} test samples{noise},"
    f" {config.model.name} with {parameters:,} parameters, {config.epochs} epochs on {devices}{continued}"
  )
