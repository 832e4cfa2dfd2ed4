"""Turns texts into token ids with a tokenizer of Hugging Face's library `tokenizers`. Host-side."""

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dynsel_jax import options
from dynsel_jax.models.bert import SEGMENT
from dynsel_jax.models.weights import folder
from dynsel_jax.options import UserError, optional_library

__all__ = ["Tokenizer", "encode", "from_json", "load", "pad_id", "padded", "tokenizers", "words_of"]

Tokenizer = Any  # tokenizers.Tokenizer; the library is imported on use

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_VOCABULARY = 8192  # largest vocabulary of `words_of`, the one that the model bert_tiny takes


def tokenizers() -> Any:
  """Imports the library `tokenizers` with the modules that this package uses; `UserError` if it is not installed."""
  for module in ("decoders", "models", "normalizers", "pre_tokenizers", "processors", "trainers"):
    optional_library(f"tokenizers.{module}", "text")
  return optional_library("tokenizers", "text")


def load(field: str, value: str) -> Tokenizer:
  """Loads a `tokenizer.json`.

  Args:
    field: the config's field that names it, for the messages.
    value: the file, its folder, or a name that `models.weights.folder` knows.

  Raises:
    UserError: the file does not exist or is not a tokenizer.
  """
  value = options.expand_home(field, value)
  path = pathlib.Path(value)
  path = path if path.is_file() else folder(field, value) / "tokenizer.json"
  library = tokenizers()
  try:
    tokenizer = library.Tokenizer.from_file(str(path))
  except Exception as error:  # the library raises nothing narrower
    raise UserError(f"{field}={path} is not a tokenizer: {' '.join(str(error).split())}") from None
  # `padded` pads all rows of a set to one length. A text that spells a special token does not get it.
  tokenizer.no_padding()
  tokenizer.encode_special_tokens = True
  return tokenizer


def from_json(text: str) -> Tokenizer:
  """Restores a tokenizer from its `to_str`."""
  return tokenizers().Tokenizer.from_str(text)


def words_of(texts: Sequence[str]) -> Tokenizer:
  """Builds a tokenizer of words, in lower case; its vocabulary is the most frequent words of `texts`."""
  library = tokenizers()
  normalizer, splitter = library.normalizers.BertNormalizer(), library.pre_tokenizers.BertPreTokenizer()
  counts = collections.Counter(
    word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
  )
  words = sorted(counts, key=lambda word: (-counts[word], word))
  vocabulary = {word: number for number, word in enumerate([*_SPECIAL, *words][:_VOCABULARY])}
  tokenizer = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="[UNK]"))
  tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
  tokenizer.post_processor = library.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
  return tokenizer


def pad_id(tokenizer: Tokenizer) -> int:
  """Returns the id of the padding token.

  Raises:
    UserError: the tokenizer has neither "[PAD]" nor "<pad>".
  """
  for token in ("[PAD]", "<pad>"):
    if (number := tokenizer.token_to_id(token)) is not None:
      return number
  raise UserError("dataset.tokenizer has neither [PAD] nor <pad> in its vocabulary, so that texts cannot be padded")


def encode(
  tokenizer: Tokenizer, texts: Sequence[str] | Sequence[tuple[str, str]], max_length: int
) -> tuple[list[list[int]], int]:
  """Returns the ids of each text, at most `max_length` with its special tokens, and the number of truncated texts.

  A pair of texts is one sequence; tokens of its second segment have `models.bert.SEGMENT` added to their ids.
  """
  tokenizer.enable_truncation(max_length)
  encodings = tokenizer.encode_batch(list(texts))
  ids = [encoding.ids for encoding in encodings]
  if not all(isinstance(text, str) for text in texts):
    segments = [encoding.type_ids for encoding in encodings]
    ids = [[i + SEGMENT * s for i, s in zip(*row, strict=True)] for row in zip(ids, segments, strict=True)]
  return ids, sum(bool(encoding.overflowing) for encoding in encodings)


def padded(ids: Sequence[Sequence[int] | np.ndarray], length: int, pad: int) -> np.ndarray:
  """Pads each row on the right with `pad`: `[N, length]` int32."""
  rows = np.full((len(ids), length), pad, np.int32)
  for row, tokens in zip(rows, ids, strict=True):
    row[: len(tokens)] = tokens
  return rows
