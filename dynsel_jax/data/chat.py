"""Conversations as text with a model's chat template, and which parts of it the model has to write. Host-side.

Templates are programs of Jinja from a model's folder; they run in its sandbox. Rendered as the library `transformers`
renders them.
"""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dynsel_jax.data import codecs, json_rows
from dynsel_jax.data.json_rows import Row, short
from dynsel_jax.models.weights import folder
from dynsel_jax.options import UserError, expand_home, optional_library

__all__ = ["PLAIN", "Message", "Render", "Segment", "messages_of", "plain", "segments", "template"]

PLAIN = "plain"  # the name of the template that needs no library

Message = dict[str, str]  # "role" and "content"
Render = Callable[[Sequence[Message], bool], str]  # (messages, whether the next is the assistant's) -> text


class Segment(NamedTuple):
  """A part of a conversation."""

  text: str
  counts: bool  # whether the model has to write it
  ends: bool = False  # whether the token that ends a text comes after it


def template(tokenizer: str, chat_template: str) -> tuple[Render, str]:
  """Reads a chat template.

  Args:
    tokenizer: the config's `dataset.tokenizer`, whose folder has the template and the special tokens.
    chat_template: a file of a template; "" takes the tokenizer's own.

  Returns:
    The template as a function, and the text of the token that ends a turn.

  Raises:
    UserError: there is no template, or it is no program of Jinja.
  """
  settings = codecs.settings_of("dataset.tokenizer", tokenizer)
  where, source = _source(tokenizer, chat_template, settings)
  library = optional_library("jinja2", "text")
  sandbox = optional_library("jinja2.sandbox", "text").ImmutableSandboxedEnvironment
  environment = sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
  environment.filters["tojson"] = lambda value, **how: json.dumps(value, ensure_ascii=False, **how)

  def refuse(message: str) -> None:
    raise library.TemplateError(message)

  environment.globals["raise_exception"] = refuse
  try:
    compiled = environment.from_string(source)
  except library.TemplateError as error:
    raise UserError(f"{where} is not a chat template: {error}") from None
  names = ("bos_token", "eos_token", "pad_token", "unk_token")
  special = {name: codecs.token_of(settings, name) for name in names}

  def render(messages: Sequence[Message], prompted: bool) -> str:
    try:
      return compiled.render(messages=messages, add_generation_prompt=prompted, **special)
    except (library.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
      raise UserError(f"the chat template of {where} refuses it: {error}") from None

  return render, special["eos_token"]


def _source(tokenizer: str, chat_template: str, settings: Mapping[str, Any]) -> tuple[str, str]:
  """Returns where a template comes from, for messages, and the template."""
  if chat_template:
    path, where = pathlib.Path(expand_home("dataset.chat_template", chat_template)), "dataset.chat_template"
  else:
    held = settings.get("chat_template")
    if isinstance(held, list):  # several by name
      held = next((one.get("template") for one in held if isinstance(one, dict) and one.get("name") == "default"), None)
    if isinstance(held, str) and held:
      return f"dataset.tokenizer={tokenizer}", held
    beside = pathlib.Path(expand_home("dataset.tokenizer", tokenizer))
    beside = beside.parent if beside.is_file() else folder("dataset.tokenizer", tokenizer)
    path, where = beside / "chat_template.jinja", "dataset.tokenizer"
    if not path.is_file():
      raise UserError(
        f"dataset.tokenizer={tokenizer} has no chat template; name a file in dataset.chat_template, or {PLAIN!r}"
      )
  try:
    return f"{where}={path}", path.read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"{where}={path} cannot be read: {error}") from None


def messages_of(row: Row, prompt_column: str, response_column: str) -> list[Message]:
  """Returns the conversation of a row: its `messages`, or a prompt and a response.

  Raises:
    UserError: the row has neither, or no turn of the assistant, or a message is not a role and a content.
  """
  if "messages" not in row.held:
    roles = (("user", prompt_column), ("assistant", response_column))
    return [{"role": role, "content": json_rows.string(row, column)} for role, column in roles]
  held = row.held["messages"]
  if not isinstance(held, list) or not held:
    raise row.wrong(f"has the messages {short(repr(held))}; they must be a list of roles and contents")
  for number, message in enumerate(held, 1):
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
      raise row.wrong(f"has message {number}, {short(repr(message))}, without a role and a content")
    if not all(isinstance(message[name], str) for name in ("role", "content")):
      raise row.wrong(f"has message {number} whose role or content is no string: {short(repr(message))}")
    for name in ("role", "content"):
      json_rows.check_text(row, f"the {name} of message {number}", message[name])
  written = [message["content"] for message in held if message["role"] == "assistant"]
  if not any(text.strip() for text in written):
    raise row.wrong("has no response: no message of the role 'assistant' with a content")
  return held


def plain(messages: Sequence[Message]) -> list[Segment]:
  """Returns a conversation as lines of "role: content", where each turn of the assistant ends a text."""
  found = []
  for message in messages:
    if message["role"] == "assistant":
      found += [Segment("assistant: ", False), Segment(message["content"], True, True)]
    else:
      found.append(Segment(f"{message['role']}: {message['content']}\n", False))
  return found


def segments(render: Render, end: str, messages: Sequence[Message]) -> Iterator[Segment]:
  """Yields a conversation in the parts between which `counts` changes.

  The model writes each turn of the assistant with the token that ends it, and nothing of the frame around.

  Args:
    render: from `template`.
    end: the text of the token that ends a turn.
    messages: the conversation.

  Raises:
    UserError: the template does not write a turn after what it writes before it, so that the turn cannot be found.
  """
  done = ""
  for number, message in enumerate(messages):
    if message["role"] != "assistant":
      continue
    before, after = render(messages[:number], True), render(messages[: number + 1], False)
    if not before.startswith(done) or not after.startswith(before):
      raise UserError(f"the chat template changes what stands before message {number + 1}, so that it cannot be found")
    written = after[len(before) :]
    place = written.rfind(end) if end else -1
    stop = place + len(end) if place >= 0 else len(written)
    yield Segment(before[len(done) :], False)
    yield Segment(written[:stop], True, place < 0)
    done = before + written[:stop]
