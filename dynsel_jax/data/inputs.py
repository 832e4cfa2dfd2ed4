"""Reads what a trained model is to be given, from files or arrays, in the form of what it was trained on. Host-side.

`n` is the number of samples. Nothing is normalised here: the model's own normalisation follows, so that inputs which
look normalised already, or are of another scale, are refused.
"""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps

from dynsel_jax import cache
from dynsel_jax.data import image_decoding, image_files, image_ops, text, text_files, tokens
from dynsel_jax.data.summary import shown
from dynsel_jax.options import UserError

__all__ = ["Form", "Inputs", "as_trained", "check_scale", "encoded", "read", "scale_of"]

_ARRAYS = (".npy", ".npz")


class Form(NamedTuple):
  """What the inputs of a trained model look like."""

  shape: tuple[int, ...]  # of one sample
  dtype: str
  dataset: Mapping[str, Any]  # the config's section
  class_names: tuple[str, ...]
  is_image: bool
  tokenizer: str  # as JSON, "" if the inputs are not texts
  scale: tuple[float, ...] = ()  # `scale_of` the training inputs; () if it is not known


class Inputs(NamedTuple):
  """Samples read from files."""

  names: tuple[str, ...]  # of each sample, for people
  inputs: np.ndarray  # [n, ...], of the type and shape that the model was trained on
  known: np.ndarray | None  # [n], the labels (int32) or targets (float32) that the files tell; None if they tell none


def read(path: str, form: Form) -> Inputs:
  """Reads a file, or a folder of images.

  A folder of images whose subfolders are named like the classes tells the labels; so does a file of texts that has the
  column `dataset.label_column`, and an .npz file with an array "labels" or "targets" beside "inputs".

  Args:
    path: for images an image file, a folder of them at any depth, or an array [n, H, W, C] uint8 in a file .npy or
      .npz; for texts a file as `text_files.read` takes it; for other inputs a file .npy or .npz.
    form: of the trained model's inputs.

  Raises:
    UserError: it is none of these, or holds what the model was not trained on.
  """
  if not os.path.exists(path):
    raise UserError(f"inputs={shown(path)} does not exist")
  if form.tokenizer:
    return _texts(path, form)
  if path.lower().endswith(_ARRAYS):
    return _arrays(path, form)
  if form.is_image:
    return _images(path, form)
  raise UserError(f"inputs={shown(path)} must be a file .npy or .npz: the model was trained on arrays of {form.shape}")


def as_trained(inputs: Any, form: Form) -> np.ndarray:
  """Returns inputs as an array `[n, ...]` of the type and shape that the model was trained on.

  Args:
    inputs: `[n, ...]` array of what the data set holds: images of integers from 0 to 255; or a sequence of texts.
    form: of the trained model's inputs.

  Raises:
    UserError: they have another shape or kind of type, or values that the type does not hold.
  """
  if form.tokenizer:
    return encoded(inputs, form)
  array = np.asarray(inputs)
  if array.shape[1:] != form.shape or array.ndim == 0:
    wanted = ", ".join(["n", *map(str, form.shape)])
    raise UserError(f"inputs have shape {array.shape}; the model was trained on [{wanted}]")
  wanted_type = np.dtype(form.dtype)
  kinds = {"u": "iu", "i": "iu", "f": "iuf", "b": "b"}[wanted_type.kind]
  found = f"inputs have type {array.dtype}"
  if array.dtype.kind not in kinds:
    images = " from 0 to 255, which are normalised here: give the images as they are" if form.is_image else ""
    raise UserError(f"{found}; the model was trained on {wanted_type}{images}")
  if wanted_type.kind in "iu" and array.size:
    low, high = np.iinfo(wanted_type).min, np.iinfo(wanted_type).max
    if array.min() < low or array.max() > high:
      raise UserError(f"inputs hold {array.min()} to {array.max()}; the model was trained on {low} to {high}")
  return array.astype(wanted_type, copy=False)


def scale_of(inputs: Any) -> tuple[float, ...]:
  """Returns the least and the greatest of the samples' magnitudes; () for inputs whose numbers have no scale.

  The magnitude of a sample is its largest finite absolute value; samples of nothing but zeros are left out.

  Args:
    inputs: `[n, ...]` array. Images and floating-point numbers have a scale; token ids, and images on disk, have none.
  """
  is_image = inputs.dtype == np.uint8 and len(inputs.shape) == 4
  if not isinstance(inputs, np.ndarray) or not (is_image or inputs.dtype.kind == "f"):
    return ()
  rows = inputs.reshape(len(inputs), math.prod(inputs.shape[1:]))
  finite = np.isfinite(rows) if inputs.dtype.kind == "f" else True
  ends = [reduce(rows, axis=1, where=finite, initial=0) for reduce in (np.min, np.max)]
  magnitudes = np.abs(np.stack(ends).astype(np.float64)).max(axis=0)
  magnitudes = magnitudes[magnitudes > 0]
  return (float(magnitudes.min()), float(magnitudes.max())) if magnitudes.size else ()


def check_scale(inputs: np.ndarray, trained: tuple[float, ...]) -> None:
  """Raises `UserError` if no sample's magnitude is within a factor of 2 of those of the training samples.

  Of n further samples of the training data's distribution, all lie below its N with probability 1 / C(N + n, n), which
  is below 1 / N, and as seldom above; the factor allows for a distribution that has moved.

  Args:
    inputs: `[n, ...]` of the type that the model was trained on.
    trained: `scale_of` the training inputs.
  """
  here = scale_of(inputs)
  if trained and here and (here[1] < trained[0] / 2 or here[0] > trained[1] * 2):
    low, high, least, most = (f"{value:.4g}" for value in (*here, *trained))
    raise UserError(
      f"inputs are of another scale: the largest number of each sample has a magnitude of {low} to {high}, of each"
      f" training sample {least} to {most}; give them as the data set holds them"
    )


