"""Image folders of any content: either every image as it lies there, or one line that names a file."""

import contextlib
import os
import pathlib
import tempfile

import hypothesis
import numpy as np
import PIL.Image
from hypothesis import strategies

from dynsel_jax import data
from dynsel_jax.data import stream_sets
from dynsel_jax.options import UserError

_LETTERS = strategies.characters(blacklist_categories=("Cs",), blacklist_characters="/\0")
_NAMES = strategies.text(_LETTERS, min_size=1, max_size=6).map(os.fsencode) | strategies.binary(min_size=1, max_size=4)
_SUFFIXES = {"PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".TIF", "PPM": ".ppm", "WEBP": ".webp"}
_OTHERS = ("text", "pipe", "broken link", "circle", "hidden")
_DAMAGED = ("empty", "cut", "words")


@strategies.composite
def _entries(draw):
  """Entries of a class's folder: a name without suffix, a kind, a subfolder, and the red value of an image."""
  kind = strategies.sampled_from([*_SUFFIXES, "turned", "16 bits", "linked", *_OTHERS])
  entry = strategies.tuples(_NAMES, kind, strategies.sampled_from([b"", b"a", b"b.png"]), strategies.integers(0, 255))
  entries = draw(strategies.lists(entry, min_size=1, max_size=5))
  if draw(strategies.integers(0, 4)) == 0:
    entries.append((b"damaged", draw(strategies.sampled_from(_DAMAGED)), b"", 0))
  return [
    (b"%d" % number + name.replace(b"/", b"").replace(b"\0", b""), *rest)
    for number, (name, *rest) in enumerate(entries)
  ]


def _write(folder, name, kind, red):
  """Writes an entry; returns its path if it is an image, and whether it can be read."""
  image = PIL.Image.new("RGB", (3, 2), (red, red, red))
  if kind in _SUFFIXES:
    path = folder + b"/" + name + _SUFFIXES[kind].encode()
    image.save(path, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return path, True
  path = folder + b"/" + name + b".png"
  if kind == "turned":
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image.transpose(PIL.Image.Transpose.ROTATE_90).save(path, exif=exif)
  elif kind == "16 bits":
    PIL.Image.fromarray(np.full((2, 3), red * 256 + 77, np.uint16)).save(path)
  elif kind == "linked":
    target = folder + b"/." + name
    image.save(target, "PNG")
    os.symlink(target, path)
  elif kind in _DAMAGED:
    image.save(path)
    whole = pathlib.Path(os.fsdecode(path)).read_bytes()
    with open(path, "wb") as file:
      file.write({"empty": b"", "cut": whole[:45], "words": b"no image"}[kind])
    return path, False
  else:
    if kind == "text":
      with open(folder + b"/" + name + b".txt", "w") as file:
        file.write("x")
    elif kind == "pipe":
      os.mkfifo(path)
    elif kind == "hidden":
      image.save(folder + b"/." + name + b".png", "PNG")
    else:
      os.symlink(b"nowhere" if kind == "broken link" else folder, path)
    return None, True
  return path, True


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(classes=strategies.lists(_entries(), min_size=2, max_size=3))
def test_a_folder_gives_every_image_or_one_line_that_names_a_file(classes):
  with tempfile.TemporaryDirectory() as made, contextlib.redirect_stderr(None):
    root, images, damaged = os.fsencode(made), [], []
    for label, entries in enumerate(classes):
      os.makedirs(root + b"/test/c%d" % label)
      PIL.Image.new("RGB", (3, 2)).save(root + b"/test/c%d/0.png" % label)
      for name, kind, subfolder, red in entries:
        folder = (root + b"/train/c%d/" % label + subfolder).rstrip(b"/")
        os.makedirs(folder, exist_ok=True)
        path, readable = _write(folder, name, kind, red)
        if path is not None:
          images.append((os.fsdecode(path).split("/"), label, red))
          damaged += [path] if not readable else []
    settings = {"data_dir": made, "cache_dir": f"{made}/cache", "image_mode": "RGB"}
    try:
      source = data.load("folder", **settings)
    except UserError as error:
      assert "\n" not in str(error)
      without = [label for label in range(len(classes)) if all(found != label for _, found, _ in images)]
      if not without:
        assert damaged and "/train/c" in str(error) and "cannot be read as an image" in str(error)
      else:
        assert f"/train/c{without[0]} contains no image file" in str(error)
      return
    assert not damaged
    images.sort()
    np.testing.assert_array_equal(source.train["labels"], [label for _, label, _ in images])
    assert source.train["inputs"].shape == (len(images), 2, 3, 3)
    for pixels, (_, _, red) in zip(source.train["inputs"], images, strict=True):
      np.testing.assert_array_equal(pixels, red)
    streamed = stream_sets.load("folder", **settings, image_size=0, resize=0, threads=1)
    np.testing.assert_array_equal(streamed.train["inputs"][:], source.train["inputs"])
    np.testing.assert_array_equal(streamed.train["labels"], source.train["labels"])
