"""Checks of a run before anything that takes long, each with one line that names the field, the value and the remedy.

Host-side; functions are evaluated by shape alone. `B` is the global batch size.
"""

import functools
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn
from jax import Array

from dynsel_jax import batching, data, models, selectors, tasks
from dynsel_jax.data import gather, stream
from dynsel_jax.options import UserError, check_choice, check_fraction, check_positive, check_seed
from dynsel_jax.tasks import Task
from dynsel_jax.types import LOSS_NORMALIZATIONS, SampleTable, Selection, Selector, Signals

__all__ = [
  "check_fields",
  "check_meta_batch",
  "check_model_and_data",
  "check_numbers",
  "check_reads",
  "check_selector",
  "check_task",
  "of_size",
]

# Sections and fields of a config, those that every config has and those that some have.
FIELDS = (
  "batch_size",
  "cache_dir",
  "checkpoint_every_steps",
  "dataset",
  "epochs",
  "eval_batch_size",
  "learning_rate",
  "loss_normalization",
  "match_steps",
  "meta_batch_size",
  "model",
  "optimizer",
  "schedule",
  "seed",
  "selector",
  "task",
)
OPTIONAL_FIELDS = ("factors", "features", "loggers", "proxy", "scores", "wrappers")


def check_fields(config: ml_collections.ConfigDict) -> None:
  """Raises `UserError` if the config lacks a field, or has one that nothing would read."""
  fields = ", ".join(sorted((*FIELDS, *OPTIONAL_FIELDS)))
  for name in FIELDS:
    if name not in config:
      raise UserError(f"config has no field {name!r}; its fields: {fields}")
  for name in config:
    if name not in FIELDS + OPTIONAL_FIELDS:
      raise UserError(f"config has a field {name!r} that nothing reads; its fields: {fields}")


def check_numbers(config: ml_collections.ConfigDict, num_replicas: int, num_samples: int) -> None:
  """Raises `UserError` if a number at the top of the config lies outside its range."""
  check_positive("epochs", config.epochs)
  check_seed("seed", config.seed)
  for field in ("batch_size", "eval_batch_size"):
    value = config[field]
    if value < 1 or value % num_replicas:
      raise UserError(f"{field}={value} must be a multiple of the {num_replicas} device(s)")
  fraction = config.selector.get("keep_fraction")
  if not isinstance(fraction, int | float):
    fraction = 1.0
  check_fraction("selector.keep_fraction", fraction)
  if config.batch_size > num_samples * fraction:
    raise UserError(
      f"batch_size={config.batch_size} is larger than a selection of {int(num_samples * fraction)} samples"
      f" ({num_samples} * keep_fraction={fraction})"
    )
  if config.checkpoint_every_steps < 0:
    raise UserError(f"checkpoint_every_steps={config.checkpoint_every_steps} must be at least 0 (0: at the end)")
  if config.loss_normalization:
    check_choice("loss_normalization", config.loss_normalization, LOSS_NORMALIZATIONS)


def check_model_and_data(config: ml_collections.ConfigDict, module: nn.Module, source: data.Source) -> None:
  """Raises `UserError` unless the model takes the inputs of the data set."""
  reads_text, text = models.reads_text(module), source.text
  if ":" in config.model.name:  # a user's own model raises errors of its own
    return
  if reads_text != (text is not None):
    takes, holds = ("token ids of texts", "no texts") if reads_text else ("numbers, such as images", "texts")
    raise UserError(
      f"model.name={config.model.name} takes {takes}, and dataset.name={source.name} holds {holds}; name another model"
    )
  if text is None:
    return
  if gather.augmentation_names(config.dataset.augmentations):
    raise UserError(f"dataset.augmentations={config.dataset.augmentations} are for images, not for texts")
  sizes, length = module.sizes, source.train["inputs"].shape[1]
  for what, fits, found, taken in (
    ("vocabulary", text.vocabulary <= sizes.vocabulary, text.vocabulary, sizes.vocabulary),
    ("longest text", length <= sizes.max_length, length, sizes.max_length),
    ("padding id", text.pad_id == sizes.pad_id, text.pad_id, sizes.pad_id),
  ):
    if not fits:
      raise UserError(
        f"dataset.tokenizer={config.dataset.tokenizer!r} does not fit model.name={config.model.name}: its {what} is"
        f" {found}, the model's {taken}"
      )


