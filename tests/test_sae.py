"""The autoencoder against reference outputs, its rare operations against numpy, its gradients against differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dynsel_jax.factors import sae, sparse_ops
from tests.support import oracles


def dense(codes, num_latents):
  z = np.zeros((codes.indices.shape[0], num_latents), codes.values.dtype)
  np.put_along_axis(z, np.asarray(codes.indices), np.asarray(codes.values), axis=1)
  return z


@functools.partial(jax.jit, static_argnames=("k", "topk"))
def round_trip(params, x, k, topk):
  codes = sae.encode(params, x, k=k, topk=topk)
  return codes, sae.decode(params, codes)


def paper_case():
  ref = oracles.load("rrd_sae")
  params = sae.SAEParams(*(jnp.asarray(ref[name]) for name in ("W_e", "b_e", "b_d")))
  x = jnp.asarray(ref["x"])
  options = {
    "k": int(ref["k"]),
    "topk": "absolute",
    "dead_after": x.shape[0],  # a window of one batch, as the reference has it
    "revival_weight": float(ref["lambda_revive"]),
  }
  return ref, params, x, options


def test_paper_rule_matches_the_reference():
  with jax.enable_x64(True):
    ref, params, x, options = paper_case()
    codes, x_hat = round_trip(params, x, k=options["k"], topk="absolute")
    np.testing.assert_allclose(dense(codes, 48), ref["z"], atol=1e-10)
    np.testing.assert_allclose(x_hat, ref["x_hat"], atol=1e-10)
    losses, since_fired = jax.jit(functools.partial(sae.losses, **options))(params, x, jnp.zeros(48, jnp.int32))
    np.testing.assert_allclose(losses.reconstruction, ref["reconstruction_loss_batch_mean"], rtol=1e-10)
    np.testing.assert_allclose(losses.revival, ref["revival_loss_mean"], rtol=1e-10)
    np.testing.assert_allclose(losses.total, ref["total_loss_mean_form"], rtol=1e-10)
    np.testing.assert_array_equal(since_fired, np.where(ref["dead_units"], 48, 0))


@pytest.mark.parametrize("term", ["reconstruction", "revival", "total"])
def test_paper_gradients_match_the_reference(term):
  with jax.enable_x64(True):
    ref, params, x, options = paper_case()

    def loss(params):
      return getattr(sae.losses(params, x, jnp.zeros(48, jnp.int32), **options)[0], term)

    gradient = jax.jit(jax.grad(loss))(params)
    stem = "grad_" + {"revival": "revival_mean"}.get(term, term)
    for leaf, name in zip(gradient, ("W_e", "b_e", "b_d"), strict=True):
      np.testing.assert_allclose(leaf, ref[f"{stem}_{name}"], atol=1e-10)


def test_gradient_of_the_whole_loss_matches_central_differences():
  with jax.enable_x64(True):
    key = jax.random.key(3)
    params = sae.SAEParams(
      jax.random.normal(key, (12, 5), jnp.float64), jnp.linspace(-0.3, 0.4, 12), jnp.linspace(0.1, 0.3, 5)
    )
    x = jax.random.normal(jax.random.key(4), (8, 5), jnp.float64)
    since_fired = jnp.zeros(12, jnp.int32).at[jnp.array([2, 7])].set(100)  # revived unless this batch fires them
    options = {"k": 2, "topk": "value", "dead_after": 9, "revival_weight": 0.7}

    @jax.jit
    def total(flat):
      return sae.losses(unflatten(flat), x, since_fired, **options)[0]

    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    assert total(flat).revival > 0
    gradient = jax.jit(jax.grad(lambda flat: total(flat).total))(flat)
    step = 1e-6
    for i in range(flat.size):
      nudge = jnp.zeros_like(flat).at[i].set(step)
      slope = (total(flat + nudge).total - total(flat - nudge).total) / (2 * step)
      np.testing.assert_allclose(gradient[i], slope, atol=1e-7, err_msg=f"parameter {i}")


def test_usual_rule_matches_the_reference():
  ref = oracles.load("sae_topk")
  with jax.enable_x64(True):
    pre_bias = jnp.asarray(ref["pre_bias"])
    params = sae.SAEParams(jnp.asarray(ref["encoder_weight"]), jnp.asarray(ref["latent_bias"]), pre_bias)
    x = jnp.asarray(ref["x"])

    def normalized_error(params):
      centred = x - params.b_dec[None, :]
      codes = sae.encode(params, centred, k=int(ref["k"]), topk="value")
      error = jnp.mean(jnp.square(sae.decode(params, codes) - x), axis=1)
      return jnp.mean(error / jnp.mean(jnp.square(x), axis=1)), (codes, sae.decode(params, codes))

    (error, (codes, x_hat)), gradient = jax.jit(jax.value_and_grad(normalized_error, has_aux=True))(params)
    np.testing.assert_allclose(dense(codes, 64), ref["plain_input_latents"], atol=1e-9)
    np.testing.assert_allclose(x_hat, ref["plain_input_reconstruction"], atol=1e-9)
    np.testing.assert_allclose(error, ref["plain_input_normalized_mse"], rtol=1e-9)
    for leaf, name in zip(gradient, ("encoder_weight", "latent_bias", "pre_bias"), strict=True):
      np.testing.assert_allclose(leaf, ref[f"plain_input_tied_parameters_grad_{name}"], atol=1e-9)


@pytest.mark.parametrize("width", [192, 50])
def test_top_entries_are_those_of_a_full_ranking_even_among_ties(width):
  scores = jax.random.randint(jax.random.key(0), (40, width), 0, 30).astype(jnp.float32)
  np.testing.assert_array_equal(sparse_ops.top_entries(scores, 5), lax.top_k(scores, 5)[1])


@pytest.mark.parametrize("num_rows", [192, 50])
def test_argmax_over_batch_is_the_first_maximum(num_rows):
  scores = jax.random.randint(jax.random.key(0), (num_rows, 30), 0, 40).astype(jnp.float32)
  np.testing.assert_array_equal(sparse_ops.argmax_over_batch(scores), np.argmax(scores, axis=0))


def test_both_forms_of_the_outer_sum_agree():
  values = jax.random.normal(jax.random.key(0), (20, 3))
  x = jax.random.normal(jax.random.key(1), (20, 4))
  indices = jnp.asarray(np.stack([np.random.default_rng(i).permutation(9)[:3] for i in range(20)]), jnp.int32)
  expected = np.zeros((9, 4), np.float32)
  np.add.at(expected, np.asarray(indices), np.asarray(values)[:, :, None] * np.asarray(x)[:, None, :])
  for form in (sparse_ops._outer_rows_looped, sparse_ops._outer_rows_dense):
    np.testing.assert_allclose(form(values, x, indices, 9), expected, rtol=1e-5, atol=1e-6)


def test_gradients_by_the_input_are_those_of_dense_products():
  matrix = jax.random.normal(jax.random.key(0), (9, 4))
  x = jax.random.normal(jax.random.key(1), (6, 4))
  params = sae.SAEParams(matrix, jnp.linspace(-1.0, 1.0, 9), jnp.ones(4))

  def sparse(x):
    return jnp.sum(jnp.sin(sae.decode(params, sae.encode(params, x, k=3))))

  def masked(x):
    z = x @ matrix.T + params.b_enc[None, :]
    z = jnp.where(jnp.abs(z) >= jnp.sort(jnp.abs(z), axis=1)[:, -3][:, None], z, 0)
    return jnp.sum(jnp.sin(z @ matrix + params.b_dec[None, :]))

  np.testing.assert_allclose(jax.jit(jax.grad(sparse))(x), jax.jit(jax.grad(masked))(x), rtol=1e-4, atol=1e-5)


def test_paper_rule_cannot_tell_a_latent_from_its_negative():
  params = sae.init(jax.random.key(0), 32, 8)._replace(b_enc=jnp.linspace(-0.1, 0.1, 32))
  side = jnp.arange(32) % 3 == 0
  flipped = sae.flip(params, side)
  x = jax.random.normal(jax.random.key(1), (10, 8))
  (codes, x_hat), (mirrored, same) = (round_trip(p, x, k=4, topk="absolute") for p in (params, flipped))
  np.testing.assert_array_equal(codes.indices, mirrored.indices)
  np.testing.assert_array_equal(codes.values, jnp.where(side[codes.indices], -1, 1) * mirrored.values)
  np.testing.assert_allclose(x_hat, same, rtol=1e-6)


def test_normalizer_centres_unit_features_and_scales_them_to_mean_square_one():
  features = 3 + jax.random.normal(jax.random.key(0), (50, 6)).at[0].set(0)
  x = np.asarray(sae.normalize(sae.fit_normalizer(features), features))
  np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
  np.testing.assert_allclose(np.mean(np.sum(x**2, axis=1)), 1, rtol=1e-5)
  unit = np.asarray(features[1:]) / np.linalg.norm(features[1:], axis=1, keepdims=True)
  ratio = np.diff(x[1:], axis=0) / np.diff(unit, axis=0)  # one scale for every coordinate, no rotation
  np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-2)
