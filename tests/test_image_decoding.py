"""Decoding image files: upright, 8 bits, without transparency, the first frame; and one line for any damage."""

import io
import struct
import zlib

import hypothesis
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import strategies

from dynsel_jax.data import image_decoding, image_ops

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
RAMP = np.linspace(0, 65535, 42).reshape(6, 7).round().astype(np.uint16)
FRAMES = [PIL.Image.fromarray(np.full((6, 8, 3), 80 * number, np.uint8)) for number in range(3)]


def _encoded(image, kind="PNG", **settings):
  stream = io.BytesIO()
  image.save(stream, kind, **settings)
  return stream.getvalue()


def _decoded(encoded, mode="RGB", suffix=""):
  found = image_decoding.decode(encoded, mode, suffix)
  assert found.image.mode == (mode or found.image.mode)
  return np.asarray(found.image), found.changes


def test_every_still_suffix_is_known_and_no_other():
  known = image_decoding.suffixes()
  common = {".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
  assert known >= common | {".pbm", ".tga", ".ico"}
  assert ".mpo" in known  # what a phone with two lenses writes
  assert not known & {".eps", ".ps", ".pdf", ".mpg", ".mpeg", ".fli", ".h5", ".hdf", ".grib", ".wmf", ".txt", ".npy"}


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "ppm", "tga", "webp", "jp2", "sgi", "pcx", "im"])
def test_formats_without_loss_give_the_same_pixels_whatever_the_file_is_called(suffix):
  lossless = {"webp": {"lossless": True}, "jp2": {"irreversible": False}}.get(suffix, {})
  PIL.Image.init()
  encoded = _encoded(PIL.Image.fromarray(COLOURS), PIL.Image.registered_extensions()[f".{suffix}"], **lossless)
  for name in (f".{suffix}", f".{suffix.upper()}", *(() if suffix in ("tga", "im") else (".jpg", ""))):
    pixels, changes = _decoded(encoded, "RGB", name)
    np.testing.assert_array_equal(pixels, COLOURS)
    assert changes == ()
  if suffix in ("tga", "im"):  # only the name tells these, so that damaged files of others are not taken for them
    with pytest.raises(ValueError, match="not an image file"):
      image_decoding.decode(encoded, "RGB", ".png")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied(kind, orientation):
  exif = PIL.Image.Exif()
  exif[0x0112] = orientation
  large = PIL.Image.fromarray(COLOURS).resize((56, 48), PIL.Image.Resampling.NEAREST)
  lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
  tag = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
  encoded = _encoded(large, kind, **tag, **lossless)
  with PIL.Image.open(io.BytesIO(_encoded(large, kind, **lossless))) as plain:
    stored = plain.copy()
  stored.getexif()[0x0112] = orientation
  upright = PIL.ImageOps.exif_transpose(stored)
  pixels, changes = _decoded(encoded)
  np.testing.assert_array_equal(pixels, np.asarray(upright))
  assert changes == (("turned",) if 2 <= orientation <= 8 else ())


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\xff", bytes(40)])
def test_damaged_exif_turns_nothing(exif):
  pixels, changes = _decoded(_encoded(PIL.Image.fromarray(COLOURS), "PNG", exif=exif))
  np.testing.assert_array_equal(pixels, COLOURS)
  assert changes == ()


GREY = {
  "png": ("PNG", RAMP),
  "tiff": ("TIFF", RAMP),
  "32 bits": ("TIFF", RAMP.astype(np.int32)),
  "float": ("TIFF", (RAMP / 65535).astype(np.float32)),
  "pgm": ("PPM", RAMP.astype(np.int32)),
  "jpeg 2000": ("JPEG2000", RAMP),
}


@pytest.mark.parametrize("mode", ["L", "RGB", ""])
@pytest.mark.parametrize("case", GREY)
def test_grey_of_more_than_8_bits_is_scaled(case, mode):
  kind, values = GREY[case]
  settings = {"irreversible": False} if kind == "JPEG2000" else {}
  pixels, changes = _decoded(_encoded(PIL.Image.fromarray(values), kind, **settings), mode)
  assert pixels.shape == ((6, 7, 3) if mode == "RGB" else (6, 7)) and pixels.dtype == np.uint8
  expected = np.rint(RAMP / 65535 * 255) if case == "float" else RAMP >> 8
  np.testing.assert_array_equal(pixels if pixels.ndim == 2 else pixels[..., 1], expected)
  assert changes == ("depth",)


