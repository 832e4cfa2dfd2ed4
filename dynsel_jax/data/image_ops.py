"""Crops an image to a model's input size, and gives its pixels. Host-side.

The ImageNet recipe: training resizes a random crop of 8 to 100 % of the area (Szegedy et al., arXiv 1409.4842, Sec. 6,
as in torchvision's RandomResizedCrop); evaluation resizes the shorter side to `resize` and crops the centre.
`H`, `W`, `C` are height, width and channels. `image_decoding` makes an image of a file's content.
"""

import math
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps

__all__ = ["MODES", "View", "centre", "pixels", "random_resized_crop"]

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name of the colours by the number of channels

_AREA = (0.08, 1.0)  # range of the fraction of the image that a random crop covers
_RATIO = (3 / 4, 4 / 3)  # range of width over height of a random crop
_ATTEMPTS = 10  # draws of a crop that fits into the image
_LONGEST = 64  # of an image that is longer, as width over height, evaluation sees the middle part only


class View(NamedTuple):
  """Size and colours of the images that a model is given."""

  image_size: int  # height and width; 0 keeps the images' own size
  resize: int  # the shorter side before the centre crop of evaluation; 0 crops the largest square
  mode: str  # Pillow's name of the colours, for example "RGB"


def centre(image: PIL.Image.Image, view: View) -> PIL.Image.Image:
  """Resizes an image and crops its centre, as in evaluation."""
  size = view.image_size
  if not size:
    return image
  if not view.resize:
    return PIL.ImageOps.fit(image, (size, size))  # as in `folders.read`
  shorter = min(image.size)
  if max(image.size) > _LONGEST * shorter:  # scaled as a whole, a line of pixels would fill the memory
    left, top = (max(side - _LONGEST * shorter, 0) // 2 for side in image.size)
    image = image.crop((left, top, image.width - left, image.height - top))
  width, height = (view.resize * side // shorter for side in image.size)
  resized = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
  left, top = round((width - size) / 2), round((height - size) / 2)
  return resized.crop((left, top, left + size, top + size))


def random_resized_crop(generator: np.random.Generator, image: PIL.Image.Image, size: int) -> PIL.Image.Image:
  """Crops a random part of the image, drawing its area, shape and place, and resizes it to `size` x `size` pixels."""
  width, height = image.size
  for _ in range(_ATTEMPTS):
    area = width * height * generator.uniform(*_AREA)
    ratio = math.exp(generator.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      left, top = (int(generator.integers(0, room + 1)) for room in (width - w, height - h))
      break
  else:  # a long, narrow image: the largest part of an allowed shape, from the middle
    w, h = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
  return image.crop((left, top, left + w, top + h)).resize((size, size), PIL.Image.Resampling.BILINEAR)


def pixels(image: PIL.Image.Image) -> np.ndarray:
  """Converts an image to `[H, W, C]` uint8."""
  # `np.asarray(image)` takes three times as long and holds Python's lock meanwhile.
  return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, -1)
