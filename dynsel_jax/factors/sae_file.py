"""Converts a fitted sparse autoencoder to named arrays and to a file that can score other data sets. Host-side.

The file is an `.npz` with the arrays `W_enc`, `b_enc`, `b_dec`, `mean` and `scale`, the code length `k` and the rule
`topk`.
"""

import pathlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dynsel_jax import cache
from dynsel_jax.factors.fit import SAE
from dynsel_jax.factors.sae import TOPK, Normalizer, SAEParams
from dynsel_jax.options import UserError

__all__ = ["SAEFile", "from_arrays", "read_sae", "to_arrays", "write_sae"]

_RANKS = {"W_enc": 2, "b_enc": 1, "b_dec": 1, "mean": 1, "scale": 0}


class SAEFile(NamedTuple):
  """A fitted autoencoder with the settings of its codes."""

  sae: SAE
  k: int  # latents kept per sample
  topk: str  # see `sae.encode`


def to_arrays(sae: SAE) -> dict[str, np.ndarray]:
  """Returns the five arrays of an autoencoder by name."""
  return {name: np.asarray(array) for part in sae for name, array in part._asdict().items()}


def from_arrays(arrays: dict[str, np.ndarray]) -> SAE:
  """Returns the autoencoder with the arrays from `to_arrays`; other entries are ignored."""
  placed = {name: jnp.asarray(arrays[name], jnp.float32) for name in _RANKS}
  return SAE(
    SAEParams(*(placed[name] for name in SAEParams._fields)), Normalizer(*(placed[name] for name in Normalizer._fields))
  )


def write_sae(path: pathlib.Path, sae: SAE, *, k: int, topk: str) -> None:
  """Writes an autoencoder that was fitted with the settings `k` and `topk`."""
  np.savez(path, **to_arrays(sae), k=np.int32(k), topk=np.array(topk))  # type: ignore[arg-type]


def read_sae(path: str) -> SAEFile:
  """Reads a file from `write_sae`.

  Raises:
    UserError: the file does not exist or does not contain a valid autoencoder; the message names the config's field.
  """
  if not pathlib.Path(path).is_file():
    raise UserError(f"factors.sae={path!r} is not a file; `python -m experiments.fit_factors` writes one, sae.npz")
  arrays = cache.read_arrays("factors.sae", path, texts=("topk",))
  if missing := sorted({*_RANKS, "k", "topk"} - set(arrays)):
    raise UserError(f"factors.sae={path} does not contain an autoencoder: it lacks {', '.join(missing)}")
  _check(path, arrays)
  return SAEFile(from_arrays(arrays), int(arrays["k"]), str(arrays["topk"]))


def _check(path: str, arrays: dict[str, np.ndarray]) -> None:
  shapes = {name: arrays[name].shape for name in _RANKS}
  width, num_latents = shapes["mean"], shapes["b_enc"]
  fitting = all(len(shapes[name]) == rank and 0 not in shapes[name] for name, rank in _RANKS.items())
  if not fitting or shapes["W_enc"] != num_latents + width or shapes["b_dec"] != width:
    raise UserError(f"factors.sae={path} contains arrays whose shapes do not match: {shapes}")
  if not all(np.isfinite(arrays[name]).all() for name in _RANKS):
    raise UserError(f"factors.sae={path} contains a value that is not finite")
  whole = arrays["k"].shape == () and arrays["k"].dtype.kind in "iu"
  if str(arrays["topk"]) not in TOPK or not whole or not 1 <= int(arrays["k"]) <= num_latents[0]:
    raise UserError(
      f"factors.sae={path} contains k={arrays['k']}, topk={arrays['topk']}: k must lie in [1, {num_latents[0]}] and"
      f" topk be one of {', '.join(TOPK)}"
    )
