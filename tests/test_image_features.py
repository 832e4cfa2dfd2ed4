"""Encoders of images: resizing against Pillow, batches, EfficientNet-Lite0 against stored embeddings, CLIP."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from dynsel_jax import data, features
from dynsel_jax.features import efficientnet, images
from dynsel_jax.models import vit, vit_weights
from dynsel_jax.options import UserError
from tests.support import ROOT

RNG = np.random.default_rng(0)
SHARED = ROOT.parent / "shared" / "datasets"
TINY_CLIP = ROOT / "tests" / "data" / "tiny_clip.safetensors"


def _source(inputs):
  labels = np.zeros(len(inputs), np.int32)
  return data.load("digits")._replace(train={"inputs": inputs, "labels": labels})


def _smooth(height, width, channels=3):
  """Two images whose neighbouring pixels are alike, as a photograph's."""
  noise = RNG.normal(size=(2, height // 4 + 2, width // 4 + 2, channels))
  smooth = np.asarray(jax.image.resize(noise, (2, height, width, channels), "linear"))
  return np.clip(128 + 60 * smooth, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "side"), [(8, 8, 32), (32, 32, 24), (30, 20, 40), (20, 31, 12)])
def test_images_are_resized_and_cut_as_by_pillow(height, width, side):
  inputs = _smooth(height, width)
  found = jax.jit(lambda x: images.fit(x, side))(inputs)
  assert found.shape == (2, side, side, 3) and found.dtype == jnp.float32
  shorter = min(height, width)
  new = (side * width // shorter, side * height // shorter)
  left, top = ((whole - side) // 2 for whole in new)
  for mine, image in zip(np.asarray(found), inputs, strict=True):
    resized = PIL.Image.fromarray(image).resize(new, PIL.Image.Resampling.BICUBIC)
    theirs = np.asarray(resized, np.float32)[top : top + side, left : left + side]
    assert np.abs(mine - theirs).max() <= 2  # Pillow rounds between the two directions, and once more
    assert np.abs(mine - theirs).mean() < 0.3


def test_grey_images_get_three_equal_channels():
  found = np.asarray(jax.jit(lambda x: images.fit(x, 16))(_smooth(8, 8, 1)))
  assert found.shape == (2, 16, 16, 3)
  np.testing.assert_array_equal(found[..., 0], found[..., 2])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_every_image_is_encoded_once_and_in_its_order(batch_size):
  inputs = RNG.integers(0, 255, (7, 4, 4, 3)).astype(np.uint8)
  weights = RNG.normal(size=(48, 5)).astype(np.float32)
  traces = []

  def function(params, x):
    traces.append(x.shape)
    return x.reshape(len(x), -1).astype(jnp.float32) @ params

  found = images.encode("test", function, weights, inputs, batch_size)
  np.testing.assert_allclose(found, inputs.reshape(7, -1).astype(np.float32) @ weights, rtol=1e-4, atol=1e-2)
  assert traces == [(min(batch_size, 7), 4, 4, 3)]


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 5), (3, 2, 8), (5, 2, 7), (5, 2, 8), (5, 1, 6)])
def test_depthwise_is_the_grouped_convolution(kernel, stride, side):
  x = jnp.asarray(RNG.normal(size=(2, side, side, 4)), jnp.float32)
  weights = jnp.asarray(RNG.normal(size=(kernel, kernel, 1, 4)), jnp.float32)
  expected = jax.lax.conv_general_dilated(
    x, weights, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=4
  )
  found = jax.jit(efficientnet.depthwise, static_argnums=2)(x, weights, stride)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_efficientnet_lite0_has_its_published_size():
  shapes = efficientnet.shapes()
  folded = sum(int(np.prod(shape)) for name, shape in shapes.items())
  scales = sum(shape[0] for name, shape in shapes.items() if name.endswith(".b"))  # what folding has taken in
  classifier = 1281 * 1000
  assert folded + scales + classifier == 4_652_008
  params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
  for channels in (1, 3):
    inputs = jax.ShapeDtypeStruct((2, 32, 32, channels), jnp.uint8)
    found = jax.eval_shape(efficientnet.encoder, params, inputs)
    assert found.shape == (2, 1280) and found.dtype == jnp.float32


@pytest.mark.parametrize(
  ("change", "line"),
  [
    ({"head.b": None}, "has no array 'head.b'"),
    ({"block16.p.w": np.zeros(1)}, "has an array that EfficientNet-Lite0 does not use: 'block16.p.w'"),
    ({"stem.b": np.zeros(3)}, r"'stem.b' has shape \(3,\), the model needs \(32,\)"),
  ],
)
def test_efficientnets_arrays_are_checked(tmp_path, change, line):
  arrays = {name: np.zeros(shape, np.float16) for name, shape in efficientnet.shapes().items()} | change
  np.savez(tmp_path / "w.npz", **{name: a for name, a in arrays.items() if a is not None})
  with pytest.raises(UserError, match=line):
    features.create("efficientnet", path=str(tmp_path / "w.npz"))