def check_task(
  config: ml_collections.ConfigDict, task: Task, module: nn.Module, source: data.Source, batch_size: int
) -> Signals:
  """Returns the shapes and types of a step's signals.

  Raises:
    UserError: the model does not return what `models` says, or a function of the task not what `tasks.task` says.
  """
  where = f"task.name={config.task.name}"
  traced = functools.partial(_traced, where)
  shapes = {name: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype) for name, x in source.train.items()}
  index, valid = jnp.zeros(batch_size, jnp.int32), jnp.ones(batch_size, bool)
  seen = traced("inputs", functools.partial(task.inputs, None), index, shapes)
  if not isinstance(seen, dict) or "inputs" not in seen:
    raise UserError(f"{where}: inputs must return a dict with 'inputs', which the model is given")
  if _shapes(traced("inputs", task.inputs, jax.random.key(0), index, shapes)) != _shapes(seen):
    raise UserError(f"{where}: inputs must return the same names, shapes and types with a key as without one")
  outputs = _outputs(f"model.name={config.model.name}", module, seen["inputs"], valid)
  width = getattr(outputs, "shape", (task.num_outputs,))[-1:]  # a pytree of outputs is between the model and the task
  if width != (task.num_outputs,):
    raise UserError(
      f"model.name={config.model.name} gives outputs of shape {outputs.shape}, and {where} needs num_outputs="
      f"{task.num_outputs} as the last dimension"
    )
  outputs = traced("reduce", task.reduced, outputs, seen)
  if task.row_weights is not None:
    _check_rows(f"{where}: row_weights", traced("row_weights", task.row_weights, seen), batch_size)
  losses = traced("losses", task.losses, outputs, seen)
  if not (isinstance(losses, tuple) and len(losses) == 2 and isinstance(losses[1], dict)):
    raise UserError(f"{where}: losses must return the losses and a dict of extras")
  loss, extras = losses
  _check_rows(f"{where}: losses", loss, batch_size)
  if task.objective is not None:
    _check_rows(f"{where}: objective", traced("objective", task.objective, outputs, seen), batch_size)
  for name in task.signals:
    if name not in extras:
      given = ", ".join(sorted(extras)) or "none"
      raise UserError(f"{where}: signals names {name!r}, which is not among the extras that losses gives: {given}")
    if jnp.shape(extras[name])[:1] != (batch_size,):
      shape = jnp.shape(extras[name])
      raise UserError(f"{where}: the extra {name!r} of losses has shape {shape}; it must have {batch_size} rows")
  _check_metrics(where, task, outputs, seen, valid)
  shaped = functools.partial(batching.signals, epoch=jnp.int32(0))
  return jax.eval_shape(shaped, index, loss, **{name: extras[name] for name in task.signals})


def _outputs(where: str, module: nn.Module, inputs: Any, valid: Array) -> Any:
  """Returns the shapes of a model's outputs on one batch."""

  def forward(key: Array, inputs: Any) -> Any:
    variables = module.init(key, inputs, valid, train=False)
    return module.apply(variables, inputs, valid, train=False)

  found = _traced(where, "the module", forward, jax.random.key(0), inputs)
  if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
    raise UserError(f"{where}: the module must return its outputs and a dict of intermediates, which may be empty")
  return found[0]


def _check_rows(what: str, values: Any, batch_size: int, *, any_type: bool = False) -> None:
  """Raises `UserError` unless `values` is one number per row, float32 unless `any_type`."""
  shape, dtype = jnp.shape(values), getattr(values, "dtype", type(values).__name__)
  if shape != (batch_size,) or not (any_type or dtype == jnp.float32):
    wanted = f"one number for each of {batch_size} rows" + ("" if any_type else ", float32")
    raise UserError(f"{what} has shape {shape} and type {dtype}; it must be {wanted}")


def _check_metrics(where: str, task: Task, outputs: Any, batch: Any, valid: Array) -> None:
  """Raises `UserError` unless `metrics` gives sums and counts, the headline among them, and `rows` a number a row."""
  metrics = _traced(where, "metrics", task.metrics, outputs, batch, valid)
  if not isinstance(metrics, dict):
    raise UserError(f"{where}: metrics must return a dict of (sum, count) by name")
  for name, pair in metrics.items():
    if not isinstance(pair, tuple) or [jnp.shape(part) for part in pair] != [(), ()]:
      found = ", ".join(str(jnp.shape(leaf)) for leaf in jax.tree.leaves(pair))
      raise UserError(f"{where}: metrics gives {name!r} of shape {found}; it must be a tuple (sum, count) of scalars")
  if task.rows is None:  # else `summarize` may give it, which is known after the first epoch
    tasks.check_headline(where, task, metrics)
    return
  rows = _traced(where, "rows", task.rows, outputs, batch)
  if not isinstance(rows, dict):
    raise UserError(f"{where}: rows must return a dict of the rows' numbers by name")
  for name, values in rows.items():
    _check_rows(f"{where}: {name!r} of rows", values, len(valid), any_type=True)


def check_reads(name: str, selector: Selector, table: SampleTable, task: Task) -> None:
  """Raises `UserError` if the selector reads a signal that the task does not give, or a column that the table lacks."""
  hints = []
  for read in selector.reads:
    if givers := tasks.giving(read):
      hints.append(f"tasks that give {read!r}: {', '.join(givers)}")
  has = ", ".join(sorted((*task.signals, *table.columns))) or "nothing but the loss"
  giver = "; ".join([f"the task {task.name} and the table give {has}", *hints])
  selectors.check_reads(name, selector, table, task.signals, giver)


