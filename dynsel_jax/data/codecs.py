"""Codecs of language models: texts to token ids and back, as bytes or by a tokenizer of the library `tokenizers`.

Host-side.
"""

import collections
import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from dynsel_jax.data import tokens
from dynsel_jax.models.weights import folder
from dynsel_jax.options import UserError, check_at_least, expand_home

__all__ = ["BYTES", "Codec", "by_bytes", "learnt", "load", "lost_characters", "settings_of", "token_of"]

BYTES = 256
_END = "<|endoftext|>"  # of a learnt vocabulary
_ENDS = (_END, "</s>", "<|end_of_text|>", "<eos>")  # of tokenizers that do not say which token ends a text


class Codec(NamedTuple):
  """Turns texts into token ids and back."""

  encode: Callable[[Sequence[str]], list[list[int]]]  # of texts, without a token that begins or ends them
  decode: Callable[[Sequence[Sequence[int]]], list[str]]
  vocabulary: int  # ids lie in [0, vocabulary)
  end: int  # the id of the token that ends a text
  specials: tuple[str, ...] = ()  # what the special tokens look like, which no text of the data may spell
  tokenizer: str = ""  # as JSON of the library; "" for bytes


def by_bytes() -> Codec:
  """Returns the codec that reads a text as its bytes in UTF-8; the id 256 ends a text. Needs no library."""

  def decode(many: Sequence[Sequence[int]]) -> list[str]:
    return [bytes(number for number in ids if number < BYTES).decode("utf-8", "replace") for ids in many]

  return Codec(lambda texts: [list(text.encode()) for text in texts], decode, BYTES + 1, BYTES)


def learnt(texts: Iterable[str], vocabulary: int) -> Codec:
  """Learns byte pairs (arXiv 1508.07909) on `texts`: a vocabulary of bytes, a token that ends a text, and merges.

  Args:
    texts: the training texts.
    vocabulary: number of tokens, at least those of 256 bytes and the end.

  Raises:
    UserError: the vocabulary is smaller.
  """
  check_at_least("dataset.vocabulary", vocabulary, BYTES + 1)
  library = tokens.tokenizers()
  made = library.Tokenizer(library.models.BPE())
  made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = library.decoders.ByteLevel()
  alphabet = library.pre_tokenizers.ByteLevel.alphabet()
  trainer = library.trainers.BpeTrainer(
    vocab_size=vocabulary, special_tokens=[_END], initial_alphabet=sorted(alphabet), show_progress=False
  )
  made.train_from_iterator(texts, trainer)
  return _codec(made, _END, "dataset.vocabulary")


def load(field: str, value: str) -> Codec:
  """Loads a `tokenizer.json`, with the token that ends a text from the `tokenizer_config.json` beside it.

  Args:
    field: the config's field that names it, for the messages.
    value: the file, or its folder.

  Raises:
    UserError: the file does not exist or is not a tokenizer, or no token is known to end a text.
  """
  tokenizer = tokens.load(field, value)
  return _codec(tokenizer, token_of(settings_of(field, value), "eos_token"), f"{field}={value}")


def settings_of(field: str, value: str) -> dict[str, Any]:
  """Returns the contents of the `tokenizer_config.json` beside a tokenizer; {} if there is none.

  Raises:
    UserError: it is not JSON of an object.
  """
  path = pathlib.Path(expand_home(field, value))
  path = (path.parent if path.is_file() else folder(field, value)) / "tokenizer_config.json"
  if not path.is_file():
    return {}
  try:
    held = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f"{field}={path} cannot be read: {' '.join(str(error).split())}") from None
  if not isinstance(held, dict):
    raise UserError(f"{field}={path} is not a JSON object")
  return held


def token_of(settings: dict[str, Any], name: str) -> str:
  """Returns the text of a special token that a `tokenizer_config.json` names, as a string or an object; "" if none."""
  held = settings.get(name)
  held = held.get("content") if isinstance(held, dict) else held
  return held if isinstance(held, str) else ""


def lost_characters(codec: Codec, texts: Sequence[str]) -> collections.Counter[str]:
  """Counts the characters of `texts` that encoding loses, since the vocabulary lacks one of their bytes."""
  counts: collections.Counter[str] = collections.Counter()
  for text in texts:
    counts.update(text)
  found = sorted(counts)
  # Between letters, since some tokenizers drop spaces at either end.
  survives = codec.decode(codec.encode([f"a{character}a" for character in found]))
  lost = [c for c, decoded in zip(found, survives, strict=True) if decoded.strip() == "aa" or "\ufffd" in decoded]
  return collections.Counter({c: counts[c] for c in lost if not c.isspace()})


def _codec(tokenizer: tokens.Tokenizer, end: str, where: str) -> Codec:
  tokenizer.no_padding()
  tokenizer.no_truncation()
  tokenizer.encode_special_tokens = False
  known = [token for token in ((end,) if end else _ENDS) if tokenizer.token_to_id(token) is not None]
  if not known:
    missing = f"the vocabulary has no {end!r}" if end else f"none of {', '.join(_ENDS)} is in the vocabulary"
    raise UserError(f"{where}: no token is known to end a text: {missing}; set eos_token in its tokenizer_config.json")
  special = tuple(str(token.content) for token in tokenizer.get_added_tokens_decoder().values() if token.special)

  def encode(texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

  def decode(many: Sequence[Sequence[int]]) -> list[str]:
    return tokenizer.decode_batch([list(ids) for ids in many], skip_special_tokens=False)

  vocabulary = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
  return Codec(encode, decode, vocabulary, tokenizer.token_to_id(known[0]), special, tokenizer.to_str())
