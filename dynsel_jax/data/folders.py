"""Reads a folder of images with one subfolder per class: train/CLASS/*.png and test/CLASS/*.png or val/CLASS/*.png.

Host-side. Decoded images are cached on disk; see `dynsel_jax/cache.py`.
`N` is the number of samples, `H`, `W`, `C` are height, width and channels of an image.
"""

import collections
import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps

from dynsel_jax import cache, options
from dynsel_jax.data import image_decoding, image_files, summary
from dynsel_jax.data.summary import shown
from dynsel_jax.options import UserError

__all__ = [
  "Encoded",
  "Files",
  "Listing",
  "Read",
  "check_options",
  "decode",
  "describe",
  "listing",
  "read",
  "set_name",
]

_CHANNELS = {"L": 1, "RGB": 3}  # number of channels of a Pillow mode
_TEST = ("test", "val", "validation")

Files = list[tuple[str, int]]  # the path and the label of each file


Read = Callable[[], bytes]


class Encoded(NamedTuple):
  """An image file, or what stands for one in a data set."""

  name: str  # for people
  read: Read  # returns its content
  suffix: str  # of its name, with the dot, "" if it has none


class Listing(NamedTuple):
  """The files of an image folder; nothing of their content."""

  root: pathlib.Path
  splits: dict[str, Files]  # of "train" and "test"
  class_names: tuple[str, ...]
  passed_over: collections.Counter[str]  # number of files that are no images, by reason

  def labels(self, split: str) -> np.ndarray:
    """Returns the labels of a split, `[N]` int32."""
    return np.array([label for _, label in self.splits[split]], np.int32)


def listing(data_dir: str | None, test_folder: str = "") -> Listing:
  """Lists the files of the splits "train" and "test"; arguments and errors as in `read`."""
  root = _root(data_dir or "")
  train = _folder(root, "train")
  test = _folder(root, *([test_folder] if test_folder else _TEST))
  found = image_files.subfolders(train)
  folders = {os.path.basename(path): label for label, path in enumerate(found.paths)}
  passed_over = found.passed_over
  splits = {"train": _files(found.paths, folders, passed_over)}
  if not folders:
    raise UserError(f"{shown(train)} contains no class: it must contain a folder of images for each class")
  if len(folders) == 1:
    raise UserError(_one_class(found.paths[0]))
  class_names = tuple(os.fsencode(name).decode("utf-8", "backslashreplace") for name in folders)
  if len(set(class_names)) < len(folders):  # a name with a byte that is not UTF-8, and one with its escape
    raise UserError(f"{shown(train)} holds folders of one name: {summary.named(summary.alike(class_names))}")
  others = image_files.subfolders(test)
  passed_over.update(others.passed_over)
  splits["test"] = _files(others.paths, folders, passed_over)
  if not splits["test"]:
    raise UserError(f"{shown(test)} contains no class: it must contain a folder of images for each class")
  return Listing(root, splits, class_names, passed_over)