def _with_tag(encoded, tag, value):
  """Changes a 16-bit tag of a TIFF file."""
  found = bytearray(encoded)
  (start,) = struct.unpack_from("<I", found, 4)
  (count,) = struct.unpack_from("<H", found, start)
  for entry in range(start + 2, start + 2 + 12 * count, 12):
    if struct.unpack_from("<H", found, entry) == (tag,):
      struct.pack_into("<H", found, entry + 8, value)
  return bytes(found)


def test_grey_whose_zero_is_white_is_inverted():
  negative = _with_tag(_encoded(PIL.Image.fromarray(RAMP), "TIFF"), 262, 0)
  np.testing.assert_array_equal(_decoded(negative, "L")[0], (65535 - RAMP) >> 8)


@pytest.mark.parametrize(
  ("values", "line"),
  [
    (np.array([[-1, 5]], np.int32), r"values from -1 to 5; grey of this kind must lie in \[0, 65535\]"),
    (np.array([[0, 70000]], np.int32), "values from 0 to 70000"),
    (np.array([[0, 255]], np.float32), r"values from 0.0 to 255.0; grey of this kind must lie in \[0, 1\]"),
    (np.array([[0, np.nan]], np.float32), "values from nan to nan"),
  ],
)
def test_grey_whose_white_is_not_known_is_refused(values, line):
  with pytest.raises(ValueError, match=line):
    image_decoding.decode(_encoded(PIL.Image.fromarray(values), "TIFF"), "L")


def _laid_on_white(rgba):
  alpha = rgba[..., 3:] / 255
  return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "TGA"])
def test_transparency_is_laid_on_white(kind):
  alpha = np.tile(np.array([0, 0, 128, 255, 255, 60, 200], np.uint8), (6, 1))
  rgba = np.dstack([COLOURS, alpha])
  settings = {"lossless": True, "exact": True} if kind == "WEBP" else {}
  encoded = _encoded(PIL.Image.fromarray(rgba), kind, **settings)
  pixels, changes = _decoded(encoded, "RGB", ".tga" if kind == "TGA" else "")
  np.testing.assert_allclose(pixels, _laid_on_white(rgba), atol=1)
  assert (pixels[:, :2] == 255).all() and changes == ("transparent",)
  grey, _ = _decoded(encoded, "L", ".tga" if kind == "TGA" else "")
  np.testing.assert_allclose(grey, pixels @ [0.299, 0.587, 0.114], atol=1)
  kept, changes = _decoded(encoded, "RGBA", ".tga" if kind == "TGA" else "")
  np.testing.assert_array_equal(kept, rgba)
  assert changes == ()


def test_an_opaque_image_keeps_its_colours():
  opaque = np.dstack([COLOURS, np.full((6, 7), 255, np.uint8)])
  pixels, changes = _decoded(_encoded(PIL.Image.fromarray(opaque)))
  np.testing.assert_array_equal(pixels, COLOURS)
  assert changes == ()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "I;16"])
