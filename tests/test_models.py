import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import models
from dynsel_jax.models.resnet import ResidualBlock
from dynsel_jax.models.vgg import VGG
from dynsel_jax.options import UserError

OWN = """
import jax.numpy as jnp
from flax import linen as nn

class Scores(nn.Module):
  num_outputs: int
  width: int

  @nn.compact
  def __call__(self, inputs, valid, *, train):
    features = nn.tanh(nn.Dense(self.width)(inputs.reshape(len(inputs), -1)))
    return nn.Dense(self.num_outputs, name="head")(features), {"features": features}

def net(num_outputs, dtype, axis_name, *, width=6):
  return Scores(num_outputs, width)

def table(num_outputs, dtype, axis_name):
  return {"width": num_outputs}

constant = 3
"""

KEY = jax.random.key(0)
# Their outputs are no row of numbers: tests/test_decoder.py, tests/test_masked_image.py.
OF_PARTS = ("decoder", "decoder_pretrained", "vit_mae")


def _shapes(model, size=32, train=False):
  """Returns variables and the result of a forward pass on four images or texts as shapes, nothing computed."""
  text = models.reads_text(model)
  inputs = jax.ShapeDtypeStruct((4, size), jnp.int32) if text else jax.ShapeDtypeStruct((4, size, size, 3), jnp.float32)
  valid = jax.ShapeDtypeStruct((4,), jnp.bool_)
  variables = jax.eval_shape(lambda x, v: model.init(KEY, x, v, train=False), inputs, valid)
  return variables, jax.eval_shape(lambda *a: model.apply(*a, train=train), variables, inputs, valid)


@pytest.mark.parametrize(
  ("name", "count"),
  [("resnet18", 11_173_962), ("resnet34", 21_282_122), ("resnet50", 23_520_842), ("mlp", 411_146)]
  # The convolutions of torchvision's vgg16_bn and a head; Hugging Face's ViTs of the same sizes.
  + [("vgg16", 14_723_136 + 5_130), ("vit_b16", 85_806_346), ("vit_small", 21_342_346)],
)
def test_parameter_counts(name, count):
  variables, _ = _shapes(models.create(name, 10))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


@pytest.mark.parametrize(
  ("name", "count"), [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)]
)
def test_the_stem_for_imagenet_is_torchvisions(name, count):
  variables, (_, stages) = _shapes(models.create(name, 1000, imagenet_stem=True), size=224)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count
  assert [stages[f"stage_{stage}"].shape[1] for stage in (1, 2, 3, 4)] == [56, 28, 14, 7]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", sorted(set(models.MODELS) - set(OF_PARTS)))
def test_every_model_keeps_the_contract(name, dtype):
  variables, (outputs, intermediates) = _shapes(models.create(name, 7, dtype=dtype, axis_name="batch"))
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
  assert outputs.shape == (4, 7) and outputs.dtype == jnp.float32
  features = intermediates["features"]
  assert features.shape == (4, variables["params"]["head"]["kernel"].shape[0]) and features.dtype == jnp.float32
  inner = [stage for stage in intermediates if stage != "features"]
  assert inner and all(intermediates[stage].dtype == dtype for stage in inner)


def test_resnet_halves_the_image_from_stage_to_stage():
  for name, widths in (("resnet18", (64, 128, 256, 512)), ("resnet50", (256, 512, 1024, 2048))):
    _, (_, stages) = _shapes(models.create(name, 10))
    assert stages["stem"].shape == (4, 32, 32, 64)
    for stage, (width, side) in enumerate(zip(widths, (32, 16, 8, 4), strict=True), start=1):
      assert stages[f"stage_{stage}"].shape == (4, side, side, width)


@pytest.mark.parametrize(("size", "stem_stride", "sides"), [(32, 2, (16, 8)), (28, 4, (7, 4)), (8, 2, (4, 2))])
def test_patch_stem_shrinks_images_of_any_size(size, stem_stride, sides):
  model = models.create("resnet_patch", 10, width=8, stem_stride=stem_stride, stages=2)
  _, (_, stages) = _shapes(model, size=size)
  for stage, side in enumerate(sides, start=1):
    assert stages[f"stage_{stage}"].shape == (4, side, side, 8 * stage)


