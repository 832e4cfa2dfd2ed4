"""Records static scores of a proxy run: updates per-sample notes after each epoch, and makes the columns at the end.

The notes are the state of `recorder`, a selector that trains on everything. So they are checkpointed with the run, and
an interrupted run continues with the same bits. After each epoch one forward pass over the training set, of unaugmented
samples with running statistics, updates the scores: memory grows with N C, not with the number of epochs. Papers that
record the augmented batches of training get other numbers. Host-side, except the functions that it compiles.

`N` is the number of training samples, `C` the number of classes, `D` the width of the last layer's input.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dynsel_jax.coresets import dynamics, gradients, windows
from dynsel_jax.data import gather
from dynsel_jax.options import UserError, check_choice, check_positive
from dynsel_jax.selectors import full
from dynsel_jax.tasks import classification
from dynsel_jax.training import parallel, setup
from dynsel_jax.training.state import RunState, TrainState
from dynsel_jax.types import SampleTable, Selector

__all__ = ["RECORDED", "Recording", "Stream", "check_window", "columns", "create", "outputs", "record", "recorder"]

WINDOWED = {"dual": 2, "dyn_unc": 2, "tdds": 3}  # the shortest window of each score
RECORDED = ("aum", "el2n", "forgetting", "grand", "label_probability", "moso", *WINDOWED)
MOSO_CHECKPOINTS = 10  # evenly spread; the authors' code draws as many at random


class Seen(NamedTuple):
  """The outputs of one forward pass over the training set."""

  probabilities: Any  # [N, C] float32
  grand: Any  # [N] float32, norm of the last layer's gradient
  labels: Any  # [N] int32


class Stream(NamedTuple):
  """A score that is accumulated epoch by epoch."""

  dynamics: dynamics.Dynamics
  # Computes the numbers of an epoch, `[N]` or `[N, C]`; None for MoSo, which has a pass of its own.
  column: Callable[[Seen], Array] | None = None
  epochs: int | None = None  # the number of first epochs that count; None for all


class Recording(NamedTuple):
  """The scores that a run records, and their common update."""

  streams: dict[str, Stream]
  update: Callable[..., Any]  # (notes, Seen, epoch) -> notes
  moso_epochs: frozenset[int]  # counted from 0


def _label_probability(seen: Seen) -> Array:
  return jnp.take_along_axis(seen.probabilities, seen.labels[:, None], axis=1)[:, 0]


def check_window(score: str, window: int, epochs: int) -> None:
  """Raises `UserError` if the window is too short for the score or longer than the run."""
  if score in WINDOWED and not WINDOWED[score] <= window <= epochs:
    raise UserError(f"window={window} must lie in [{WINDOWED[score]}, epochs={epochs}] for the score {score}")


@functools.cache
def create(num_classes: int, epochs: int, *, scores: tuple[str, ...], window: int, early_epochs: int) -> Recording:
  """Builds the recording of the named scores; the same object for the same arguments, so that it is compiled once.

  Args:
    num_classes: C.
    epochs: of the run.
    scores: of `RECORDED`.
    window: epochs of the sliding window of Dyn-Unc, DUAL and TDDS.
    early_epochs: number of first epochs over which EL2N and GraNd are averaged.

  Raises:
    UserError: a name is unknown, or the window is too short or longer than the run.
  """
  check_positive("early_epochs", early_epochs)
  for name in scores:
    check_choice("scores", name, RECORDED)
    check_window(name, window, epochs)
  average = dynamics.average()
  makers: dict[str, Callable[[], Stream]] = {
    "aum": lambda: Stream(average, lambda seen: dynamics.margin(seen.probabilities, seen.labels)),
    "dual": lambda: Stream(windows.dual(window=window), _label_probability),
    "dyn_unc": lambda: Stream(windows.dyn_unc(window=window), _label_probability),
    "el2n": lambda: Stream(average, lambda seen: dynamics.el2n(seen.probabilities, seen.labels), early_epochs),
    "forgetting": lambda: Stream(
      dynamics.forgetting(), lambda seen: jnp.argmax(seen.probabilities, axis=1) == seen.labels
    ),
    "grand": lambda: Stream(average, lambda seen: seen.grand, early_epochs),
    "label_probability": lambda: Stream(average, _label_probability),
    "moso": lambda: Stream(average),
    "tdds": lambda: Stream(windows.tdds(num_classes, window=window), lambda seen: seen.probabilities),
  }
  streams = {name: makers[name]() for name in scores}

  def update(notes: dict[str, Any], seen: Seen, epoch: Array) -> dict[str, Any]:
    new = dict(notes)
    for name, stream in streams.items():
      if stream.column is not None:
        later = stream.dynamics.update(notes[name], stream.column(seen))
        counts = True if stream.epochs is None else epoch < stream.epochs
        new[name] = jax.tree.map(functools.partial(jnp.where, counts), later, notes[name])
    return new

  spread = np.rint(np.linspace(0, epochs - 1, min(epochs, MOSO_CHECKPOINTS))).astype(int).tolist()
  return Recording(streams, update, frozenset(spread) if "moso" in streams else frozenset())


def recorder(
  table: SampleTable, epochs: int, *, scores: tuple[str, ...] = ("el2n",), window: int = 10, early_epochs: int = 10
) -> Selector:
  """Builds plain training whose state is the notes of a `Recording`, which `record` updates; options as in `create`."""
  num_samples = table.num_samples
  recording = create(table.num_classes, epochs, scores=tuple(scores), window=window, early_epochs=early_epochs)

  def init(key: Array) -> dict[str, Any]:
    del key
    return {name: stream.dynamics.init(num_samples) for name, stream in recording.streams.items()}

  return full.full(table, epochs)._replace(init=init)


def record(run: setup.Run, state: RunState, epoch: int, **settings: Any) -> RunState:
  """Adds an epoch, counted from 0, to the notes of a run with the selector `recorder(**settings)`."""
  recording, notes = create(run.source.num_classes, run.recipe.epochs, **settings), state.selector
  if any(stream.column is not None for stream in recording.streams.values()):
    found = outputs(run, state.train, ("probabilities", "grand"))
    seen = Seen(found["probabilities"], found["grand"], run.source.labels)
    notes = run.devices.build(recording.update, notes, seen, np.int32(epoch))
  if epoch in recording.moso_epochs:
    add = recording.streams["moso"].dynamics.update
    notes = {**notes, "moso": run.devices.build(add, notes["moso"], _moso(run, state))}
  return state._replace(selector=notes)


def columns(run: setup.Run, state: RunState, **settings: Any) -> dict[str, np.ndarray]:
  """Returns the recorded scores of a finished run, `[N]` float32 each."""
  streams = create(run.source.num_classes, run.recipe.epochs, **settings).streams
  return {name: np.asarray(stream.dynamics.score(state.selector[name])) for name, stream in streams.items()}


def outputs(run: setup.Run, train: TrainState, names: Sequence[str]) -> dict[str, np.ndarray]:
  """Runs a forward pass over the training set, split over the devices.

  Args:
    run: the run.
    train: its parameters and running statistics.
    names: the outputs to return, float32 each: "probabilities" `[N, C]`; "loss" `[N]` in nats; "grand" `[N]`, the norm
      of the last layer's gradient; "features" `[N, D]`, the last layer's input.
  """
  num_samples, batch_size = run.source.num_samples, run.recipe.eval_batch_size
  parts = []
  for start in range(0, num_samples, batch_size):
    index = np.arange(start, start + batch_size, dtype=np.int32)
    index = jax.device_put(np.where(index < num_samples, index, -1), run.devices.shared)
    found = _forward(run.recipe.module, run.recipe.task.inputs, train, run.arrays.train, index)
    parts.append(parallel.fetch({name: found[name] for name in names}))
  return {name: np.concatenate([part[name] for part in parts])[:num_samples] for name in names}


@functools.partial(jax.jit, static_argnames=("module", "view"))
def _forward(module: Any, view: Any, train: TrainState, dataset: Any, index: Array) -> dict[str, Array]:
  batch = view(None, index, gather.gather(dataset, index))
  labels, variables = batch["labels"], {"params": train.params, "batch_stats": train.batch_stats}
  logits, layers = module.apply(variables, batch["inputs"], index >= 0, train=False)
  probabilities, features = jax.nn.softmax(logits), layers["features"].astype(jnp.float32)
  return {
    "probabilities": probabilities,
    "loss": classification.cross_entropy(logits, labels),
    "grand": gradients.grand_last_layer(probabilities, labels, features),
    "features": features,
  }


def _moso(run: setup.Run, state: RunState) -> Array:
  """Computes this checkpoint's term of MoSo, `[N]` float32, from the gradients of all parameters."""
  params = (state.train.params, state.train.batch_stats)
  loss = _sample_loss(run.recipe.module, run.recipe.task.inputs)
  products = gradients.gradient_products(loss, params, run.arrays.train)
  return gradients.moso(products, state.meters.learning_rate)


@functools.cache
def _sample_loss(module: Any, view: Any) -> gradients.LossFn:
  """Returns the loss function of one sample; the same object for the same model, so that it is compiled once."""

  def loss(params: Any, sample: Any) -> Array:
    trained, batch_stats = params
    batch = view(None, jnp.zeros(1, jnp.int32), {name: array[None] for name, array in sample.items()})
    variables = {"params": trained, "batch_stats": jax.lax.stop_gradient(batch_stats)}
    logits, _ = module.apply(variables, batch["inputs"], jnp.ones(1, bool), train=False)
    return classification.cross_entropy(logits, batch["labels"])[0]

  return loss