def encoded(texts: Sequence[Any], form: Form) -> np.ndarray:
  """Returns the token ids of texts, or of pairs of them, `[n, L]` int32, by the tokenizer of the run."""
  paired = bool(form.dataset.get("text_pair_column"))
  wrong = next((text for text in texts if not (_is_pair(text) if paired else isinstance(text, str))), None)
  if isinstance(texts, str) or wrong is not None:
    what = "pairs of texts, (first, second)" if paired else "texts"
    raise UserError(f"inputs must be a list of {what}, not {type(texts if wrong is None else wrong).__name__}")
  texts = list(map(tuple, texts)) if paired else texts
  tokenizer = tokens.from_json(form.tokenizer)
  length = form.shape[0]
  ids, _ = tokens.encode(tokenizer, texts, length)
  return tokens.padded(ids, length, tokens.pad_id(tokenizer))


def _is_pair(value: Any) -> bool:
  return isinstance(value, tuple | list) and list(map(type, value)) == [str, str]


def _arrays(path: str, form: Form) -> Inputs:
  where = f"inputs={shown(path)}"
  held = cache.read_arrays("inputs", path)
  if path.lower().endswith(".npy"):
    held = {"inputs": held[""]}
  if "inputs" not in held:
    raise UserError(f"{where} has the arrays {', '.join(sorted(held)) or 'none'}; it must have 'inputs'")
  inputs = as_trained(held["inputs"], form)
  known = held.get("labels", held.get("targets"))
  if known is not None and known.shape != (len(inputs),):
    raise UserError(f"{where} has {len(inputs)} inputs, and labels or targets of shape {known.shape}")
  if "labels" in held and known is not None:
    if known.dtype.kind not in "iu" or (known.size and not 0 <= known.min() <= known.max() < len(form.class_names)):
      raise UserError(f"{where}: labels must be integers from 0 to {len(form.class_names) - 1}")
    known = known.astype(np.int32)
  return Inputs(tuple(map(str, range(len(inputs)))), inputs, known)


def _texts(path: str, form: Form) -> Inputs:
  target_column, pair_column = (form.dataset.get(name, "") for name in ("target_column", "text_pair_column"))
  label_column = target_column or form.dataset["label_column"]
  labelled = label_column.strip() in text_files.column_names("inputs", path)
  columns = form.dataset["text_column"], label_column if labelled else "", pair_column
  rows = text_files.read("inputs", path, *columns, numbers=bool(target_column))
  known = None
  if labelled:
    where = f"inputs={shown(path)}"
    known = np.array(rows.labels, np.float32) if target_column else text.numbers(where, rows, form.class_names)
  texts = list(zip(rows.texts, rows.seconds, strict=True)) if pair_column else rows.texts
  return Inputs(tuple(f"line {line}" for line in rows.lines), encoded(texts, form), known)


def _images(path: str, form: Form) -> Inputs:
  if os.path.isfile(path):
    return Inputs((shown(path),), _image(path, form)[None], None)
  folders = image_files.subfolders(path).paths
  number = {name: label for label, name in enumerate(form.class_names)}
  names = [os.fsencode(os.path.basename(folder)).decode("utf-8", "backslashreplace") for folder in folders]
  labelled = any(name in number for name in names)
  if labelled and (unknown := [name for name in names if name not in number]):
    raise UserError(f"inputs={shown(path)} holds the folder {shown(unknown[0])}, which is no class of the run")
  if labelled:
    files = [
      (file, number[name])
      for folder, name in zip(folders, names, strict=True)
      for file in image_files.images_below(folder).paths
    ]
  else:
    files = [(file, -1) for file in image_files.images_below(path).paths]
  if not files:
    raise UserError(f"inputs={shown(path)} contains no image file")
  images = np.stack([_image(file, form) for file, _ in files])
  known = np.array([label for _, label in files], np.int32) if labelled else None
  return Inputs(tuple(shown(str(pathlib.Path(file).relative_to(path))) for file, _ in files), images, known)


def _image(path: str, form: Form) -> np.ndarray:
  """Decodes an image as the data set's own reader does, to `[H, W, C]` uint8."""
  height, width, channels = form.shape
  settings = form.dataset
  mode = image_ops.MODES.get(channels, "")
  convert = mode if settings.get("image_mode") or settings.get("stream") else ""
  try:
    image = image_decoding.decode(image_files.content(path), convert, os.path.splitext(path)[1]).image
  except image_decoding.DAMAGED as error:
    raise UserError(f"{shown(path)} cannot be read as an image: {image_files.words_of(error)}") from None
  if settings.get("stream"):
    image = image_ops.centre(image, image_ops.View(settings["image_size"], settings["resize"], mode))
  elif settings.get("image_size"):
    image = PIL.ImageOps.fit(image, (width, height))
  if image.mode != mode or image.size != (width, height):
    raise UserError(
      f"{shown(path)} has {image.width}x{image.height} pixels and mode {image.mode}; the model was trained on"
      f" {width}x{height} and {mode or f'{channels} channels'}"
    )
  return np.asarray(image).reshape(form.shape)