def test_transparency_of_other_modes_is_laid_on_white(mode):
  if mode == "LA":
    encoded = _encoded(PIL.Image.fromarray(np.array([[[10, 0], [10, 255]]], np.uint8)))
  else:
    image = PIL.Image.new(mode, (2, 1))
    other = {"RGB": (10, 10, 10), "I;16": 10 << 8, "1": 1}.get(mode, 10)
    if mode == "P":
      image.putpalette([200, 200, 200] + [10, 10, 10] * 255)
    image.putpixel((1, 0), other)
    encoded = _encoded(image, transparency=(0, 0, 0) if mode == "RGB" else 0)
  for wanted in ("RGB", "L"):
    pixels, changes = _decoded(encoded, wanted)
    np.testing.assert_array_equal(pixels.reshape(2, -1)[0], 255)
    np.testing.assert_array_equal(pixels.reshape(2, -1)[1], 255 if mode == "1" else 10)
    assert "depth" in changes if mode == "I;16" else changes == ("transparent",)


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "L"])
def test_other_modes_are_converted_as_pillow_does(mode):
  stored = PIL.Image.fromarray(COLOURS).convert(mode)
  encoded = _encoded(stored, "TIFF" if mode == "CMYK" else "PNG")
  for wanted in ("RGB", "L"):
    np.testing.assert_array_equal(_decoded(encoded, wanted)[0], np.asarray(stored.convert(wanted)))
  own, _ = _decoded(encoded, "")
  if mode == "1":  # grey too
    np.testing.assert_array_equal(own, np.asarray(stored.convert("L")))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_taken(kind):
  settings = {"lossless": True} if kind == "WEBP" else {}
  pixels, changes = _decoded(_encoded(FRAMES[1], kind, save_all=True, append_images=FRAMES[:1], **settings))
  np.testing.assert_array_equal(pixels, np.full((6, 8, 3), 80, np.uint8))
  assert changes == ("frames",)
  assert _decoded(_encoded(FRAMES[1], kind, **settings))[1] == ()


def test_the_second_picture_of_a_phone_is_none_of_several_frames():
  pixels, changes = _decoded(_encoded(FRAMES[1], "MPO", save_all=True, append_images=FRAMES[:1]), "RGB", ".jpg")
  np.testing.assert_allclose(pixels, 80, atol=2)
  assert changes == ()


def _chunk(name, content):
  return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _bomb(width, height):
  header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
  return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(bytes(1000))) + _chunk(b"IEND", b"")


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
  with pytest.raises(ValueError, match="pixels"):
    image_decoding.decode(_bomb(60_000, 60_000), "RGB")
  monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)  # as some programs set it
  with pytest.raises(ValueError, match="it has 60000x60000 pixels, more than 178,956,970"):
    image_decoding.decode(_bomb(60_000, 60_000), "RGB")


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)])
def test_a_line_of_pixels_is_not_scaled_as_a_whole(size):
  line = PIL.Image.new("L", size, 7)
  found = image_ops.centre(line, image_ops.View(224, 256, "L"))
  assert found.size == (224, 224) and np.asarray(found).min() == 7


def test_no_other_program_is_run_for_a_file(monkeypatch):
  monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript"))
  encoded = _encoded(PIL.Image.fromarray(COLOURS), "EPS")
  for suffix in (".eps", ".png", ""):
    with pytest.raises(ValueError, match="not an image file"):
      image_decoding.decode(encoded, "RGB", suffix)


def test_nothing_at_all_is_named():
  with pytest.raises(ValueError, match="the file is empty"):
    image_decoding.decode(b"", "RGB")


WHOLE = {
  "png": _encoded(PIL.Image.fromarray(COLOURS)),
  "jpg": _encoded(PIL.Image.fromarray(COLOURS), "JPEG"),
  "gif": _encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
  "tif": _encoded(PIL.Image.fromarray(RAMP), "TIFF"),
  "webp": _encoded(PIL.Image.fromarray(COLOURS), "WEBP"),
  "bmp": _encoded(PIL.Image.fromarray(COLOURS), "BMP"),
  "ppm": _encoded(PIL.Image.fromarray(COLOURS), "PPM"),
  "tga": _encoded(PIL.Image.fromarray(COLOURS), "TGA"),
  "ico": _encoded(PIL.Image.fromarray(COLOURS).resize((32, 32)), "ICO"),
  "jp2": _encoded(PIL.Image.fromarray(COLOURS), "JPEG2000"),
}


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(kind=strategies.sampled_from(sorted(WHOLE)), draw=strategies.data())
def test_damaged_content_is_an_image_or_one_line(kind, draw):
  whole = bytearray(WHOLE[kind])
  for place in draw.draw(strategies.lists(strategies.integers(0, len(whole) - 1), max_size=4)):
    whole[place] = draw.draw(strategies.integers(0, 255))
  encoded = bytes(whole[: draw.draw(strategies.integers(0, len(whole)))])
  try:
    pixels, _ = _decoded(encoded, "RGB", f".{kind}")
  except ValueError as error:
    assert str(error) and "\n" not in str(error)
  else:
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
