"""From texts to token ids, with a tokenizer of Hugging Face's library `tokenizers`. Host-side."""

import collections
import pathlib
from collections.abc import Sequence

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from dynsel_jax.models.weights import folder
from dynsel_jax.options import UserError

__all__ = ["encode", "load", "pad_id", "padded", "words_of"]

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_VOCABULARY = 8192  # of `words_of`; what the model bert_tiny takes


def load(field: str, value: str) -> tokenizers.Tokenizer:
  """Returns the tokenizer of a `tokenizer.json`, given the file, its folder, or a name that `weights.folder` knows.

  Raises:
    UserError: there is no such file, or it is no tokenizer's.
  """
  path = pathlib.Path(value)
  path = path if path.is_file() else folder(field, value) / "tokenizer.json"
  try:
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
  except Exception as error:  # the library raises nothing narrower
    raise UserError(f"{field}={path} is no tokenizer: {error}") from None
  # Padding is done here, to one length for a whole set; words of a text are never taken for special tokens.
  tokenizer.no_padding()
  tokenizer.encode_special_tokens = True
  return tokenizer


def words_of(texts: Sequence[str]) -> tokenizers.Tokenizer:
  """Returns a tokenizer by words whose vocabulary is the most frequent ones of `texts`, in lower case."""
  normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
  counts = collections.Counter(
    word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
  )
  words = sorted(counts, key=lambda word: (-counts[word], word))
  vocabulary = {word: number for number, word in enumerate([*_SPECIAL, *words][:_VOCABULARY])}
  tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
  tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
  tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
  return tokenizer


def pad_id(tokenizer: tokenizers.Tokenizer) -> int:
  """Returns the id of a padded token.

  Raises:
    UserError: the tokenizer has neither "[PAD]" nor "<pad>".
  """
  for token in ("[PAD]", "<pad>"):
    if (number := tokenizer.token_to_id(token)) is not None:
      return number
  raise UserError("dataset.tokenizer: its vocabulary has neither [PAD] nor <pad>")


def encode(tokenizer: tokenizers.Tokenizer, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], int]:
  """Returns the ids of each text, special tokens among them and at most `max_length`, and how many texts were cut."""
  tokenizer.enable_truncation(max_length)
  encodings = tokenizer.encode_batch(list(texts))
  return [encoding.ids for encoding in encodings], sum(bool(encoding.overflowing) for encoding in encodings)


def padded(ids: Sequence[Sequence[int]], length: int, pad: int) -> np.ndarray:
  """Returns `[N, length]` int32, each row padded on the right with `pad`."""
  rows = np.full((len(ids), length), pad, np.int32)
  for row, tokens in zip(rows, ids, strict=True):
    row[: len(tokens)] = tokens
  return rows
