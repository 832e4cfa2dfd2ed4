"""Continues prompts with the model of a run of a language model, by greedy decoding. Host-side.

Each new token takes a forward pass over all tokens, without a cache of keys and values: meant for a few prompts.
"""

import itertools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dynsel_jax import models
from dynsel_jax.data import codecs, instructions
from dynsel_jax.data.codecs import Codec
from dynsel_jax.models.decoder import PAD
from dynsel_jax.options import UserError, check_positive
from dynsel_jax.runs import saved_model, trained

__all__ = ["extended", "generate"]


def generate(workdir: str | os.PathLike[str], prompts: Sequence[str], max_tokens: int = 64) -> list[str]:
  """Returns what the model of a run writes after each prompt.

  A run on conversations is given the prompt as a user's message, in the chat template that it was trained with; a run
  on documents as the beginning of one. A text ends with the token that ends texts, or after `max_tokens`.

  Args:
    workdir: the folder of a run of the task language_model.
    prompts: the prompts.
    max_tokens: the largest number of new tokens.

  Raises:
    UserError: the folder holds no such run, or its weights or its tokenizer are lost; or a prompt is too long.
  """
  check_positive("max_tokens", max_tokens)
  run = trained.load(workdir)
  if run.task != "language_model":
    raise UserError(f"workdir={run.path}: task.name={run.task} writes no texts; experiments.predict uses its model")
  codec, texts = _asked(run, prompts)
  encoded = codec.encode(texts)
  if "chat_template" not in run.config["dataset"]:
    encoded = [[codec.end, *ids] for ids in encoded]
  lengths = np.array([len(ids) for ids in encoded], np.int32)
  rows = np.full((len(encoded), int(lengths.max(initial=1)) + max_tokens), PAD, np.int32)
  for row, ids in zip(rows, encoded, strict=True):
    row[: len(ids)] = ids
  module, variables = _model(run)
  limit = module.sizes.max_length
  if rows.shape[1] > limit:
    raise UserError(
      f"the longest prompt has {lengths.max()} tokens, which with max_tokens={max_tokens} exceeds the model's {limit}"
    )
  program = jax.jit(extended, static_argnums=(0, 5))
  written = np.asarray(program(module, variables, rows, lengths, lengths + max_tokens, codec.end))
  return codec.decode([_new(row[length:], codec.end) for row, length in zip(written, lengths, strict=True)])


def extended(module: Any, variables: Any, rows: Array, lengths: Array, limits: Array, end: int) -> Array:
  """Continues token ids with the token of the largest logit, until each row has ended or is full. Pure.

  Args:
    module: a decoder.
    variables: its variables.
    rows: `[b, L]` int32, -1 behind each prompt.
    lengths: `[b]` int32, the number of tokens of each prompt, at least 1.
    limits: `[b]` int32, the number of tokens at which each row is full, at most L.
    end: the token after which a row has ended.

  Returns:
    `[b, L]` int32, -1 behind the end of each row.
  """
  number = jnp.arange(rows.shape[0])
  valid = jnp.ones(rows.shape[0], bool)

  def unfinished(held: tuple[Array, Array, Array]) -> Array:
    return jnp.any(~held[2])

  def step(held: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    rows, lengths, done = held
    outputs, _ = module.apply(variables, rows, valid, train=False)
    states = outputs["states"][number, lengths - 1]
    logits = jnp.einsum("bd,vd->bv", states, outputs["head"], preferred_element_type=jnp.float32)
    token = jnp.where(done, PAD, jnp.argmax(logits, axis=-1).astype(jnp.int32))
    rows = rows.at[number, jnp.where(done, rows.shape[1], lengths)].set(token, mode="drop")
    lengths = lengths + (~done).astype(jnp.int32)
    return rows, lengths, done | (token == end) | (lengths >= limits)

  done = lengths >= limits
  return jax.lax.while_loop(unfinished, step, (jnp.asarray(rows), jnp.asarray(lengths), done))[0]


def _new(ids: np.ndarray, end: int) -> list[int]:
  """Returns the tokens that a row was continued with, without the end."""
  return [number for number in ids.tolist() if number not in (PAD, end)]


def _asked(run: trained.Trained, prompts: Sequence[str]) -> tuple[Codec, list[str]]:
  """Returns the run's codec, and the prompts as the model was trained to be given them."""
  section = run.config["dataset"]
  if "chat_template" in section:
    codec, parts = instructions.conversation(section["tokenizer"], section["chat_template"])
    talks = [parts([_said("user", prompt), _said("assistant", "x")]) for prompt in prompts]  # x stands for what follows
    asked = [itertools.takewhile(lambda part: not part.counts, talk) for talk in talks]
    return codec, ["".join(part.text for part in talk) for talk in asked]
  if section["tokenizer"]:
    return codecs.load("dataset.tokenizer", section["tokenizer"]), list(prompts)
  if section["vocabulary"]:
    run.tokenizer()  # refuses a file that is lost or damaged
    return codecs.load("workdir", str(run.path / "tokenizer.json")), list(prompts)
  return codecs.by_bytes(), list(prompts)


def _said(role: str, content: str) -> dict[str, str]:
  return {"role": role, "content": content}


def _model(run: trained.Trained) -> tuple[Any, Any]:
  """Returns the run's decoder and its variables, the frozen ones from their file."""
  held, module = saved_model.read_model(str(run.path / "checkpoints")), run.module()
  example = jax.ShapeDtypeStruct((1, 2), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.bool_)
  shapes = jax.eval_shape(lambda ids, valid: module.init(jax.random.key(0), ids, valid, train=False), *example)
  if "frozen" not in shapes:
    return module, {"params": held["params"]}
  frozen = models.pretrained_frozen(module, {"frozen": shapes["frozen"]})
  if saved_model.digest(frozen) != run.made("frozen_fingerprint"):
    weights = run.config["model"]["weights"]
    raise UserError(f"workdir={run.path}: model.weights={weights} are not the weights that it began with")
  return module, {"params": held["params"], **frozen}
