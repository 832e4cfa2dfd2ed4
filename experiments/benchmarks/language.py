"""The decoder's step against a hand-written loop and `transformers`, its thinned step, and the memory of a loss."""

import functools
import itertools
import math
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

from configs import pretrain_text
from dynsel_jax import options
from dynsel_jax.data import source
from dynsel_jax.models import decoder_files
from dynsel_jax.models.decoder import PAD
from dynsel_jax.tasks import token_loss
from dynsel_jax.training import setup
from experiments.benchmarks import alternate, language_torch, steps_of

__all__ = ["benchmark_decoder"]

_LENGTH, _VOCABULARY, _BATCH = 128, 4096, 16
_ADAMW = {"learning_rate": 1e-3, "b2": 0.95, "weight_decay": 0.1}


def _documents(samples: int) -> source.Source:
  """Returns random tokens: the time of a step does not depend on them."""
  rng = np.random.default_rng(0)

  def dataset(rows: int) -> source.Dataset:
    inputs = rng.integers(0, _VOCABULARY, (rows, _LENGTH)).astype(np.int32)
    targets = np.ones((rows, _LENGTH), bool)
    targets[:, 0] = False
    return source.Dataset(inputs=inputs, targets=targets)

  train, test = dataset(samples), dataset(_BATCH)
  digest = source.fingerprint(train["inputs"])
  text = source.Text(("",) * samples, PAD, _VOCABULARY, (_LENGTH,))
  return source.Source("random tokens", train, test, digest, digest, text=text)


def _run(selector: str) -> setup.Run:
  config = pretrain_text.get_config(f"selector={selector}")
  config.update(batch_size=_BATCH, epochs=20)
  documents = _documents(10 * _BATCH)
  return setup.build(setup.parts(config, documents, jax.devices()[:1]), setup.table_of(documents))


def _mean_loss(run: setup.Run, params: Any, ids: jax.Array) -> jax.Array:
  """Returns the mean cross-entropy from logits of all tokens, as one writes it by hand."""
  outputs, _ = run.recipe.module.apply({"params": params}, ids, None, train=True)
  logits = outputs["states"][:, :-1] @ outputs["head"].T
  return optax.softmax_cross_entropy_with_integer_labels(logits, ids[:, 1:]).mean()


def _by_hand(run: setup.Run) -> Callable[[int], Any]:
  """Builds a training loop as one writes it by hand: one jitted step on logits of all tokens, batches from numpy."""
  module, params = run.recipe.module, jax.tree.map(jnp.copy, run.initial.train.params)
  tx = optax.adamw(**_ADAMW, mask=jax.tree.map(lambda p: p.ndim > 1, params))
  state = train_state.TrainState.create(apply_fn=module.apply, params=params, tx=tx)
  inputs = np.asarray(run.source.train["inputs"])
  order = np.random.default_rng(0).permutation(len(inputs))

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state: train_state.TrainState, ids: jax.Array) -> train_state.TrainState:
    return state.apply_gradients(grads=jax.grad(functools.partial(_mean_loss, run))(state.params, ids))

  def call(number: int) -> Any:
    nonlocal state
    state = step(state, inputs[order[number * _BATCH : (number + 1) * _BATCH]])
    return state

  return call


def _beside_transformers(run: setup.Run, steps: int) -> str:
  """Times the same model in `transformers`, once loss and gradient are the same there; returns a line.

  Raises:
    UserError: they are not.
  """
  if (platform := jax.devices()[0].platform) != "cpu":
    return f"not compared with transformers on a {platform}, where float32 is another precision in each"
  module, params = run.recipe.module, run.initial.train.params
  with tempfile.TemporaryDirectory() as folder:
    decoder_files.save(pathlib.Path(folder), module.sizes, params)
    try:
      model = language_torch.model_of(pathlib.Path(folder))
    except ImportError:
      return "PyTorch or transformers is not installed; to compare with them: pip install --editable '.[benchmark]'"
  batches = np.asarray(run.source.train["inputs"]).reshape(-1, _BATCH, _LENGTH)
  loss, gradient = jax.jit(jax.value_and_grad(functools.partial(_mean_loss, run)))(params, batches[0])
  here = (float(loss), float(optax.global_norm(gradient)))
  there = language_torch.loss_and_gradient_norm(model, batches[0])
  if not all(math.isclose(*pair, rel_tol=1e-4) for pair in zip(here, there, strict=True)):
    raise options.UserError(f"loss and gradient norm are {here} here and {there} in transformers, on the same weights")
  optimizer = language_torch.optimizer_of(model, **_ADAMW)
  reference = language_torch.stepping(model, optimizer, itertools.cycle(batches), steps)
  ours, theirs, ratio = alternate(steps_of.stepping(run, 0, steps), reference, 9)
  return (
    f"decoder step: ours {ours / steps * 1e3:.0f} ms, transformers {theirs / steps * 1e3:.0f} ms, ratio {ratio:.3f};"
    f" loss {here[0]:.4f} and gradient norm {here[1]:.4f} in both"
  )


def _temporary_bytes(length: int, vocabulary: int, width: int, chunk: int) -> int:
  """Returns the memory that the loss of one sequence and its gradients take beside arguments and results."""

  def loss(states: jax.Array, head: jax.Array, targets: jax.Array) -> jax.Array:
    return token_loss.token_losses(states, head, targets, chunk=chunk)[0].mean()

  shapes = [jax.ShapeDtypeStruct((rows, width), jnp.float32) for rows in (length, vocabulary)]
  targets = jax.ShapeDtypeStruct((length,), jnp.int32)
  compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*shapes, targets).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def benchmark_decoder() -> None:
  """Prints the seconds of a decoder's step beside a hand-written one and one of `transformers`, of ES's thinned step,
  and the loss's memory.

  The model is that of configs/pretrain_text.py at 16 sequences of 128 tokens. If a backward pass takes as long as two
  forward passes, the thinned step on a quarter of the batch is (1 + 3 / 4) / 3 = 0.583 of a full one.
  """
  steps = 3
  run = _run("full")
  reference = steps_of.one_by_one(_by_hand(run), steps)
  ours, plain, ratio = alternate(steps_of.stepping(run, 0, steps), reference, 9)
  print(f"decoder step: ours {ours / steps * 1e3:.0f} ms, by hand {plain / steps * 1e3:.0f} ms, ratio {ratio:.3f}")
  print(_beside_transformers(run, steps))
  run = _run("es")
  middle = 10  # where ES thins
  pair = (steps_of.stepping(run, middle, steps, thinned=thinned) for thinned in (True, False))
  thinned, full, ratio = alternate(*pair, 9)
  print(f"thinned step: {thinned / steps * 1e3:.0f} ms, full {full / steps * 1e3:.0f} ms, ratio {ratio:.3f}")
  for name, chunk in (("in chunks", token_loss.CHUNK), ("of all tokens", 2**40)):
    taken = _temporary_bytes(1024, 49_152, 576, chunk)
    print(f"loss of 1,024 tokens, vocabulary 49,152, logits {name}: {taken / 2**20:,.0f} MiB of temporary memory")
