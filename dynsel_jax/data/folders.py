"""Reads a folder of images with one subfolder per class: train/CLASS/*.png and test/CLASS/*.png or val/CLASS/*.png.

Host-side. Decoded images are cached on disk; see `dynsel_jax/cache.py`.
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
_CHANNELS = {"L": 1, "RGB": 3}  # number of channels of a Pillow mode
_TEST = ("test", "val", "validation")

Files = list[tuple[pathlib.Path, int]]  # the path and the label of each file


def listing(data_dir: str | None, test_folder: str = "") -> tuple[dict[str, Files], tuple[str, ...]]:
  """Lists the files of the splits "train" and "test", and the class names; arguments and errors as in `read`."""
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
  """Reads and decodes the images of a folder.

  The classes are the subfolders of train/, sorted by name. Every file below a class that ends in .jpeg, .jpg or .png
  is an image of it; other files are ignored.

  Args:
    data_dir: the folder that contains train/ and test/.
    cache_dir: the folder of the cache for decoded images; see `cache.cached`.
    image_size: height and width to which each image is scaled and cropped at its centre; 0 keeps the images' own size,
      which must be the same for all.
    image_mode: "L" (grey) or "RGB", to which each image is converted; "" keeps the images' own mode, which must be the
      same for all.
    test_folder: name of the folder of test images; "" looks for test/, val/ and validation/ in this order.

  Returns:
    For each of "train" and "test" the images `[N, H, W, C]` uint8 and labels `[N]` int32; and the class names.

  Raises:
    UserError: a folder is missing or empty, a class has test images only, a file cannot be read as an image, or images
      differ in size or mode. The message names the folder or file.
  """
  options.check_positive("dataset.image_size", image_size, zero=True)
  if image_mode:
    options.check_choice("dataset.image_mode", image_mode, _CHANNELS)
  files, class_names = listing(data_dir, test_folder)

  def build() -> cache.Arrays:
    decoded = _decode(files["train"] + files["test"], image_size, image_mode)
    return {"train": decoded[: len(files["train"])], "test": decoded[len(files["train"]) :]}

  key = {
    "files": [(str(path), label, *_stamp(path)) for split in files.values() for path, label in split],
    "training": len(files["train"]),
    "settings": [image_size, image_mode],
    "pillow": PIL.__version__,  # its decoder decides the pixels of a JPEG
  }
  arrays = cache.cached("images", key, build, cache_dir)
  labels = {split: np.array([label for _, label in listed], np.int32) for split, listed in files.items()}
  return {split: (arrays[split], labels[split]) for split in files}, class_names


def _stamp(path: pathlib.Path) -> tuple[int, int]:
  """Returns size and modification time of a file; one of them changes whenever it is written."""
  status = os.stat(path)
  return status.st_size, status.st_mtime_ns


def _folder(data_dir: str | None, *names: str) -> pathlib.Path:
  """Returns the first of the folders `names` that exists in `data_dir`."""
  for name in names:
    folder = pathlib.Path(data_dir or "").absolute() / name
    if data_dir and folder.is_dir():
      return folder
  wanted = " or ".join(f"{name}/CLASS/*.png" for name in names)
  raise UserError(f"dataset.data_dir={data_dir or ''!r} must be a folder that contains {wanted}")


def _classes(folder: pathlib.Path) -> tuple[str, ...]:
  return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def _files(folder: pathlib.Path, class_names: tuple[str, ...]) -> Files:
  """Lists the image files of one split with their labels, class by class."""
  found: Files = []
  labels = {name: label for label, name in enumerate(class_names)}
  for name in _classes(folder):
    if name not in labels:
      raise UserError(f"{folder / name} is a class without training images: there is no folder train/{name}")
    of_class = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in _SUFFIXES)
    of_class = [path for path in of_class if not path.name.startswith(".")]
    if not of_class:
      raise UserError(f"{folder / name} contains no image file ({', '.join(_SUFFIXES)})")
    found += [(path, labels[name]) for path in of_class]
  if not found:
    raise UserError(f"{folder} contains no class: it must contain a folder of images for each class")
  return found


def _decode(files: Files, image_size: int, image_mode: str) -> np.ndarray:
  """Decodes `files` to images `[N, H, W, C]` uint8; all must have the size and the mode of the first."""
  first, _ = files[0]
  example = _image(first, image_size, image_mode)
  if example.mode not in _CHANNELS:
    raise UserError(f"{first} has mode {example.mode}; set dataset.image_mode=RGB to convert all images")
  shape = (example.height, example.width, _CHANNELS[example.mode])
  inputs = np.empty((len(files), *shape), np.uint8)
  for position, (path, _) in enumerate(files):
    image = _image(path, image_size, image_mode)
    if image.mode != example.mode:
      raise UserError(
        f"{path} has mode {image.mode} and {first} {example.mode}; set dataset.image_mode=RGB to convert all images"
      )
    if image.size != example.size:
      raise UserError(
        f"{path} has {image.width}x{image.height} pixels and {first} {example.width}x{example.height}; set"
        " dataset.image_size to bring all images to one size"
      )
    inputs[position] = np.asarray(image).reshape(shape)
  return inputs


def _image(path: pathlib.Path, image_size: int, image_mode: str) -> PIL.Image.Image:
  try:
    with PIL.Image.open(path) as opened:
      image = opened.convert(image_mode) if image_mode else opened.copy()
  except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:  # Pillow raises all of these
    raise UserError(f"{path} cannot be read as an image: {' '.join(str(error).split())}") from None
  return PIL.ImageOps.fit(image, (image_size, image_size)) if image_size else image