@pytest.mark.parametrize(
  ("name", "options"),
  [("mlp", {"hidden": (8, 6)}), ("resnet_patch", {"width": 4, "stem_stride": 2, "stages": 1})],
)
def test_padding_never_reaches_the_valid_rows(name, options):
  model = models.create(name, 5, **options)
  rng = np.random.default_rng(0)
  inputs = jnp.asarray(rng.normal(size=(6, 8, 8, 3)), jnp.float32)
  valid = jnp.asarray([1, 1, 0, 1, 0, 1], bool)
  other = jnp.where(valid[:, None, None, None], inputs, 50 * jnp.flip(inputs, axis=0) + 3)
  variables = jax.jit(lambda: model.init(KEY, inputs, valid, train=False))()
  run = jax.jit(lambda x, valid: model.apply(variables, x, valid, train=True, mutable=["batch_stats"]))
  (outputs, stages), new = run(inputs, valid)
  (padded_outputs, _), padded_new = run(other, valid)
  kept = np.asarray(valid)
  np.testing.assert_allclose(padded_outputs[kept], outputs[kept], rtol=1e-5, atol=1e-5)
  for mine, theirs in zip(jax.tree.leaves(new), jax.tree.leaves(padded_new), strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
  assert (np.abs(padded_outputs[~kept] - outputs[~kept]) > 1e-3).any()
  head = variables["params"]["head"]
  np.testing.assert_allclose(stages["features"] @ head["kernel"] + head["bias"][None], outputs, rtol=1e-4, atol=1e-5)
  # Beside padding the valid rows are what they are alone in a batch.
  (alone, _), _ = run(inputs[kept], jnp.ones(4, bool))
  np.testing.assert_allclose(alone, outputs[kept], rtol=1e-4, atol=1e-5)


def _convolve(x, kernel, stride, pad):
  """Convolves `[B, H, W, C]` with `[k, k, C, D]` by looping over the places of the result."""
  size = kernel.shape[0]
  x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  side = (x.shape[1] - size) // stride + 1
  out = np.empty((len(x), side, side, kernel.shape[-1]))
  for i in range(side):
    for j in range(side):
      window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
      out[:, i, j] = np.tensordot(window, kernel, axes=3)
  return out


@pytest.mark.parametrize("bottleneck", [False, True])
def test_residual_block_is_the_one_of_the_paper(bottleneck):
  x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 6, 6, 4)), jnp.float32)
  block = ResidualBlock(5, 2, bottleneck, jnp.float32, None)
  valid = jnp.ones(3, bool)
  variables = jax.jit(lambda: block.init(KEY, x, valid, train=False))()
  params = jax.tree.map(np.asarray, variables["params"])

  def layer(name, x, stride):
    kernel = params[name]["conv"]["kernel"]
    kernel = kernel if kernel.ndim == 4 else kernel[None, None]
    return _convolve(x, kernel, stride, (kernel.shape[0] - 1) // 2) / np.sqrt(1 + 1e-5)  # fresh running statistics

  strides = {"layer_1": 1, "layer_2": 2, "layer_3": 1} if bottleneck else {"layer_1": 2, "layer_2": 1}
  branch = np.asarray(x)
  for position, (name, stride) in enumerate(strides.items(), start=1):
    branch = layer(name, branch, stride)
    branch = np.maximum(branch, 0) if position < len(strides) else branch
  expected = np.maximum(branch + layer("shortcut", np.asarray(x), 2), 0)
  result = jax.jit(lambda: block.apply(variables, x, valid, train=False))()
  np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_convolutions_start_with_the_spread_of_fan_out():
  block = ResidualBlock(64, 2, False, jnp.float32, None)
  x = jnp.zeros((1, 4, 4, 32))
  params = jax.jit(lambda: block.init(KEY, x, jnp.ones(1, bool), train=False)["params"])()
  np.testing.assert_allclose(np.std(params["layer_1"]["conv"]["kernel"]), np.sqrt(2 / (9 * 64)), rtol=0.03)
  np.testing.assert_allclose(np.std(params["shortcut"]["conv"]["kernel"]), np.sqrt(2 / 64), rtol=0.07)


def test_convolutions_start_as_pytorch_does_if_asked_for():
  small = VGG(3, ((32,), (32,)), initial="torch")
  for model in (models.create("resnet_patch", 3, init="torch"), small):
    variables = jax.jit(functools.partial(model.init, train=False))(KEY, jnp.zeros((1, 32, 32, 3)), jnp.ones(1, bool))
    kernels = [leaf for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim == 4]
    assert len(kernels) >= 2
    for kernel in kernels:
      bound = np.prod(kernel.shape[:-1]) ** -0.5
      assert 0.9 * bound < np.abs(kernel).max() <= 1.00001 * bound
      assert np.std(kernel) == pytest.approx(bound / 3**0.5, rel=0.1)  # variance 1 / (3 fan in)
  with pytest.raises(UserError, match="model.init='he' is not known; known: he_fan_out, torch"):
    models.create("vgg16", 3, init="he")


def test_wrong_names_and_values_are_refused():
  with pytest.raises(UserError, match="model.name='resnet19' is not known; known: .*mlp, resnet18"):
    models.create("resnet19", 10)
  with pytest.raises(UserError, match="model.name='vgg' is not known"):
    models.defaults("vgg")
  with pytest.raises(UserError, match="model 'mlp' has no option 'width'; its options: hidden"):
    models.create("mlp", 10, width=8)
  with pytest.raises(UserError, match="model 'resnet18' has no option 'width'; its options: imagenet_stem, init"):
    models.create("resnet18", 10, width=8)
  for options in ({"width": 0}, {"stages": 0}, {"stem_stride": 5}):
    ((field, value),) = options.items()
    with pytest.raises(UserError, match=f"{field}={value}"):
      models.create("resnet_patch", 10, **options)
  with pytest.raises(UserError, match=r"hidden=\(8, 0\)"):
    models.create("mlp", 10, hidden=(8, 0))


def test_defaults_are_the_options():
  assert models.defaults("mlp") == {"hidden": (128, 128)}
  assert set(models.defaults("resnet_patch")) == {"width", "stem_stride", "stages", "init"}
  for name in models.MODELS:
    model = models.create(name, 3, **models.defaults(name))
    assert name in OF_PARTS or model.num_outputs == 3


@pytest.fixture
def lab(tmp_path, monkeypatch):
  """A user's module on the path."""
  (tmp_path / "my_net.py").write_text(OWN)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(sys.modules, "my_net", raising=False)


def test_a_users_model_is_found_by_its_path(lab):
  assert models.defaults("my_net:net") == {"width": 6}
  model = models.create("my_net:net", 2, width=5)
  assert not models.reads_text(model)
  variables, (outputs, intermediates) = _shapes(model, size=4)
  assert outputs.shape == (4, 2) and intermediates["features"].shape == (4, 5)
  params = variables["params"]
  assert models.pretrained(model, params) is params


@pytest.mark.parametrize(
  ("name", "options", "line"),
  [
    ("my_net:net", {"depth": 2}, "model 'my_net:net' has no option 'depth'; its options: width"),
    ("my_net:net", {"width": "5"}, "model.width='5' must be"),
    ("my_net:nets", {}, "model.name='my_net:nets': module 'my_net' has no 'nets'"),
    ("my_nets:net", {}, "model.name='my_nets:net': there is no module 'my_nets'"),
    ("my_net:table", {}, "model.name='my_net:table' must return a flax.linen.Module, not dict"),
    ("my_net:constant", {}, "model.name='my_net:constant' must be a function, not int"),
  ],
)
def test_a_users_model_that_breaks_the_protocol_is_named(lab, name, options, line):
  with pytest.raises(UserError, match=line) as caught:
    models.create(name, 2, **options)
  assert "\n" not in str(caught.value)