def check_selector(name: str, selector: Selector, num_samples: int, signals: Signals, num_replicas: int) -> None:
  """Raises `UserError` if a selector's functions do not return what `types` says, without computing anything."""
  batch_size = signals.index.shape[0]
  signals = signals._replace(extras={k: v for k, v in signals.extras.items() if k in selector.reads})
  epoch = jax.ShapeDtypeStruct((), jnp.int32)
  key = jax.eval_shape(jax.random.key, epoch)
  traced = functools.partial(_traced, f"selector={name}")
  state = traced("init", selector.init, key)
  if any(leaf.size == 0 for leaf in jax.tree.leaves(state)):
    raise UserError(f"selector={name}: init returns an array of size 0, which a checkpoint cannot hold")
  if _shapes(traced("observe", selector.observe, state, signals)) != _shapes(state):
    raise UserError(f"selector={name}: observe returns a state of other structure, shapes or types than init")
  selected = traced("select", selector.select, key, state, epoch)
  if not (isinstance(selected, tuple) and len(selected) == 2 and isinstance(selected[0], Selection)):
    raise UserError(f"selector={name}: select must return a Selection and a dict of scalars")
  selection, info = selected
  _check_mask(name, "select", "keep", selection.keep, num_samples)
  weights = selection.weights
  if weights is not None and (jnp.shape(weights) != (num_samples,) or getattr(weights, "dtype", "") != jnp.float32):
    raise UserError(f"selector={name}: select gives weights of {_kind(weights)}; they must be ({num_samples},) float32")
  scalars = {**info, **{field: getattr(selection, field) for field in ("learning_rate_multiplier", "thin")}}
  for field, value in scalars.items():
    if jnp.shape(value):
      raise UserError(f"selector={name}: {field!r} has shape {jnp.shape(value)}; it must be a scalar")
  if selector.refresh is not None:
    _check_mask(name, "refresh", "a mask", traced("refresh", selector.refresh, state, epoch), num_samples)
  if selector.thin is not None:
    positions, _ = traced("thin", selector.thin, key, state, signals)
    if positions.shape[0] % num_replicas:
      raise UserError(
        f"batch_size={batch_size}: {name} trains on {positions.shape[0]} of a batch,"
        f" which must be a multiple of the {num_replicas} device(s)"
      )


def of_size(signals: Signals, size: int) -> Signals:
  """Returns the shapes and types of signals of `size` rows, from those of another number of rows."""

  def resized(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype) if leaf.ndim else leaf

  return jax.tree.map(resized, signals)


def check_meta_batch(
  config: ml_collections.ConfigDict, name: str, selector: Selector, num_replicas: int, source: data.Source
) -> None:
  """Raises `UserError` if `meta_batch_size` is set where it has no meaning or cannot be kept."""
  size = config.meta_batch_size
  if not size:
    return
  if selector.thin is None:
    raise UserError(f"meta_batch_size={size}: selector={name} trains on whole batches; set meta_batch_size=0")
  if not config.batch_size <= size <= source.num_samples or size % num_replicas:
    raise UserError(
      f"meta_batch_size={size} must be a multiple of the {num_replicas} device(s), from batch_size={config.batch_size}"
      f" to the {source.num_samples} training samples; 0 is batch_size"
    )
  if isinstance(source.train["inputs"], stream.Images) and size != config.batch_size:
    raise UserError(
      f"meta_batch_size={size}: images that stay on disk are read batch_size={config.batch_size} at a time; set"
      f" meta_batch_size=0 and batch_size={size}"
    )


def _traced(what: str, name: str, function: Any, *arguments: Any) -> Any:
  """Returns the shapes of a function's results; one line that names the user's line if it cannot be traced."""
  try:
    return jax.eval_shape(function, *arguments)
  except UserError:
    raise
  except (
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.ConcretizationTypeError,
  ) as error:
    raise UserError(
      f"{what}: {name} uses the value of a traced array ({_line_of(error)}), as NumPy functions, `if` and int() do: use"
      " jax.numpy, jnp.where or jax.lax.cond"
    ) from error
  except Exception as error:
    first = (str(error).strip().splitlines() or ["no message"])[0]
    if isinstance(error, KeyError) and name in ("observe", "thin"):
      first += ", which is no signal that it is given: those of the task that reads=(...) names, and no column"
    raise UserError(f"{what}: {name} fails ({_line_of(error)}): {type(error).__name__}: {first}") from error


def _line_of(error: BaseException) -> str:
  """Returns file and line of the innermost frame that belongs to neither JAX nor this package's checks."""
  found = traceback.extract_tb(error.__traceback__)
  frames = [frame for frame in found if "/jax/" not in frame.filename and frame.filename != __file__]
  return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "no line known"


def _check_mask(name: str, function: str, what: str, mask: Any, num_samples: int) -> None:
  if jnp.shape(mask) != (num_samples,) or getattr(mask, "dtype", "") != jnp.bool_:
    raise UserError(f"selector={name}: {function} gives {what} of {_kind(mask)}; it must be ({num_samples},) bool")


def _kind(array: Any) -> str:
  return f"shape {jnp.shape(array)} and type {getattr(array, 'dtype', type(array).__name__)}"


def _shapes(tree: Any) -> tuple[Any, list[Any]]:
  leaves, structure = jax.tree.flatten(tree)
  return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