def read(
  data_dir: str | None,
  cache_dir: str = "",
  *,
  image_size: int = 0,
  image_mode: str = "",
  test_folder: str = "",
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
  """Reads and decodes the images of a folder, and says in one line what it read and what it passed over.

  The classes are the subfolders of train/, sorted by name; there must be at least two. Every file below a class, also
  through links, is an image of it if Pillow can decode its format and its name has the suffix of one. Hidden files and
  all others are passed over. `image_decoding` describes how a file is decoded: upright, the first of several frames,
  16 bits scaled to 8, transparency on white.

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
    UserError: a folder is missing, empty or cannot be listed, there is one class alone, a class has test images only, a
      file cannot be read as an image, or images differ in size or mode. The message names the folder or file.
  """
  check_options(image_size, image_mode)
  listed = listing(data_dir, test_folder)
  paths = {split: [path for path, _ in files] for split, files in listed.splits.items()}

  def build() -> cache.Arrays:
    encoded = [
      Encoded(shown(path), functools.partial(image_files.content, path), os.path.splitext(path)[1])
      for path in paths["train"] + paths["test"]
    ]
    inputs, changes = decode(encoded, image_size, image_mode)
    numbers = np.array([changes[name] for name in image_decoding.CHANGES])
    return {"train": inputs[: len(paths["train"])], "test": inputs[len(paths["train"]) :], "changes": numbers}

  key = {
    "files": [(_digest(path), os.path.splitext(path)[1].lower()) for split in paths.values() for path in split],
    "training": len(paths["train"]),
    "settings": [image_size, image_mode],
    "decoder": [PIL.__version__, image_decoding.RULES],  # Pillow decides the pixels of a JPEG
  }
  arrays = cache.cached("images", key, build, cache_dir)
  changes = dict(zip(image_decoding.CHANGES, arrays["changes"].tolist(), strict=True))
  describe(listed, changes)
  return {split: (arrays[split], listed.labels(split)) for split in paths}, listed.class_names


def describe(listed: Listing, changes: dict[str, int]) -> None:
  """Says what was read; `changes` are the numbers of images that `image_decoding.decode` had to change."""
  labels = {split: listed.labels(split) for split in listed.splits}
  parts = summary.splits("image", labels, listed.class_names)
  if alike := summary.alike(listed.class_names):
    parts.append(f"classes that look alike: {summary.named(alike)}")
  parts += [f"{number:,} {image_decoding.CHANGES[name]}" for name, number in changes.items() if number]
  if listed.passed_over:
    parts.append(f"passed over: {summary.counted(listed.passed_over)}")
  if same := _same_folder(listed):
    parts.append(same)
  warn = bool(alike or same or changes.get("frames") or set(listed.passed_over) - set(image_files.HARMLESS))
  summary.say(f"{set_name(listed.root)}: {'; '.join(parts)}", warn=warn)


def _same_folder(listed: Listing) -> str:
  """Says which test images are training images, as a linked folder makes them; "" if none are."""
  train, test = (sorted({os.path.dirname(path) for path, _ in listed.splits[split]}) for split in ("train", "test"))
  known = set(map(image_files.identity, train))
  again = [os.path.relpath(path, listed.root) for path in test if image_files.identity(path) in known]
  return f"also for training: the images of {summary.named(again)}" if again else ""


def set_name(root: pathlib.Path) -> str:
  """Returns the name of the data set in a folder."""
  return shown((root.resolve() if ".." in root.parts else root).name)


def _root(data_dir: str) -> pathlib.Path:
  path = options.expand_home("dataset.data_dir", os.fspath(data_dir))
  if not path or not os.path.isdir(path):
    is_file = "; it is a file" if path and os.path.exists(path) else ""
    raise UserError(f"dataset.data_dir={path!r} must be a folder that contains train/CLASS/*.png{is_file}")
  return pathlib.Path(path).absolute()


def _folder(root: pathlib.Path, *names: str) -> str:
  """Returns the first of the folders `names` that exists in `root`."""
  for name in names:
    if os.path.isdir(root / name):
      return str(root / name)
  wanted = " or ".join(f"{name}/CLASS/*.png" for name in names)
  inside = [path for path in image_files.subfolders(str(root)).paths if os.path.isdir(os.path.join(path, names[0]))]
  hint = f"; {shown(inside[0])} contains {names[0]}/: name that folder" if inside else ""
  raise UserError(f"dataset.data_dir={str(root)!r} must be a folder that contains {wanted}{hint}")


def _files(folders: Sequence[str], labels: dict[str, int], passed_over: collections.Counter[str]) -> Files:
  """Lists the images of one split with their labels, class by class; adds up in `passed_over` what is left out."""
  files: Files = []
  identities = {path: image_files.identity(path) for path in folders}
  closed = {*identities.values(), *_above(folders)}
  same: dict[image_files.Identity, str] = {}
  for path in folders:
    name = os.path.basename(path)
    if name not in labels:
      near = [known for known in labels if summary.plain(known) == summary.plain(name)]
      hint = f", only train/{shown(near[0])}" if near else ""
      raise UserError(f"{shown(path)} is a class without training images: there is no folder train/{shown(name)}{hint}")
    if (other := same.setdefault(identities[path], path)) != path:
      raise UserError(f"{shown(other)} and {shown(path)} are the same folder; a class must have images of its own")
    found = image_files.images_below(path, closed)
    if not found.paths:
      others = f"; it contains {summary.counted(found.passed_over)}" if found.passed_over else ""
      raise UserError(f"{shown(path)} contains no image file (.png, .jpg or another suffix that Pillow reads){others}")
    passed_over.update(found.passed_over)
    files += [(image, labels[name]) for image in found.paths]
  return files


def _above(folders: Sequence[str]) -> set[image_files.Identity]:
  """Returns the identities of all folders above the classes' folders: a link to one of them would go in circles."""
  return {image_files.identity(str(parent)) for path in folders[:1] for parent in pathlib.Path(path).parents}


def _one_class(folder: str) -> str:
  inside = [os.path.basename(path) for path in image_files.subfolders(folder).paths]
  name = shown(os.path.basename(folder))
  hint = f"; {name}/ holds the folders {summary.named(inside)}: if these are the classes, they belong into train/"
  return f"{shown(os.path.dirname(folder))} holds one class, {name}; a classifier needs two{hint if inside else ''}"


def _digest(path: str) -> str:
  try:
    return image_files.digest(path)
  except image_decoding.DAMAGED as error:
    raise UserError(f"{shown(path)} cannot be read as an image: {image_files.words_of(error)}") from None


def check_options(image_size: int, image_mode: str) -> None:
  """Raises `UserError` unless the options of `decode` are in their ranges."""
  options.check_positive("dataset.image_size", image_size, zero=True)
  if image_mode:
    options.check_choice("dataset.image_mode", image_mode, _CHANNELS)


def decode(files: Sequence[Encoded], image_size: int, image_mode: str) -> tuple[np.ndarray, collections.Counter[str]]:
  """Decodes images to `[N, H, W, C]` uint8, all of the size and mode of the first, and counts the changes.

  Args:
    files: N of them, at least one.
    image_size: as in `read`.
    image_mode: as in `read`.

  Raises:
    UserError: one cannot be decoded, or differs in size or mode; the message names it.
  """
  first, changes = files[0].name, collections.Counter[str]()
  example, _ = _image(files[0], image_size, image_mode)
  if example.mode not in _CHANNELS:
    raise UserError(f"{first} has mode {example.mode}; set dataset.image_mode=RGB to convert all images")
  shape = (example.height, example.width, _CHANNELS[example.mode])
  inputs = np.empty((len(files), *shape), np.uint8)
  for position, file in enumerate(files):
    image, changed = _image(file, image_size, image_mode)
    changes.update(changed)
    if image.mode != example.mode:
      raise UserError(
        f"{file.name} has mode {image.mode} and {first} {example.mode}; set dataset.image_mode=RGB to convert all"
        " images"
      )
    if image.size != example.size:
      raise UserError(
        f"{file.name} has {image.width}x{image.height} pixels and {first} {example.width}x{example.height}; set"
        " dataset.image_size to bring all images to one size"
      )
    inputs[position] = np.asarray(image).reshape(shape)
  return inputs, changes


def _image(file: Encoded, image_size: int, image_mode: str) -> image_decoding.Decoded:
  try:
    decoded = image_decoding.decode(file.read(), image_mode, file.suffix)
  except image_decoding.DAMAGED as error:
    raise UserError(f"{file.name} cannot be read as an image: {image_files.words_of(error)}") from None
  if not image_size:
    return decoded
  return decoded._replace(image=PIL.ImageOps.fit(decoded.image, (image_size, image_size)))
