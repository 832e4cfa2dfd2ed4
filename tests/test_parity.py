"""The study of parity: its table, what it refuses, and that the twin in PyTorch is the same network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dynsel_jax import models
from dynsel_jax.options import UserError
from experiments.studies import parity, torch_twin
from tests.support import small_runs


def test_the_table_has_the_means_and_the_interval_of_their_difference():
  rng = np.random.default_rng(0)
  accuracies = {
    (str(seed), init, str(decay), side): float(rng.uniform(0.7, 0.8))
    for seed in range(5)
    for init, decay in parity.RECIPES
    for side in parity.SIDES
  }
  row = parity.table(accuracies).splitlines()[2 + parity.RECIPES.index(("torch", True))]
  ours, theirs = (
    [100 * value for cell, value in accuracies.items() if cell[1:] == ("torch", "True", side)] for side in parity.SIDES
  )
  low, high = stats.ttest_ind(theirs, ours, equal_var=False).confidence_interval()
  assert row.startswith("| `torch` | everything | ")
  assert f"| {np.mean(ours):.2f} ± {np.std(ours, ddof=1):.2f} | {np.mean(theirs):.2f} ±" in row
  assert row.endswith(f"| {np.mean(theirs) - np.mean(ours):+.2f} [{low:+.2f}, {high:+.2f}] |")


@pytest.mark.parametrize(
  ("selector", "changes", "line"),
  [
    ("random", {}, "selector.name=random: the study compares selector=full"),
    ("full", {}, "model.name=mlp: the study compares residual networks"),
  ],
)
def test_what_has_no_twin_is_refused_before_anything_is_written(tmp_path, selector, changes, line):
  with pytest.raises(UserError, match=line):
    parity.study(small_runs.config(selector, **changes), tmp_path / "parity")
  assert not (tmp_path / "parity").exists()


def _pairs(params):
  """Yields the layers of a residual network in the order of PyTorch's modules."""
  yield params["stem"]
  for _, block in sorted((name, layer) for name, layer in params.items() if name.startswith("stage")):
    yield from (block[name] for name in sorted(block, key=lambda name: (name == "shortcut", name)))


@pytest.mark.parametrize(
  ("name", "options"),
  [("resnet_patch", {"width": 6}), ("resnet_patch", {"width": 4, "stem_stride": 2, "init": "torch"})],
)
def test_the_twin_computes_the_same_outputs(name, options):
  torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
  module = models.create(name, 3, **options)
  images = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
  variables = module.init(jax.random.key(0), jnp.asarray(images), jnp.ones(4, bool), train=False)
  twin = torch_twin.network(module, 3)
  convs = [layer for layer in twin.modules() if isinstance(layer, torch.nn.Conv2d)]
  spread = {"he_fan_out": lambda w: 2 / (w.shape[0] * w.shape[2] ** 2), "torch": lambda w: 1 / (3 * w[0].numel())}
  for layer in convs:
    assert float(layer.weight.detach().var()) == pytest.approx(spread[module.initial](layer.weight), rel=0.5)
  layers = list(_pairs(variables["params"]))
  assert len(convs) == len(layers)
  with torch.no_grad():
    for conv, layer in zip(convs, layers, strict=True):
      kernel = np.asarray(layer["conv"]["kernel"])
      kernel = kernel[None, None] if kernel.ndim == 2 else kernel
      conv.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
    twin[-1].weight.copy_(torch.from_numpy(np.asarray(variables["params"]["head"]["kernel"]).T.copy()))
    twin[-1].bias.zero_()
    theirs = twin.train()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
  (ours, _), _ = module.apply(variables, jnp.asarray(images), jnp.ones(4, bool), train=True, mutable=["batch_stats"])
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_decay_is_left_off_scales_and_biases_unless_asked_for():
  torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
  twin = torch_twin.network(models.create("resnet_patch", 3, width=4), 3)
  settings = small_runs.config("full").optimizer
  optimizer = torch_twin._optimizer(torch, twin, settings)
  groups = [(group["weight_decay"] > 0, {p.ndim > 1 for p in group["params"]}) for group in optimizer.param_groups]
  assert groups == [(True, {True}), (False, {False})]
  settings.decay_all = True
  (everything,) = torch_twin._optimizer(torch, twin, settings).param_groups
  assert len(everything["params"]) == len(list(twin.parameters()))