def test_efficientnet_gives_the_stored_embeddings():
  weights = SHARED / "encoders" / "efficientnet_lite0_folded_f16.npz"
  stored = SHARED / "embeddings" / "cifar10_efflite0_224_pca128_int8.npz"
  for path in (weights, stored):
    if not path.is_file():
      pytest.skip(f"{path} is not there")
  try:
    cifar10 = data.load("cifar10")
  except UserError as error:
    pytest.skip(str(error))
  with np.load(stored) as file:
    count = 32
    theirs = (file["train"][:count] * file["scale"]).astype(np.float64)
  space = features.create("efficientnet", path=str(weights), batch_size=16)
  mine = space.extract(_source(cifar10.train["inputs"][:count])).astype(np.float64)
  pairs = np.triu_indices(count, 1)
  far, near = (np.linalg.norm(x[:, None] - x[None], axis=-1)[pairs] for x in (mine, theirs))
  # The stored rows are the first 128 principal components of these features: distances shrink, and by about as much.
  assert np.all(near < far)
  # Another scale of the pixels, padding, order of channels or interpolation gives at most 0.86, and farther pairs.
  assert np.corrcoef(far, near)[0, 1] > 0.9


def test_clip_is_the_tower_and_the_projection_of_images_prepared_as_clips(monkeypatch, tmp_path):
  monkeypatch.setattr(vit_weights, "CLIP_HEAD_WIDTH", 8)
  arrays = safetensors.numpy.load_file(TINY_CLIP)
  # What the whole model's file holds beside the image encoder is left alone.
  arrays |= {"text_model.final_layer_norm.bias": np.zeros(3), "vision_model.embeddings.position_ids": np.arange(10)}
  safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
  inputs = np.concatenate([_smooth(24, 24) for _ in range(3)])[:5]
  space = features.create("clip", path=str(tmp_path), batch_size=2)
  found = space.extract(_source(inputs))
  assert found.shape == (5, 6) and found.dtype == np.float32
  weights = vit_weights.Weights("", tmp_path)
  sizes, side = vit_weights.clip_sizes(weights)
  pixels = np.asarray(jax.jit(lambda x: images.fit(x, 12))(inputs)) / 255
  pixels = (pixels - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
  tower = {"params": vit_weights.clip_tower(weights, sizes, side)}
  pooled = jax.jit(vit.Tower(sizes).apply)(tower, jnp.asarray(pixels, jnp.float32))["features"]
  np.testing.assert_allclose(found, pooled @ arrays["visual_projection.weight"].T, rtol=1e-3, atol=1e-4)


def test_the_settings_follow_the_weights_content_alone(monkeypatch, tmp_path):
  monkeypatch.setattr(vit_weights, "CLIP_HEAD_WIDTH", 8)
  arrays = safetensors.numpy.load_file(TINY_CLIP)
  settings = []
  for name, scale in (("one", 1), ("same", 1), ("other", 2)):
    arrays["visual_projection.weight"] = arrays["visual_projection.weight"] * scale
    safetensors.numpy.save_file(arrays, tmp_path / name)
    settings.append(features.create("clip", path=str(tmp_path / name), batch_size=1 + len(settings)).settings())
  assert settings[0] == settings[1] != settings[2]


def test_wrong_weights_and_data_are_named(monkeypatch, tmp_path):
  monkeypatch.setattr(vit_weights, "CLIP_HEAD_WIDTH", 8)
  for path in ("", str(tmp_path / "none")):
    with pytest.raises(
      UserError, match=r"features.path=.* does not exist; to get CLIP ViT-L/14's weights: https://hugging"
    ):
      features.create("clip", path=path)
    with pytest.raises(
      UserError,
      match=r"features.path=.* is not a file; it must be an .npz file with EfficientNet-Lite0's folded weights",
    ):
      features.create("efficientnet", path=path)
  with pytest.raises(UserError, match="has no array 'vision_model.embeddings.patch_embedding.weight'"):
    features.create("clip", path=str(TINY_CLIP.with_name("tiny_vit.safetensors")))
  with pytest.raises(UserError, match="features.path=.*test_image_features.py is not a readable .npz or .npy file"):
    features.create("efficientnet", path=__file__)
  with pytest.raises(UserError, match="features.batch_size=0 must be greater than 0"):
    features.create("clip", path=str(TINY_CLIP), batch_size=0)
  text = _source(np.zeros((3, 7), np.int32))
  with pytest.raises(
    UserError, match=r"features.name=clip needs images .*; a sample of dataset.name=digits has shape \(7,\)"
  ):
    features.create("clip", path=str(TINY_CLIP)).extract(text)
