"""The fast recipe of CIFAR-10: its network, optimizer and augmentations against their definitions; one smoke run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10_fast
from dynsel_jax import data, models, offline, options
from dynsel_jax.data import gather
from dynsel_jax.training import optimizers
from dynsel_jax.training.state import TrainState

SMALL = {"widths": (8, 12), "views": 6}


def _images(count=6, side=10):
  return jax.random.normal(jax.random.key(5), (count, side, side, 3))


def _network(**options):
  module = models.create("fast_net", 4, **{**SMALL, **options})
  variables = module.init(jax.random.key(0), _images(), jnp.ones(6, bool), train=False)
  stats = module.with_statistics(variables["batch_stats"], _images(200))
  return module, {**variables, "batch_stats": stats}


def test_the_first_convolution_whitens_patches():
  module, variables = _network()
  images = np.asarray(_images(200))
  kernel = np.asarray(variables["batch_stats"]["whitening"]).reshape(12, 24)
  patches = np.stack([images[:, i : i + 9, j : j + 9] for i in (0, 1) for j in (0, 1)], axis=-2).reshape(-1, 12)
  outputs = patches @ kernel
  np.testing.assert_allclose(outputs[:, :12].T @ outputs[:, :12] / len(patches), np.eye(12), atol=2e-3)
  np.testing.assert_array_equal(kernel[:, 12:], -kernel[:, :12])


def test_convolutions_begin_as_the_identity_on_their_first_channels():
  _, variables = _network()
  kernel = np.asarray(variables["params"]["group_2"]["conv_2"]["kernel"])
  x = np.random.default_rng(0).standard_normal((2, 5, 5, 12)).astype(np.float32)
  out = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
  np.testing.assert_allclose(out, x, atol=1e-6)


def test_evaluation_averages_over_the_views():
  module, variables = _network()
  plain = module.clone(views=1)
  images, valid = _images(), jnp.ones(6, bool)
  framed = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
  expected = 0.0
  for weight, view in ((0.5, images), (0.25, framed[:, :-2, :-2]), (0.25, framed[:, 2:, 2:])):
    for seen in (view, view[:, :, ::-1]):
      expected = expected + weight / 2 * plain.apply(variables, jnp.asarray(seen), valid, train=False)[0]
  outputs, intermediates = module.apply(variables, images, valid, train=False)
  np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
  assert intermediates["features"].shape == (6, 12)


def test_the_optimizer_is_nesterov_sgd_with_lookahead_written_out():
  params = {"kernel": np.array([[1.0, -2.0]]), "bias": np.array([3.0])}
  tx = optimizers.create("lookahead_sgd", momentum=0.9, weight_decay=0.1, bias_multiplier=8.0, every=2, decay=0.7)
  start = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
  state = TrainState.create(apply_fn=None, params=start, tx=tx, batch_stats={})
  fast, slow, trace = dict(params), dict(params), {name: 0.0 for name in params}
  for step, value in enumerate((0.5, -1.0, 2.0, 1.5, 0.25)):
    progress = step / 5
    grads = {name: jnp.full(jnp.shape(leaf), value, jnp.float32) for name, leaf in params.items()}
    state = state.apply_gradients(grads=grads, learning_rate=jnp.float32(0.01), progress=jnp.float32(progress))
    for name in params:
      multiplier = 8.0 if name == "bias" else 1.0
      grad = value + 0.1 / multiplier * fast[name]
      trace[name] = 0.9 * trace[name] + grad
      fast[name] = fast[name] - 0.01 * multiplier * (grad + 0.9 * trace[name])
      if step % 2 == 1:
        d = 0.7 * progress**3
        slow[name] = fast[name] = d * slow[name] + (1 - d) * fast[name]
  for name in params:
    np.testing.assert_allclose(state.params[name], fast[name], rtol=1e-5)


def test_a_shift_is_a_crop_of_the_reflected_image_and_a_cutout_a_black_square():
  images = jax.random.randint(jax.random.key(1), (40, 14, 14, 3), 1, 256).astype(jnp.uint8)
  shifted = np.asarray(gather.AUGMENTATIONS["shift_2"](jax.random.split(jax.random.key(2), 40), images))
  framed = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
  seen = set()
  for image, frame in zip(shifted, framed, strict=True):
    places = {(i, j) for i in range(5) for j in range(5) if np.array_equal(image, frame[i : i + 14, j : j + 14])}
    assert places
    seen |= places
  assert len(seen) > 15  # of 25
  cut = np.asarray(gather.AUGMENTATIONS["cutout_12"](jax.random.split(jax.random.key(3), 40), images))
  black = (cut == 0).all(axis=-1)
  assert np.all(black.sum(axis=(1, 2)) == 144)
  np.testing.assert_array_equal(cut[~black], np.asarray(images)[~black])
  corners = {tuple(np.argwhere(mask)[0]) for mask in black}
  assert {c for pair in corners for c in pair} == {0, 1, 2}


@pytest.mark.parametrize("option", [{"views": 3}, {"convolutions": 4}, {"widths": ()}])
def test_a_wrong_option_is_named(option):
  with pytest.raises(options.UserError, match=f"model.{next(iter(option))}="):
    models.create("fast_net", 10, **option)


def test_images_that_the_groups_would_halve_to_nothing_are_refused():
  with pytest.raises(options.UserError, match="with 2 model.widths needs images of at least 5x5, not 4x6"):
    models.create("fast_net", 4, **SMALL).init(
      jax.random.key(0), jnp.zeros((2, 4, 6, 3)), jnp.ones(2, bool), train=False
    )


def test_a_smoke_run_learns_to_tell_colours_apart(tmp_path):
  rng = np.random.default_rng(0)

  def of(count):
    labels = rng.integers(0, 2, count).astype(np.int32)
    images = rng.integers(0, 120, (count, 20, 20, 3)).astype(np.uint8)
    images[..., 0] += (100 * labels[:, None, None]).astype(np.uint8)
    return {"inputs": images, "labels": labels}

  source = data.from_arrays("colours", of(256), of(64), num_classes=2)
  config = cifar10_fast.get_config("size=smoke")
  config.batch_size, config.eval_batch_size, config.epochs = 32, 64, 2
  config.dataset.augmentations = ("flip", "shift_2")
  config.model.update(widths=(8, 8), convolutions=3)
  result = offline.train_and_evaluate(config, tmp_path, prepare=lambda section, cache_dir: source)
  assert result.summary["final_metric"] > 0.9
  assert np.any(np.asarray(result.state.train.batch_stats["whitening"]))


def test_presets_differ_in_size_and_length():
  small, large = (cifar10_fast.get_config(f"preset={preset}") for preset in ("94", "96"))
  assert small.epochs < large.epochs
  assert small.model.widths < large.model.widths
  with pytest.raises(options.UserError, match="preset"):
    cifar10_fast.get_config("preset=99")
