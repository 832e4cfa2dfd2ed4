import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import data
from dynsel_jax.data import gather
from dynsel_jax.options import UserError


def _key():
  return jax.random.key(3)  # the same one, anew for every use


def _images(count, height, width, channels=1, seed=0):
  return jnp.asarray(np.random.default_rng(seed).integers(1, 256, (count, height, width, channels)), jnp.uint8)


def _windows(image, pad):
  """Returns every crop of the framed image, `[(2 pad + 1)^2, H, W, C]`, row by row."""
  framed = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
  height, width = image.shape[:2]
  places = [(top, left) for top in range(2 * pad + 1) for left in range(2 * pad + 1)]
  return np.stack([framed[top : top + height, left : left + width] for top, left in places])


def test_gather_reads_rows_and_padding_reads_the_first():
  dataset = {"inputs": _images(5, 2, 3), "labels": jnp.arange(5, dtype=jnp.int32) * 10}
  dataset["targets"] = jnp.linspace(0.0, 1.0, 5)
  batch = jax.jit(gather.gather)(dataset, jnp.asarray([4, -1, 2], jnp.int32))
  assert batch.keys() == dataset.keys()
  np.testing.assert_array_equal(batch["inputs"], np.asarray(dataset["inputs"])[[4, 0, 2]])
  np.testing.assert_array_equal(batch["labels"], [40, 0, 20])
  np.testing.assert_array_equal(batch["targets"], [1.0, 0.0, 0.5])
  assert batch["inputs"].dtype == jnp.uint8 and batch["labels"].dtype == jnp.int32


def test_a_streamed_set_holds_the_rows_already():
  rows = gather.Rows({"inputs": _images(2, 2, 3)}, jnp.array([True, False]))
  assert gather.gather(rows, jnp.asarray([1400, -1], jnp.int32)) is rows.batch


@pytest.mark.parametrize("as_array", [tuple, lambda values: jnp.asarray(values, jnp.float32)])
def test_normalize_is_by_channel_in_float32(as_array):
  images, mean, std = _images(4, 3, 2, 3), (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
  normalized = gather.normalize(images, as_array(mean), as_array(std))
  assert normalized.dtype == jnp.float32
  np.testing.assert_allclose(normalized, (np.asarray(images) / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_crop_takes_every_place_of_the_framed_image_alike():
  image, pad, count = _images(1, 5, 3), 2, 2500
  keys = jax.random.split(_key(), count)
  crops = np.asarray(
    jax.jit(lambda keys, x: gather.random_crop(keys, x, pad=pad))(keys, jnp.tile(image, (count, 1, 1, 1)))
  )
  windows = _windows(np.asarray(image[0]), pad)
  matches = (crops[:, None] == windows[None]).all(axis=(2, 3, 4))  # all 25 windows of this image differ
  assert (matches.sum(axis=1) == 1).all()
  counts = matches.sum(axis=0)
  # Chi-square with 24 degrees of freedom: 51.2 is its 99.9 % point.
  assert np.square(counts - count / 25).sum() / (count / 25) < 51.2


def test_flip_mirrors_half_of_the_images():
  images = _images(1000, 2, 3, 2)
  flipped = np.asarray(gather.random_flip(jax.random.split(_key(), 1000), images))
  mirrored = (flipped == np.asarray(images)[:, :, ::-1]).all(axis=(1, 2, 3))
  same = (flipped == np.asarray(images)).all(axis=(1, 2, 3))
  assert (mirrored ^ same).all()
  assert 450 < mirrored.sum() < 550


def test_augmentation_depends_on_key_and_sample_alone():
  augment = jax.jit(gather.augmentation(("crop", "flip")))
  images, index = _images(12, 8, 6, 3), jnp.arange(12, dtype=jnp.int32) + 100
  whole = np.asarray(augment(_key(), index, images))
  order = np.random.default_rng(0).permutation(12)
  np.testing.assert_array_equal(augment(_key(), index[order], images[order]), whole[order])
  rows = np.asarray([7, 2, 11])
  padded = jnp.concatenate([index[rows], jnp.full(1, -1, jnp.int32)])
  part = augment(_key(), padded, images[np.append(rows, 0)])
  np.testing.assert_array_equal(part[:3], whole[rows])
  assert (np.asarray(augment(jax.random.key(4), index, images)) != whole).any(axis=(1, 2, 3)).sum() > 6
  assert (np.asarray(augment(_key(), index + 12, images)) != whole).any(axis=(1, 2, 3)).sum() > 6


def test_each_augmentation_draws_for_itself():
  images, index = _images(40, 6, 6), jnp.arange(40, dtype=jnp.int32)
  crop, flip, crop_and_flip = (
    jax.jit(gather.augmentation(names)) for names in (("crop",), ("flip",), ("crop", "flip"))
  )
  cropped, flipped = crop(_key(), index, images), flip(_key(), index, images)
  np.testing.assert_array_equal(crop_and_flip(_key(), index, images), flip(_key(), index, cropped))
  mirrored = (np.asarray(flipped) != np.asarray(images)).any(axis=(1, 2, 3))
  assert 0 < mirrored.sum() < 40
  np.testing.assert_array_equal(gather.augmentation(())(_key(), index, images), images)


def test_unknown_augmentation_is_refused():
  with pytest.raises(
    UserError, match="dataset.augmentations='turn' is not known; known: crop, cutout_12, flip, shift_2, shift_4"
  ):
    gather.augmentation(("crop", "turn"))


def test_a_view_augments_with_a_key_alone_and_normalises_images_alone():
  digits = data.load("digits")
  batch = {"inputs": jnp.asarray(digits.train["inputs"][:40]), "labels": jnp.asarray(digits.train["labels"][:40])}
  index, augment = jnp.arange(40, dtype=jnp.int32), gather.augmentation(("crop", "flip"))
  apply = gather.view(digits, augment)
  plain = gather.normalize(batch["inputs"], digits.mean, digits.std)
  np.testing.assert_array_equal(apply(None, index, batch)["inputs"], plain)
  seen = apply(_key(), index, batch)
  augmented = gather.normalize(augment(_key(), index, batch["inputs"]), digits.mean, digits.std)
  np.testing.assert_array_equal(seen["inputs"], augmented)
  assert not np.array_equal(seen["inputs"], plain) and seen["labels"] is batch["labels"]

  diabetes = data.load("diabetes")
  rows = {"inputs": jnp.asarray(diabetes.train["inputs"][:4])}
  assert gather.view(diabetes)(_key(), index[:4], rows)["inputs"] is rows["inputs"]


@pytest.mark.parametrize(
  ("given", "names"),
  [
    ((), ()),
    (("none",), ()),
    (("",), ()),
    (("crop", "flip"), ("crop", "flip")),
    (("crop, flip",), ("crop", "flip")),  # how a flag without quotes arrives
  ],
)
def test_augmentations_are_named_as_a_flag_can(given, names):
  assert gather.augmentation_names(given) == names


def test_none_beside_an_augmentation_is_refused():
  with pytest.raises(UserError, match="none stands alone"):
    gather.augmentation_names(("none", "flip"))
