"""From an image file to the pixels that a model is given: decoding, evaluation's view, a random crop. Host-side.

The ImageNet recipe: a random crop of 8 to 100 % of the area brought to the model's size (Szegedy et al.,
arXiv 1409.4842, Sec. 6, as torchvision's RandomResizedCrop does it), and for evaluation the centre of an image whose
shorter side has been brought to `resize`. `H`, `W`, `C` are height, width and channels.
"""

import io
import math
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps

__all__ = ["DAMAGED", "View", "centre", "decode", "pixels", "random_resized_crop"]

DAMAGED = (OSError, ValueError, SyntaxError, RuntimeError, PIL.Image.DecompressionBombError)  # raised for such a file

_AREA = (0.08, 1.0)  # share of the image that a random crop covers
_RATIO = (3 / 4, 4 / 3)  # of its width to its height
_ATTEMPTS = 10


class View(NamedTuple):
  """How an image is brought to a model's size."""

  image_size: int  # height and width; 0 takes images as they are
  resize: int  # the shorter side before evaluation's centre is cut out; 0 cuts the largest square there is
  mode: str  # Pillow's name of the colours, for example "RGB"


def decode(encoded: bytes, mode: str) -> PIL.Image.Image:
  """Returns a decoded image file; what cannot be decoded raises one of `DAMAGED`."""
  try:
    opened = PIL.Image.open(io.BytesIO(encoded))
  except PIL.UnidentifiedImageError:
    raise ValueError("no image file") from None
  with opened as image:
    image.load()
    return image if image.mode == mode else image.convert(mode)


def centre(image: PIL.Image.Image, view: View) -> PIL.Image.Image:
  """Returns evaluation's view."""
  size = view.image_size
  if not size:
    return image
  if not view.resize:
    return PIL.ImageOps.fit(image, (size, size))  # as `folders.read` does
  shorter = min(image.size)
  width, height = (view.resize * side // shorter for side in image.size)
  resized = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
  left, top = round((width - size) / 2), round((height - size) / 2)
  return resized.crop((left, top, left + size, top + size))


def random_resized_crop(generator: np.random.Generator, image: PIL.Image.Image, size: int) -> PIL.Image.Image:
  """Returns a random part of the image at `size` x `size` pixels; its area and shape are drawn, then its place."""
  width, height = image.size
  for _ in range(_ATTEMPTS):
    area = width * height * generator.uniform(*_AREA)
    ratio = math.exp(generator.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      left, top = (int(generator.integers(0, room + 1)) for room in (width - w, height - h))
      break
  else:  # a long, narrow image: the largest part of an allowed shape, from its middle
    w, h = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
  return image.crop((left, top, left + w, top + h)).resize((size, size), PIL.Image.Resampling.BILINEAR)


def pixels(image: PIL.Image.Image) -> np.ndarray:
  """Returns an image as `[H, W, C]` uint8."""
  # `np.asarray(image)` takes three times as long, and holds Python's lock while it does.
  return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, -1)
