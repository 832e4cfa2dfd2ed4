"""Checks of a run before anything that takes long, each with one line that names the field, the value and the remedy.

Host-side; functions are evaluated by shape alone. `B` is the global batch size.
"""

import functools
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import linen as nn
from jax import Array

from dynsel_jax import batching, data, models, selectors, tasks
from dynsel_jax.options import UserError, check_choice, check_fraction, check_positive, check_seed
from dynsel_jax.tasks import Task
from dynsel_jax.training import parallel
from dynsel_jax.types import LOSS_NORMALIZATIONS, SampleTable, Selection, Selector, Signals

__all__ = ["check_model_and_data", "check_numbers", "check_padding", "check_reads", "check_selector", "check_task"]


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
  """Raises `UserError` unless the model takes the inputs of the set."""
  kinds = {True: "texts", False: "images"}
  reads_text, text = models.reads_text(module), source.text
  if ":" in config.model.name:  # a user's own says for itself what it takes
    return
  if reads_text != (text is not None):
    raise UserError(
      f"model.name={config.model.name} takes {kinds[reads_text]}, and dataset.name={source.name} holds"
      f" {kinds[not reads_text]}"
    )
  if text is None:
    return
  if config.dataset.augmentations:
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


def check_task(name: str, task: Task, module: nn.Module, source: data.Source, batch_size: int) -> Signals:
  """Returns the shapes of a step's signals.

  Raises:
    UserError: the functions of the task do not return what `tasks.task` says.
  """
  batch = jax.tree.map(
    lambda array: jax.ShapeDtypeStruct((batch_size, *array.shape[1:]), array.dtype), dict(source.train)
  )
  index, valid = jnp.zeros(batch_size, jnp.int32), jnp.ones(batch_size, bool)

  def forward(key: Array, batch: Any) -> Any:
    seen = task.inputs(None, index, batch)
    variables = module.init(key, seen["inputs"], valid, train=False)
    outputs, _ = module.apply(variables, seen["inputs"], valid, train=False)
    losses, extras = task.losses(outputs, seen)
    return batching.signals(index, losses, jnp.int32(0), **extras), task.metrics(outputs, seen, valid)

  signals, metrics = jax.eval_shape(forward, jax.random.key(0), batch)
  if signals.loss.shape != (batch_size,):
    raise UserError(
      f"task.name={name}: losses has shape {signals.loss.shape}, not one loss for each of {batch_size} rows"
    )
  if missing := set(task.signals) - set(signals.extras):
    raise UserError(f"task.name={name}: losses gives no {', '.join(sorted(missing))}, which the task names as signals")
  if task.metric.name not in metrics and task.summarize is None:
    raise UserError(f"task.name={name}: metrics gives no {task.metric.name!r}; it gives {', '.join(sorted(metrics))}")
  return signals._replace(extras={extra: signals.extras[extra] for extra in task.signals})


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
  if selection.weights is not None and selection.weights.shape != (num_samples,):
    raise UserError(f"selector={name}: select gives weights of shape {selection.weights.shape}, not ({num_samples},)")
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


def check_padding(name: str, selector: Selector, signals: Signals) -> None:
  """Raises `UserError` if `observe` changes the state on a batch of padding alone, for a user's own selector."""
  shapes = signals._replace(extras={k: v for k, v in signals.extras.items() if k in selector.reads})

  def worst(leaf: Any) -> Array:
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.full(leaf.shape, jnp.nan, leaf.dtype) if floating else jnp.ones(leaf.shape, leaf.dtype)

  padding = jax.tree.map(worst, shapes)._replace(index=jnp.full(shapes.index.shape, -1, jnp.int32))
  before = jax.jit(selector.init)(jax.random.key(0))
  after = jax.jit(selector.observe)(before, padding)
  pairs = zip(*(jax.tree.leaves(parallel.fetch(state)) for state in (before, after)), strict=True)
  if not all(np.array_equal(old, new, equal_nan=old.dtype.kind == "f") for old, new in pairs):
    raise UserError(
      f"selector={name}: observe changes the state on rows with index -1, which are padding: write with memory.scatter,"
      " or to index N with mode='drop'"
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
    raise UserError(f"{what}: {name} fails ({_line_of(error)}): {type(error).__name__}: {first}") from error


def _line_of(error: BaseException) -> str:
  """Returns file and line of the innermost frame that belongs to neither JAX nor this package's checks."""
  found = traceback.extract_tb(error.__traceback__)
  frames = [frame for frame in found if "/jax/" not in frame.filename and frame.filename != __file__]
  return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "no line known"


def _check_mask(name: str, function: str, what: str, mask: Any, num_samples: int) -> None:
  if jnp.shape(mask) != (num_samples,) or mask.dtype != jnp.bool_:
    kind = f"shape {jnp.shape(mask)} and type {getattr(mask, 'dtype', type(mask).__name__)}"
    raise UserError(f"selector={name}: {function} gives {what} of {kind}; it must be ({num_samples},) bool")


def _shapes(tree: Any) -> tuple[Any, list[Any]]:
  leaves, structure = jax.tree.flatten(tree)
  return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
