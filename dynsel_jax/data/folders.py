"""Reads images that lie in a folder for each class: train/CLASS/*.png, and test/CLASS/*.png or val/CLASS/*.png.

Host-side. What has been decoded is kept on disk; see `dynsel_jax/cache.py`.
`N` is the number of samples, `H`, `W`, `C` are height, width and channels of an image.
"""

import os
import pathlib

import numpy as np
import PIL.Image
import PIL.ImageOps

from dynsel_jax import cache, options
from dynsel_jax.options import UserError

__all__ = ["Files", "listing", "read"]

_SUFFIXES = (".jpeg", ".jpg", ".png")
_CHANNELS = {"L": 1, "RGB": 3}  # by Pillow's name of a mode
_TEST = ("test", "val", "validation")

Files = list[tuple[pathlib.Path, int]]  # each with its label


def listing(data_dir: str | None, test_folder: str = "") -> tuple[dict[str, Files], tuple[str, ...]]:
  """Returns the files of the training and the test split, and the class names; arguments and errors as of `read`."""
  train = _folder(data_dir, "train")
  test = _folder(data_dir, *([test_folder] if test_folder else _TEST))
  class_names = _classes(train)
  return {"train": _files(train, class_names), "test": _files(test, class_names)}, class_names


def read(
  data_dir: str | None,
  cache_dir: str = "",
  *,
  image_size: int = 0,
  image_mode: str = "",
  test_folder: str = "",
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
  """Returns the training and the test split, uint8 images `[N, H, W, C]` and int32 labels `[N]`, and the class names.

  The classes are the folders of train/ in the order of their names. Images are the files that end in .jpeg, .jpg or
  .png anywhere below a class; other files are passed over.

  Args:
    data_dir: the folder that holds train/ and test/.
    cache_dir: where decoded images are kept; see `cache.cached`.
    image_size: scales each image and cuts its centre out, to this height and width; 0 takes them as they are.
    image_mode: "L" (grey) or "RGB", to which each image is converted; empty takes them as they are, all of one mode.
    test_folder: of the test images; empty is test/, or else val/ or validation/.

  Raises:
    UserError: a folder is absent or empty, a class is in the test images alone, a file is no image, or images differ
      in size or mode. The message names the folder or file.
  """
  options.check_positive("dataset.image_size", image_size, zero=True)
  if image_mode:
    options.check_choice("dataset.image_mode", image_mode, _CHANNELS)
  files, class_names = listing(data_dir, test_folder)

  def build() -> cache.Arrays:
    decoded = _decode(files["train"] + files["test"], image_size, image_mode)
    return {"train": decoded[: len(files["train"])], "test": decoded[len(files["train"]) :]}

  key = {
    "files": [(str(path), label, *_written(path)) for split in files.values() for path, label in split],
    "training": len(files["train"]),
    "settings": [image_size, image_mode],
    "pillow": PIL.__version__,  # which decides the pixels of a JPEG
  }
  arrays = cache.cached("images", key, build, cache_dir)
  labels = {split: np.array([label for _, label in listed], np.int32) for split, listed in files.items()}
  return {split: (arrays[split], labels[split]) for split in files}, class_names


def _written(path: pathlib.Path) -> tuple[int, int]:
  """Returns what changes when a file is written anew."""
  status = os.stat(path)
  return status.st_size, status.st_mtime_ns


def _folder(data_dir: str | None, *names: str) -> pathlib.Path:
  """Returns the first of the folders `names` that is in `data_dir`."""
  for name in names:
    folder = pathlib.Path(data_dir or "").absolute() / name
    if data_dir and folder.is_dir():
      return folder
  wanted = " or ".join(f"{name}/CLASS/*.png" for name in names)
  raise UserError(f"dataset.data_dir={data_dir or ''!r} must be a folder that holds {wanted}")


def _classes(folder: pathlib.Path) -> tuple[str, ...]:
  return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def _files(folder: pathlib.Path, class_names: tuple[str, ...]) -> Files:
  """Returns the image files of one split with their labels, class by class."""
  found: Files = []
  labels = {name: label for label, name in enumerate(class_names)}
  for name in _classes(folder):
    if name not in labels:
      raise UserError(f"{folder / name} is a class that has no training images: train/{name} is not there")
    of_class = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in _SUFFIXES)
    of_class = [path for path in of_class if not path.name.startswith(".")]
    if not of_class:
      raise UserError(f"{folder / name} holds no image ({', '.join(_SUFFIXES)})")
    found += [(path, labels[name]) for path in of_class]
  if not found:
    raise UserError(f"{folder} holds no class: no folder with images")
  return found


def _decode(files: Files, image_size: int, image_mode: str) -> np.ndarray:
  """Returns the images of `files`, `[N, H, W, C]` uint8; all must be as the first is."""
  first, _ = files[0]
  example = _image(first, image_size, image_mode)
  if example.mode not in _CHANNELS:
    raise UserError(f"{first} has the mode {example.mode}: dataset.image_mode=RGB converts it")
  shape = (example.height, example.width, _CHANNELS[example.mode])
  inputs = np.empty((len(files), *shape), np.uint8)
  for position, (path, _) in enumerate(files):
    image = _image(path, image_size, image_mode)
    if image.mode != example.mode:
      raise UserError(
        f"{path} has the mode {image.mode}, {first} {example.mode}: dataset.image_mode=RGB converts them all"
      )
    if image.size != example.size:
      raise UserError(
        f"{path} is {image.width}x{image.height}, {first} {example.width}x{example.height} pixels:"
        " dataset.image_size brings all to one size"
      )
    inputs[position] = np.asarray(image).reshape(shape)
  return inputs


def _image(path: pathlib.Path, image_size: int, image_mode: str) -> PIL.Image.Image:
  try:
    with PIL.Image.open(path) as opened:
      image = opened.convert(image_mode) if image_mode else opened.copy()
  except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:  # Pillow's for a damaged file
    raise UserError(f"{path} is no image that can be read: {' '.join(str(error).split())}") from None
  return PIL.ImageOps.fit(image, (image_size, image_size)) if image_size else image
