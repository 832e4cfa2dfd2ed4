"""GraNd and MoSo, against stored reference outputs and against gradients made one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import models
from dynsel_jax.coresets import gradients
from tests.support import oracles

RNG = np.random.default_rng(0)


def _cross_entropy(logits, label):
  return jax.nn.logsumexp(logits) - logits[label]


def _tanh_loss(params, sample):
  inputs, label = sample
  hidden = jnp.tanh(inputs @ params["weight1"] + params["bias1"])
  return _cross_entropy(hidden @ params["weight2"] + params["bias2"], label)


def _linear_loss(params, sample):
  inputs, label = sample
  return _cross_entropy(inputs @ params["weight"] + params["bias"], label)


@functools.cache
def _linear():
  params = {
    "weight": jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32),
    "bias": jnp.asarray(RNG.normal(size=3), jnp.float32),
  }
  return params, (jnp.asarray(RNG.normal(size=(11, 4)), jnp.float32), jnp.asarray(RNG.integers(0, 3, 11), jnp.int32))


def _one_by_one(params, samples):
  """The gradients of the linear model as rows, in numpy and float64."""
  inputs, labels = np.asarray(samples[0], np.float64), np.asarray(samples[1])
  logits = inputs @ np.asarray(params["weight"], np.float64) + np.asarray(params["bias"], np.float64)
  error = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[labels]
  return np.concatenate([(inputs[:, :, None] * error[:, None, :]).reshape(len(inputs), -1), error], axis=1)


@pytest.mark.parametrize("block", [24, 100])  # with a rest, and larger than the data
def test_grand_equals_the_reference(block):
  want = oracles.load("el2n_grand_margin")
  params = {name: jnp.asarray(want[name], jnp.float32) for name in ("weight1", "bias1", "weight2", "bias2")}
  samples = (jnp.asarray(want["inputs"], jnp.float32), jnp.asarray(want["labels"], jnp.int32))
  got = gradients.grand(_tanh_loss, params, samples, block=block)
  np.testing.assert_allclose(got, want["grand_full_gradient_norm"], rtol=1e-5)


def test_grand_of_the_last_layer_equals_the_reference():
  want = oracles.load("el2n_grand_margin")
  got = gradients.grand_last_layer(
    jnp.asarray(want["probabilities"], jnp.float32),
    jnp.asarray(want["labels"], jnp.int32),
    jnp.asarray(want["hidden"], jnp.float32),
  )
  np.testing.assert_allclose(got, want["reference_last_layer_gradient_norm"], rtol=1e-5)


def test_last_layer_of_a_model_equals_the_gradient_of_its_head():
  model = models.create("mlp", 3, hidden=(5,))
  inputs, labels = (
    jnp.asarray(RNG.normal(size=(6, 2, 2, 1)), jnp.float32),
    jnp.asarray(RNG.integers(0, 3, 6), jnp.int32),
  )
  variables = model.init(jax.random.key(0), inputs, jnp.ones(6, bool), train=False)
  params = variables["params"]

  def loss_of_head(head, sample):
    image, label = sample
    logits, _ = model.apply({"params": {**params, "head": head}}, image[None], jnp.ones(1, bool), train=False)
    return _cross_entropy(logits[0], label)

  logits, intermediates = model.apply(variables, inputs, jnp.ones(6, bool), train=False)
  got = gradients.grand_last_layer(jax.nn.softmax(logits), labels, intermediates["features"])
  np.testing.assert_allclose(got, gradients.grand(loss_of_head, params["head"], (inputs, labels)), rtol=1e-5)


@pytest.mark.parametrize("block", [11, 32])  # all at once, and larger than the data
def test_gradient_products_equal_those_of_gradients_made_one_by_one(block):
  params, samples = _linear()
  rows = _one_by_one(params, samples)
  mean = rows.mean(0)
  got = gradients.gradient_products(_linear_loss, params, samples, block=block)
  np.testing.assert_allclose(got.squared_norm, (rows**2).sum(1), rtol=1e-5)
  np.testing.assert_allclose(got.with_mean, rows @ mean, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(got.mean_squared_norm, mean @ mean, rtol=1e-5)
  assert got.num_samples == 11


def test_moso_is_the_published_formula():
  params, samples = _linear()
  rows, n = _one_by_one(params, samples), 11
  mean = rows.mean(0)
  want = (2 * n - 3) / (n - 1) ** 2 * (mean @ mean) - (rows**2).sum(1) / (n - 1) ** 2
  want += (2 * n - 4) / (n - 1) ** 2 * ((mean - rows / n) * rows).sum(1)
  got = gradients.moso(gradients.gradient_products(_linear_loss, params, samples, block=32), 0.25)
  np.testing.assert_allclose(got, 0.25 * want, rtol=1e-4, atol=1e-7)


def test_moso_is_low_for_a_sample_against_the_common_direction():
  params, (inputs, labels) = _linear()
  params = jax.tree.map(jnp.zeros_like, params)
  inputs = jnp.ones_like(inputs) + 0.1 * inputs
  labels = jnp.zeros_like(labels).at[7].set(1)  # one wrong label among samples that pull together
  got = gradients.moso(gradients.gradient_products(_linear_loss, params, (inputs, labels), block=32), 1.0)
  assert np.argmin(got) == 7


def test_a_nan_spoils_one_sample_only():
  params, (inputs, labels) = _linear()
  spoilt = (inputs.at[5, 0].set(jnp.nan), labels)
  rows = np.delete(_one_by_one(params, (inputs, labels)), 5, axis=0)
  got = gradients.gradient_products(_linear_loss, params, spoilt, block=4)  # with a rest of three
  assert got.num_samples == 10 and np.isnan(gradients.moso(got, 1.0)[5])
  np.testing.assert_allclose(np.delete(got.with_mean, 5), rows @ rows.mean(0), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(np.delete(got.squared_norm, 5), (rows**2).sum(1), rtol=1e-5)
  norms = gradients.grand(_linear_loss, params, spoilt)
  np.testing.assert_array_equal(np.isnan(norms), np.arange(11) == 5)
