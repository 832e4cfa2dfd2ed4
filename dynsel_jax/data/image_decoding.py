"""Decodes an image file to 8 bits a channel, upright and without transparency: the same for every reader. Host-side.

What an image file may hold, and what becomes of it:

- A file is known by its content, so that a JPEG called x.png is read; see `suffixes` for the formats.
- EXIF orientation is applied: a photo is read as viewers show it.
- Of several frames or pages the first is taken.
- Grey of more than 8 bits is scaled such that white stays white: integers from 0 to 65535 by their upper 8 bits,
  floating-point numbers from 0 to 1 by 255. Other values are refused, since nothing says which of them is white.
- Transparency is laid on white, unless the mode asked for has an alpha channel.
- An image of more than `MOST_PIXELS` pixels or a file of more than `MOST_BYTES` bytes is refused.
"""

import io
from typing import NamedTuple

import numpy as np
import PIL.Image

__all__ = ["CHANGES", "DAMAGED", "MOST_BYTES", "MOST_PIXELS", "RULES", "Decoded", "decode", "suffixes"]

RULES = 1  # raised whenever a file is decoded to other pixels than before
MOST_PIXELS = 2 * 89_478_485  # where Pillow refuses by default too
MOST_BYTES = 2**31  # an image of `MOST_PIXELS` has less, however it is stored

DAMAGED = (OSError, RuntimeError, ValueError)  # from reading a file that is damaged; `decode` raises `ValueError`

# What `decode` may have to change, with the words for it behind a number of images.
CHANGES = {
  "turned": "turned upright by their EXIF orientation",
  "frames": "with several frames, of which the first is taken",
  "depth": "of more than 8 bits a channel, scaled to 8",
  "transparent": "with transparency, laid on white",
}

# Not still images (FLI, MPEG), not decoded by Pillow itself (BUFR, GRIB, HDF5, WMF), run by another program, which may
# do more than draw (EPS), or an envelope (IPTC).
_EXCLUDED = frozenset({"BUFR", "EPS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF"})
_LAYERED = ("MPO", "PSD")  # the further frames of these belong to the first: previews, depth, layers

_TURNS = {
  2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
  3: PIL.Image.Transpose.ROTATE_180,
  4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
  5: PIL.Image.Transpose.TRANSPOSE,
  6: PIL.Image.Transpose.ROTATE_270,
  7: PIL.Image.Transpose.TRANSVERSE,
  8: PIL.Image.Transpose.ROTATE_90,
}
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274  # tags of TIFF; the last one of EXIF too


class Decoded(NamedTuple):
  """An image, and which of `CHANGES` were made to get it."""

  image: PIL.Image.Image
  changes: tuple[str, ...]


def decode(encoded: bytes, mode: str, suffix: str = "") -> Decoded:
  """Decodes the content of an image file.

  Args:
    encoded: the content.
    mode: Pillow's name of the colours that the image is converted to; "" keeps its own, with 8 bits.
    suffix: of the file's name, if it has one. A few formats, such as .tga, can only be told by it.

  Raises:
    ValueError: the content cannot be decoded; the message is one line.
  """
  if not encoded:
    raise ValueError("the file is empty")
  try:
    return _decoded(encoded, mode, suffix)
  except PIL.UnidentifiedImageError:
    raise ValueError("not an image file") from None
  except Exception as error:  # for damaged content Pillow raises nearly every kind of exception
    raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def suffixes() -> frozenset[str]:
  """Returns the suffixes of the still images that Pillow decodes, in lower case, with their dots."""
  known = _formats() | {"MPO"}  # which is opened as a JPEG
  return frozenset(suffix for suffix, name in PIL.Image.registered_extensions().items() if name in known)


def _formats() -> frozenset[str]:
  PIL.Image.init()
  return frozenset(PIL.Image.OPEN) - _EXCLUDED


def _candidates(suffix: str) -> tuple[str, ...]:
  """Returns the formats to try: all that begin with a signature, and those that only the suffix tells."""
  formats, named = _formats(), PIL.Image.registered_extensions().get(suffix)
  return tuple(name for name in PIL.Image.ID if name in formats and (PIL.Image.OPEN[name][1] or name == named))


def _decoded(encoded: bytes, mode: str, suffix: str) -> Decoded:
  changes = []
  with PIL.Image.open(io.BytesIO(encoded), formats=_candidates(suffix.lower())) as opened:
    _check_size(opened)
    if opened.format not in _LAYERED and getattr(opened, "is_animated", False):
      changes.append("frames")
    turned = getattr(opened, "tag_v2", {}).get(_ORIENTATION) in _TURNS  # Pillow turns TIFF files as it loads them
    opened.load()
    _check_size(opened)  # an icon has the size of the image within it
    image: PIL.Image.Image = opened
    if image.mode.startswith(("I", "F")):
      image = _eight_bits(opened)
      changes.append("depth")
    if mode in ("L", "RGB") or (not mode and image.mode in ("1", "L", "RGB")):
      image, transparent = _on_white(image)
      changes += ["transparent"] * transparent
      mode = mode or ("RGB" if image.mode == "RGB" else "L")
    if mode and image.mode != mode:
      image = image.convert(mode)
    if (turn := _TURNS.get(_orientation(opened))) is not None:
      image = image.transpose(turn)
    changes += ["turned"] * (turned or turn is not None)
    return Decoded(image, tuple(changes))


def _check_size(image: PIL.Image.Image) -> None:
  if image.width * image.height > MOST_PIXELS:
    raise ValueError(f"it has {image.width}x{image.height} pixels, more than {MOST_PIXELS:,}")


def _orientation(image: PIL.Image.Image) -> int:
  """Returns the EXIF orientation of a loaded image that is still to be applied."""
  try:
    return int(image.getexif().get(_ORIENTATION, 1))
  except Exception:  # damaged EXIF, which raises as many kinds of exceptions; viewers pass over it too
    return 1


def _eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
  """Scales grey of 16 bits or more, or in floating point, to 8 bits."""
  values = np.asarray(image)
  tags = getattr(image, "tag_v2", {})
  bits = min(int(tags.get(_BITS_PER_SAMPLE, (16,))[0]), 16)
  white = 1 if image.mode == "F" else 2**bits - 1
  low, high = values.min(), values.max()
  if not (low >= 0 and high <= white):  # also refuses NaN
    raise ValueError(f"its pixels have values from {low} to {high}; grey of this kind must lie in [0, {white}]")
  if tags.get(_PHOTOMETRIC) == 0:  # 0 is white; Pillow inverts such an image only if it has 8 bits
    values = white - values
  scaled = (np.rint(values * 255) if image.mode == "F" else values >> (bits - 8)).astype(np.uint8)
  if isinstance(key := image.info.get("transparency"), int):
    scaled[values == key] = 255  # as `_on_white`
  return PIL.Image.fromarray(scaled)


def _on_white(image: PIL.Image.Image) -> tuple[PIL.Image.Image, bool]:
  """Lays an image on white; also returns whether that made a difference, because a pixel is transparent."""
  with_alpha = image.palette.mode if image.mode == "P" and image.palette else image.mode
  if "transparency" not in image.info and with_alpha not in _ALPHA:
    return image, False
  above = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
  ground = PIL.Image.new("RGBA", above.size, "white")
  ground.alpha_composite(above)
  laid = ground.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
  return laid, bool(np.asarray(above.getchannel("A")).min() < 255)
