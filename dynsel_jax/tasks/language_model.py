"""Language modelling: the cross-entropy of each next token. Pure functions, except `summarize`.

`b` is the number of sequences of a batch, `L` their number of tokens, `V` the vocabulary.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dynsel_jax.data.gather import View
from dynsel_jax.data.source import Source
from dynsel_jax.options import UserError, check_choice
from dynsel_jax.tasks import logit_geometry as geometry
from dynsel_jax.tasks.task import Batch, Metric, Task
from dynsel_jax.tasks.token_loss import token_losses

__all__ = ["LOSS_REDUCTIONS", "SIGNALS", "language_model"]

SIGNALS = ("tokens", "correct")
LOSS_REDUCTIONS = ("sequences", "tokens")


GEOMETRY = ("nuclear_norm", "projection")  # further signals, with `logit_geometry`


def language_model(
  source: Source, view: View, *, loss_reduction: str = "sequences", logit_geometry: bool = False
) -> Task:
  """Predicts each token that counts from those before it.

  The loss of a sequence, which selectors observe, is the mean cross-entropy of its target tokens in nats. The extras
  are `tokens`, their number, and `correct` (bool), whether each of them has the largest logit: exactly then a greedy
  decoder, given the tokens before the first target, writes the targets.

  The metrics are `nats_per_token`, the mean over all target tokens of a data set; `perplexity`, its exponential;
  `token_accuracy`; `exact_match`, the fraction of the sequences that are `correct`; and `loss`, the mean over the
  sequences of their losses. The last differs from the first if sequences have different lengths.

  Args:
    source: the data set, of token ids "inputs" `[N, L]` int32, -1 on padding, and "targets" `[N, L]` bool, the tokens
      that count.
    view: its augmentation and normalisation.
    loss_reduction: "sequences" minimises the mean of a batch's sequences, "tokens" that of their target tokens.
    logit_geometry: whether to give the extras `nuclear_norm` and `projection` of the logits of a sequence's real tokens
      (see the module of this name), which the method uds reads. They cost a singular value decomposition a sequence.

  Raises:
    UserError: the reduction is unknown, or the data set has no target tokens.
  """
  check_choice("task.loss_reduction", loss_reduction, LOSS_REDUCTIONS)
  if source.text is None or "targets" not in source.train:
    raise UserError(
      f"task.name=language_model reads token ids with the array 'targets'; dataset.name={source.name} has"
      f" {', '.join(source.train)}: use configs/pretrain_text.py or configs/sft.py"
    )

  return Task(
    name="language_model",
    metric=Metric("nats_per_token", larger_is_better=False),
    signals=SIGNALS + (GEOMETRY if logit_geometry else ()),
    num_outputs=source.text.vocabulary,
    inputs=view,
    reduce=functools.partial(_with_geometry, source.train["inputs"].shape[1]) if logit_geometry else _reduced,
    losses=_losses,
    metrics=_metrics,
    row_weights=_target_counts if loss_reduction == "tokens" else None,
    rows=_rows,
    summarize=_summarize,
  )


def _losses(outputs: Any, batch: Batch) -> tuple[Array, dict[str, Array]]:
  tokens = outputs["tokens"]
  extras = {"tokens": tokens, "correct": outputs["right"] == tokens}
  extras |= {name: outputs[name] for name in GEOMETRY if name in outputs}
  return outputs["sum"] / jnp.maximum(tokens, 1.0), extras


def _metrics(outputs: Any, batch: Batch, valid: Array) -> dict[str, tuple[Array, Array]]:
  loss, extras = _losses(outputs, batch)
  count = jnp.sum(valid, dtype=jnp.int32)

  def total(values: Array) -> Array:
    return jnp.sum(jnp.where(valid, values, jnp.zeros_like(values)))

  tokens = total(outputs["tokens"])
  return {
    "loss": (total(loss), count),
    "nats_per_token": (total(outputs["sum"]), tokens),
    "token_accuracy": (total(outputs["right"]), tokens),
    "exact_match": (jnp.sum(valid & extras["correct"], dtype=jnp.int32), count),
  }


def _rows(outputs: Any, batch: Batch) -> dict[str, Array]:
  return {name: outputs[name] for name in ("sum", "tokens")}


def _summarize(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
  nats = rows["sum"].sum(dtype=np.float64) / rows["tokens"].sum(dtype=np.float64)
  return {"perplexity": math.exp(nats) if nats < 700 else math.inf}


def _target_counts(batch: Batch) -> Array:
  return jnp.sum(batch["targets"][:, 1:], axis=1).astype(jnp.float32)


def _with_geometry(length: int, outputs: Any, batch: Batch) -> dict[str, Array]:
  """Returns what `_reduced` does and the extras of `logit_geometry`; `length` is L of the data set."""
  reduced = _reduced(outputs, batch)
  states, head = (jax.lax.stop_gradient(outputs[name]).astype(jnp.float32) for name in ("states", "head"))
  states = jnp.where((batch["inputs"] >= 0)[..., None], states, 0.0)
  norm = geometry.nuclear_norm_of_product(states, head.T)
  return {**reduced, "nuclear_norm": norm, "projection": geometry.projection_of_product(states, head.T, length)}


def _reduced(outputs: Any, batch: Batch) -> dict[str, Array]:
  """Returns the sum of the target tokens' losses in nats, their number, and how many are right, `[b]` float32 each."""
  if not isinstance(outputs, dict) or not {"states", "head"} <= outputs.keys():
    raise UserError("task.name=language_model needs a model that returns 'states' and 'head': model.name=decoder")
  ids, states = batch["inputs"], outputs["states"]
  (rows, length), width = ids.shape, states.shape[-1]
  # The last state predicts nothing, and the first token is not predicted. Both are cut off, here and below.
  next_ids, counted = ids[:, 1:], batch["targets"][:, 1:length]
  flat = states[:, :-1].reshape(-1, width), outputs["head"], jnp.maximum(next_ids, 0).reshape(-1)
  loss, right = (values.reshape(rows, length - 1) for values in token_losses(*flat))
  counts = counted.astype(jnp.float32)
  return {
    "sum": jnp.sum(loss * counts, axis=1),
    "tokens": jnp.sum(counts, axis=1),
    "right": jnp.sum(right & counted, axis=1).astype(jnp.float32),
  }
