"""The masked autoencoder against Hugging Face's, on stored random weights, images, noise and outputs.

`tests/data/tiny_vit_mae.safetensors` holds the `state_dict` of `ViTMAEForPreTraining` of transformers 5.24 (image_size
32, patch_size 8, hidden_size 24, 2 layers, 4 heads, intermediate_size 48, a decoder of 16, 2 layers, 2 heads, 32;
random weights); and, called "expected.", what it computed from images and noise in float32 on a CPU.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from dynsel_jax import models
from dynsel_jax.models import vit, vit_mae, vit_weights
from dynsel_jax.models.weights import Weights
from dynsel_jax.options import UserError
from dynsel_jax.tasks import masked_image
from dynsel_jax.training import optimizers
from tests.support import ROOT

PATH = ROOT / "tests" / "data" / "tiny_vit_mae.safetensors"
ENCODER = vit.Sizes(8, 24, 2, 4, 48, epsilon=1e-12)
DECODER = vit.Sizes(width=16, layers=2, heads=2, hidden=32, epsilon=1e-12)
PIXELS = 8 * 8 * 3


@pytest.fixture(scope="module")
def arrays():
  return safetensors.numpy.load_file(PATH)


@pytest.fixture(scope="module")
def batch(arrays):
  images = jnp.asarray(arrays["expected.images"].transpose(0, 2, 3, 1))
  visible = jnp.argsort(jnp.asarray(arrays["expected.noise"]), axis=1)[:, :4]
  return {"images": images, "visible": visible}


@pytest.fixture(scope="module")
def module():
  return vit_mae.MaskedAutoencoder(PIXELS, ENCODER, DECODER, weights=str(PATH))


@pytest.fixture(scope="module")
def params(module, batch):
  fresh = jax.eval_shape(lambda: module.init(jax.random.key(0), batch, jnp.ones(3, bool), train=False)["params"])
  read = models.pretrained(module, fresh)
  assert jax.tree.map(jnp.shape, read) == jax.tree.map(jnp.shape, fresh)
  return read


def _run(module, params, inputs):
  return jax.jit(lambda p, x: module.apply({"params": p}, x, jnp.ones(3, bool), train=True))(params, inputs)


def test_outputs_losses_and_gradients_are_those_of_hugging_face(module, params, batch, arrays):
  def mean_loss(params):
    outputs, stages = module.apply({"params": params}, batch, jnp.ones(3, bool), train=True)
    pixels = vit.patches(batch["images"], 8)
    losses = [
      masked_image.reconstruction_loss(outputs, pixels, batch["visible"], normalized=chosen) for chosen in (False, True)
    ]
    return losses[0].mean(), (outputs, stages, pixels, losses)

  grads, (outputs, stages, pixels, losses) = jax.jit(jax.grad(mean_loss, has_aux=True))(params)
  np.testing.assert_array_equal(pixels[0], arrays["expected.patches_of_image_0"])
  np.testing.assert_allclose(stages["normalized"], arrays["expected.hidden"], rtol=1e-4, atol=2e-5)
  np.testing.assert_allclose(outputs, arrays["expected.result"], rtol=1e-4, atol=2e-5)
  np.testing.assert_allclose(losses[0], arrays["expected.losses"], rtol=1e-5)
  np.testing.assert_allclose(losses[1], arrays["expected.losses_normalized"], rtol=1e-5)
  tower = grads["tower"]
  assert not tower["fixed_positions"].any() and not grads["fixed_decoder_positions"].any()
  for found, name in (
    (tower["class_token"][None, None], "grad_class_token"),
    (grads["mask_token"][None, None], "grad_mask_token"),
    (tower["patch_embedding"]["kernel"].reshape(8, 8, 3, 24).transpose(3, 2, 0, 1), "grad_patch"),
    (grads["head"]["bias"], "grad_head"),
  ):
    np.testing.assert_allclose(found, arrays[f"expected.{name}"], rtol=1e-3, atol=1e-5)


def test_images_alone_are_encoded_whole(module, params, batch, arrays):
  outputs, stages = _run(module, params, batch["images"])
  np.testing.assert_allclose(stages["normalized"], arrays["expected.hidden_unmasked"], rtol=1e-4, atol=2e-5)
  in_order = jnp.broadcast_to(jnp.arange(16), (3, 16))
  same, _ = _run(module, params, {"images": batch["images"], "visible": in_order})
  np.testing.assert_allclose(outputs, same, rtol=1e-5, atol=1e-6)


def test_the_masked_pixels_are_never_seen(module, params, batch):
  masked = jnp.ones((3, 16), bool).at[jnp.arange(3)[:, None], batch["visible"]].set(False)
  hidden = jnp.repeat(jnp.repeat(masked.reshape(3, 4, 4), 8, axis=1), 8, axis=2)[..., None]
  damaged = {**batch, "images": jnp.where(hidden, 99.0, batch["images"])}
  np.testing.assert_array_equal(_run(module, params, damaged)[0], _run(module, params, batch)[0])


def test_positions_tell_column_and_row():
  found = vit.sine_cosine(2, 3, 8)
  assert found.shape == (7, 8) and not found[0].any()
  for place in range(6):
    row, column = divmod(place, 3)
    waves = [wave(value / 10000 ** (i / 2)) for value in (column, row) for wave in (np.sin, np.cos) for i in range(2)]
    np.testing.assert_allclose(found[1 + place], waves, atol=1e-6)
  with pytest.raises(UserError, match="a width of 6 has no sine-cosine position embeddings"):
    vit.sine_cosine(2, 2, 6)


def test_a_classifier_starts_from_the_file_of_a_masked_autoencoder(params, batch):
  module = vit.ViT(5, ENCODER, weights=str(PATH))
  init = jax.eval_shape(lambda: module.init(jax.random.key(0), batch["images"], jnp.ones(3, bool), train=False))
  read = models.pretrained(module, {**init["params"], "head": "fresh"})
  assert read["head"] == "fresh"
  np.testing.assert_array_equal(read["tower"]["positions"], params["tower"]["fixed_positions"])
  np.testing.assert_array_equal(
    read["tower"]["layer_2"]["hidden"]["kernel"], params["tower"]["layer_2"]["hidden"]["kernel"]
  )


def test_parts_of_another_runs_model_are_taken(module, params):
  classifier = vit.ViT(5, ENCODER)
  like = jax.eval_shape(
    lambda: classifier.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.ones(1, bool), train=False)["params"]
  )
  taken = models.from_run("model.weights=RUN", classifier, like, params)
  assert taken["head"] is like["head"]
  np.testing.assert_array_equal(taken["tower"]["positions"], params["tower"]["fixed_positions"])
  np.testing.assert_array_equal(taken["tower"]["class_token"], params["tower"]["class_token"])
  whole = models.from_run("model.weights=RUN", module, params, params)
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, whole, params)))


def _narrow(held):
  layer = {**held["tower"]["layer_2"], "hidden": {"kernel": np.zeros((24, 40)), "bias": np.zeros(40)}}
  return {**held, "tower": {**held["tower"], "layer_2": layer}}


@pytest.mark.parametrize(
  ("change", "line"),
  [
    (_narrow, r"'tower/layer_2/hidden/bias' is of shape \(40,\), and in this model it is of shape \(48,\)"),
    (lambda held: {"encoder": {}, "head": {}}, "holds a model of encoder, head, of which this one has none but the"),
  ],
)
def test_a_run_whose_model_does_not_fit_is_named(module, params, change, line):
  with pytest.raises(UserError, match=line) as error:
    models.from_run("model.weights=RUN", module, params, change(params))
  assert str(error.value).startswith("model.weights=RUN") and "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("name", "change", "line"),
  [
    ("decoder.decoder_pred.weight", lambda a: a[:, :8], r"'decoder.decoder_pred.weight' has shape \(192, 8\)"),
    ("decoder.mask_token", None, "has no array 'decoder.mask_token'"),
    ("decoder.decoder_pos_embed", lambda a: a[:, :5], r"shape \(1, 5, 16\), the model needs \(1, 17, 16\)"),
    ("decoder.decoder_layers.2.output.dense.bias", np.zeros, r"1 array\(s\) that the model does not use"),
    (
      "vit.embeddings.patch_embeddings.projection.weight",
      lambda a: a[:, :1],
      "its patches have 8x8 pixels of 1 channels, and the task's 192 numbers",
    ),
  ],
)
def test_weights_that_do_not_fit_are_named(arrays, tmp_path, name, change, line):
  held = {key: array for key, array in arrays.items() if not key.startswith("expected.") and key != name}
  if change is not None:
    held[name] = np.ascontiguousarray(change(arrays[name]) if name in arrays else change(16))
  safetensors.numpy.save_file(held, tmp_path / "model.safetensors")
  with pytest.raises(UserError, match=line) as error:
    vit_weights.mae_params(Weights("model.weights", tmp_path), ENCODER, DECODER, 17, PIXELS)
  assert str(error.value).startswith("model.weights=") and "\n" not in str(error.value)


@pytest.mark.parametrize("decay_all", [False, True])
@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_weight_decay_passes_fixed_positions_over(name, decay_all):
  params = {"tower": {"fixed_positions": jnp.ones((2, 2)), "kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
  always = "decay_all" not in optimizers.defaults(name)
  tx = optimizers.create(name, weight_decay=0.5, **({} if always else {"decay_all": decay_all}))
  tx, now = optax.with_extra_args_support(tx), {"learning_rate": jnp.float32(1.0), "progress": jnp.float32(0.0)}
  with jax.numpy_dtype_promotion("standard"):
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params, **now)
  changed = {key: bool(update.any()) for key, update in updates["tower"].items()}
  assert changed == {"fixed_positions": False, "kernel": True, "bias": decay_all or always}


def test_outputs_that_are_no_patches_are_refused():
  assert vit_mae.patch_of(48, 3) == 4 and vit_mae.patch_of(1, 1) == 1
  for num_outputs, channels in ((10, 1), (10, 3), (2, 3)):
    with pytest.raises(UserError, match="train it with task=masked_image"):
      vit_mae.patch_of(num_outputs, channels)
  with pytest.raises(UserError, match="model.encoder='vit_tiny' is not known; known: vit_b16, vit_l16, vit_micro"):
    models.create("vit_mae", 48, encoder="vit_tiny")
  assert models.create("vit_mae", 48, encoder="vit_l16").decoder == vit.Sizes(16, 512, 8, 16, 2048, 1e-12)
