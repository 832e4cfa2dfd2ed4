"""Loads conversations for supervised fine-tuning, where the loss is on the responses alone. Host-side."""

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dynsel_jax import options
from dynsel_jax.data import chat, codecs, json_rows, summary, token_sets
from dynsel_jax.data.chat import Message, Segment
from dynsel_jax.data.codecs import Codec
from dynsel_jax.data.json_rows import Row
from dynsel_jax.data.source import Source
from dynsel_jax.data.token_sets import Sequences
from dynsel_jax.options import UserError

__all__ = ["conversation", "defaults", "load"]

Parts = Callable[[Sequence[Message]], list[Segment]]


def load(
  name: str,
  *,
  train: str = "",
  test: str = "",
  validation: str = "",
  prompt_column: str = "prompt",
  response_column: str = "response",
  domain_column: str = "source",
  tokenizer: str = "",
  chat_template: str = "",
  max_length: int = 512,
  length_buckets: int = 4,
) -> Source:
  """Loads conversations, each a sample, and says in one line what was read.

  A row has a prompt and a response, or `messages`, a list of `role` and `content`. The loss counts on the turns of the
  assistant with the token that ends each. What exceeds `max_length` tokens is cut off at the end; conversations of
  which no token of a response remains are left out. Both are counted.

  Args:
    name: of the data set, for people.
    train: file of the training rows in JSON Lines, `.jsonl` or `.jsonl.gz`.
    test: file of the test rows.
    validation: file of the validation rows; "" for none.
    prompt_column: name of the prompts' column.
    response_column: name of the responses' column.
    domain_column: name of the column of a row's domain, the label to balance over; no row need have it.
    tokenizer: a file `tokenizer.json`, or its folder. "" reads bytes, with the template "plain".
    chat_template: a file of a template in Jinja; "" is that of the tokenizer; "plain" writes lines of "role: content".
    max_length: the largest L.
    length_buckets: as in `text.load`.

  Raises:
    UserError: a file, one of its rows or an option is wrong.
  """
  token_sets.check_lengths(max_length, length_buckets)
  codec, parts = conversation(tokenizer, chat_template)
  paths = {"train": train, "test": test} | ({"validation": validation} if validation else {})
  rows = {split: json_rows.read(f"dataset.{split}", path) for split, path in paths.items()}
  counts: collections.Counter[str] = collections.Counter()
  splits, texts = {}, []
  for split, of_split in rows.items():
    talks = [chat.messages_of(row, prompt_column, response_column) for row in of_split]
    _check_specials(of_split, talks, codec)
    texts += [message["content"] for messages in talks for message in messages]
    splits[split] = _sequences(of_split, talks, domain_column, codec, parts, max_length, counts)
    if not splits[split].ids:
      raise UserError(f"dataset.max_length={max_length} leaves no response in dataset.{split}; raise it")
  notes = summary.same_files(paths)
  notes += [f"{number:,} {what}" for what, number in counts.items() if number] + token_sets.note_lost(codec, texts)
  return token_sets.source(name, splits, codec, length_buckets, notes, "conversation")


def defaults() -> dict[str, Any]:
  """Returns the options of a config's section `dataset` for conversations."""
  return options.keyword_defaults(load)


def conversation(tokenizer: str, chat_template: str) -> tuple[Codec, Parts]:
  """Returns the codec, and the function that divides a conversation into parts; arguments as in `load`."""
  if not tokenizer and chat_template not in ("", chat.PLAIN):
    raise UserError(f"dataset.chat_template={chat_template!r} needs a dataset.tokenizer with its special tokens")
  codec = codecs.load("dataset.tokenizer", tokenizer) if tokenizer else codecs.by_bytes()
  if not tokenizer or chat_template == chat.PLAIN:
    return codec, chat.plain
  render, end = chat.template(tokenizer, chat_template)
  return codec, lambda messages: list(chat.segments(render, end, messages))


def _check_specials(rows: Sequence[Row], talks: Sequence[Sequence[Message]], codec: Codec) -> None:
  """Raises `UserError` if a message spells a special token, which would end its turn."""
  for row, messages in zip(rows, talks, strict=True):
    for message in messages:
      if found := [token for token in codec.specials if token in message["content"]]:
        raise row.wrong(f"spells the special token {found[0]!r} in its text; remove it there, or leave the row out")


def _sequences(
  rows: Sequence[Row],
  talks: Sequence[Sequence[Message]],
  domain_column: str,
  codec: Codec,
  parts: Parts,
  max_length: int,
  counts: collections.Counter[str],
) -> Sequences:
  """Returns the sequences of a split, and counts in `counts` what was cut or left out."""
  divided = []
  for row, messages in zip(rows, talks, strict=True):
    try:
      divided.append(parts(messages))
    except UserError as error:
      raise row.wrong(f"has a conversation that cannot be read: {error}") from None
  encoded = iter(codec.encode([part.text for of_row in divided for part in of_row]))
  found = Sequences([], [], [], [])
  for of_row, messages, domain in zip(divided, talks, json_rows.domains(rows, domain_column), strict=True):
    ids, targets = _joined(of_row, encoded, codec.end)
    counts[f"longer than max_length={max_length} and cut"] += len(ids) > max_length
    ids, targets = ids[:max_length], targets[:max_length]
    if not targets.any():
      counts["left out, since no token of a response remains"] += 1
      continue
    found.ids.append(ids)
    found.targets.append(targets)
    found.texts.append("\n".join(message["content"] for message in messages))
    found.domains.append(domain)
  return found


def _joined(parts: Sequence[Segment], encoded: Iterator[list[int]], end: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the token ids of a conversation `[n]` int32, and which of them count, `[n]` bool."""
  ids: list[int] = []
  targets: list[bool] = []
  for part in parts:
    of_part = [*next(encoded), *([end] if part.ends else [])]
    ids += of_part
    targets += [part.counts] * len(of_part)
  counted = np.array(targets, bool)
  counted[:1] = False  # nothing stands before it
  return np.array(ids, np.int32), counted
