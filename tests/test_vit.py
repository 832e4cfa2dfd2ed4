"""Vision transformers against Hugging Face's, on stored random weights, images and outputs.

`tests/data/tiny_vit.safetensors` and `tiny_clip.safetensors` hold the `state_dict` of `ViTForImageClassification` (5
labels) and `CLIPVisionModelWithProjection` (projection_dim 6) of transformers 5.23 with hidden_size 16,
num_hidden_layers 2, num_attention_heads 2, intermediate_size 24, image_size 12, patch_size 4 and weights drawn from
0.3 * N(0, 1), 1 added to the norms'; and, called "expected.", images, the last hidden state and the result.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from dynsel_jax import models
from dynsel_jax.models import vit, vit_weights
from dynsel_jax.models.weights import Weights
from dynsel_jax.options import UserError
from tests.support import ROOT

KEY = jax.random.key(0)
SIZES = vit.Sizes(4, 16, 2, 2, 24, epsilon=1e-12)
DATA = ROOT / "tests" / "data"


def _images(arrays):
  return jnp.asarray(arrays["expected.images"].transpose(0, 2, 3, 1))


def _init(module, images):
  return jax.jit(lambda: module.init(KEY, images, jnp.ones(len(images), bool), train=False)["params"])()


def test_logits_are_those_of_hugging_face():
  path = DATA / "tiny_vit.safetensors"
  arrays = safetensors.numpy.load_file(path)
  module, images = vit.ViT(5, SIZES, weights=str(path)), _images(arrays)
  fresh = _init(module, images)
  params = models.pretrained(module, fresh)
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)
  np.testing.assert_array_equal(params["head"]["kernel"], fresh["head"]["kernel"])  # the head is new by intent
  params["head"] = {"kernel": arrays["classifier.weight"].T, "bias": arrays["classifier.bias"]}
  run = jax.jit(lambda p, x: module.apply({"params": p}, x, jnp.ones(3, bool), train=True))
  logits, stages = run(params, images)
  np.testing.assert_allclose(stages["layer_2"], arrays["expected.hidden"], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(logits, arrays["expected.result"], rtol=1e-4, atol=1e-5)


def test_clips_image_encoder_is_the_one_of_hugging_face(monkeypatch):
  monkeypatch.setattr(vit_weights, "CLIP_HEAD_WIDTH", 8)
  path = DATA / "tiny_clip.safetensors"
  arrays = safetensors.numpy.load_file(path)
  weights = Weights("features.path", path)
  sizes, side = vit_weights.clip_sizes(weights)
  assert (sizes, side) == (vit.Sizes(4, 16, 2, 2, 24, 1e-5, True), 12)
  tower = vit_weights.clip_tower(weights, sizes, side)
  stages = jax.jit(lambda p, x: vit.Tower(sizes).apply({"params": p}, x))(tower, _images(arrays))
  np.testing.assert_allclose(stages["layer_2"], arrays["expected.hidden"], rtol=1e-4, atol=2e-5)
  result = stages["features"] @ arrays["visual_projection.weight"].T
  np.testing.assert_allclose(result, arrays["expected.result"], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
  ("name", "size", "patch", "layers", "heads", "width", "hidden"),
  [("L/14", 224, 14, 24, 16, 1024, 4096), ("B/32", 224, 32, 12, 12, 768, 3072)],
)
def test_clips_sizes_are_told_by_the_shapes(name, size, patch, layers, heads, width, hidden):
  class Shapes:
    names = frozenset(f"vision_model.encoder.layers.{number}.mlp.fc1.bias" for number in range(layers))

    def shape(self, name, rank):
      return {
        "vision_model.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": (1 + (size // patch) ** 2, width),
        "vision_model.encoder.layers.0.mlp.fc1.weight": (hidden, width),
      }[name]

  sizes, side = vit_weights.clip_sizes(Shapes())
  assert (sizes, side) == (vit.Sizes(patch, width, layers, heads, hidden, 1e-5, True), size)
  tower = jax.eval_shape(lambda: vit.Tower(sizes).init(KEY, jnp.zeros((1, size, size, 3))))
  # Hugging Face's count, with a projection to 768 and to 512.
  projected = {"L/14": 303_966_208 - 1024 * 768, "B/32": 87_849_216 - 768 * 512}
  assert sum(leaf.size for leaf in jax.tree.leaves(tower)) == projected[name]


@pytest.mark.parametrize(
  ("change", "line"),
  [
    ("missing", "has no array 'vit.encoder.layer.1.intermediate.dense.bias'"),
    ("shape", r"'vit.encoder.layer.1.intermediate.dense.bias' has shape \(23,\), the model needs \(24,\)"),
    ("extra", r"has 1 array\(s\) that the model does not use, such as 'vit.encoder.layer.2.layernorm_before.bias'"),
  ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, line):
  arrays = safetensors.numpy.load_file(DATA / "tiny_vit.safetensors")
  name = "vit.encoder.layer.1.intermediate.dense.bias"
  if change == "extra":
    arrays["vit.encoder.layer.2.layernorm_before.bias"] = np.zeros(16)
  else:
    arrays = {n: (a[1:].copy() if change == "shape" else None) if n == name else a for n, a in arrays.items()}
  arrays = {n: a for n, a in arrays.items() if a is not None}
  safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
  with pytest.raises(UserError, match=line):
    vit_weights.vit_tower(Weights("model.weights", tmp_path), SIZES, 10)


def test_images_are_resized_for_a_tower_of_one_size():
  module = vit.ViT(3, SIZES, side=8)
  images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 3)), jnp.float32)
  params = _init(module, images)
  assert params["tower"]["positions"].shape == (5, 16)
  params["head"]["kernel"] = jnp.ones((16, 3)) * jnp.arange(1.0, 17.0)[:, None]
  run = jax.jit(lambda x: module.apply({"params": params}, x, jnp.ones(2, bool), train=False)[0])
  np.testing.assert_allclose(run(images), run(jax.image.resize(images, (2, 8, 8, 3), "cubic")), rtol=1e-5)
  assert np.abs(run(images)[0] - run(images)[1]).max() > 1e-3


def test_what_cannot_be_cut_or_read_is_named(tmp_path):
  with pytest.raises(UserError, match="model.patch=4 must divide the sides of the images, 10x12"):
    jax.eval_shape(lambda: vit.Tower(SIZES).init(KEY, jnp.zeros((1, 10, 12, 3))))
  with pytest.raises(UserError, match=r"model.patch=0 must be greater than 0"):
    models.create("vit_small", 10, patch=0)
  with pytest.raises(UserError, match="model.weights=.*none.safetensors is not a safetensors file"):
    models.create("vit_b16", 10, weights=str(tmp_path / "none.safetensors"))
  with pytest.raises(UserError, match="model.name=vgg16 needs images of at least 32x32, not 28x28"):
    jax.eval_shape(
      lambda: models.create("vgg16", 10).init(KEY, jnp.zeros((1, 28, 28, 3)), jnp.ones(1, bool), train=False)
    )
