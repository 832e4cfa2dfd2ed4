import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from dynsel_jax.models import normalization
from dynsel_jax.models.normalization import BatchNorm
from tests.support import small_runs

CHANNELS = 3


def _inputs(rows, space=(4, 2), seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.normal(loc=[1.0, -2.0, 0.0], scale=[1, 3, 0.5], size=(rows, *space, CHANNELS)), jnp.float32)


def _variables(seed=5):
  rng = np.random.default_rng(seed)
  draw = lambda: jnp.asarray(rng.uniform(0.5, 2.0, CHANNELS), jnp.float32)  # noqa: E731
  return {"params": {"scale": draw(), "bias": draw()}, "batch_stats": {"mean": draw(), "var": draw()}}


def _twin(x, valid, variables, momentum=0.9, epsilon=1e-5):
  """Normalises in float64 with the moments of the valid rows, one channel at a time."""
  x = np.asarray(x, np.float64)
  out, new = np.empty_like(x), {"mean": [], "var": []}
  for channel in range(x.shape[-1]):
    rows = x[np.asarray(valid), ..., channel]
    mean, var = rows.mean(), rows.var()
    scale, bias = (float(variables["params"][name][channel]) for name in ("scale", "bias"))
    out[..., channel] = (x[..., channel] - mean) / np.sqrt(var + epsilon) * scale + bias
    for name, value in (("mean", mean), ("var", var)):
      new[name].append(momentum * float(variables["batch_stats"][name][channel]) + (1 - momentum) * value)
  return out, new


@pytest.mark.parametrize("space", [(), (4, 2)])
def test_moments_are_those_of_the_valid_samples(space):
  x, valid = _inputs(7, space), jnp.asarray([1, 0, 1, 1, 0, 1, 0], bool)
  out, new = BatchNorm().apply(_variables(), x, valid, train=True, mutable=["batch_stats"])
  expected, statistics = _twin(x, valid, _variables())
  np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)
  for name in ("mean", "var"):
    np.testing.assert_allclose(new["batch_stats"][name], statistics[name], rtol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_equals_flax_when_every_sample_is_valid(train):
  x, variables = _inputs(6), _variables()

  def loss(apply):
    def of(params, x):
      out, new = apply({"params": params, "batch_stats": variables["batch_stats"]}, x)
      return jnp.sum(jnp.sin(out)), (out, new)

    return jax.jit(jax.value_and_grad(of, argnums=(0, 1), has_aux=True))(variables["params"], x)

  ours = loss(lambda v, x: BatchNorm().apply(v, x, jnp.ones(6, bool), train=train, mutable=["batch_stats"]))
  flax = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
  theirs = loss(lambda v, x: flax.apply(v, x, mutable=["batch_stats"]))
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)  # the same names as well
  for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(mine, other, rtol=2e-4, atol=2e-5)


def _value_and_gradients(norm, params, x, valid, coefficients):
  """A loss over valid rows that no channel's normalisation makes constant, and all its derivatives."""

  def loss(params, x):
    variables = {"params": params, "batch_stats": _variables()["batch_stats"]}
    out, new = norm.apply(variables, x, valid, train=True, mutable=["batch_stats"])
    rows = jnp.sum(jnp.sin(out) * coefficients, axis=(1, 2, 3))
    return jnp.sum(jnp.where(valid, rows, 0.0)), (out, new["batch_stats"])

  differentiate = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
  (_, (out, statistics)), (of_params, of_x) = differentiate(params, x)
  return out, statistics, of_params, of_x


@pytest.mark.parametrize("valid", [[1, 1, 1, 1, 0, 0, 1, 0], [1, 0, 1, 1, 0, 0, 0, 0]])
def test_two_devices_with_unequal_shares_equal_one(valid):
  x, coefficients, valid = _inputs(8), _inputs(8, seed=1), jnp.asarray(valid, bool)
  params = _variables()["params"]
  whole = _value_and_gradients(BatchNorm(), params, x, valid, coefficients)

  def on_device(params, x, valid, coefficients):
    out, statistics, of_params, of_x = _value_and_gradients(
      BatchNorm(axis_name="batch"), params, x, valid, coefficients
    )
    return out, statistics, jax.lax.psum(of_params, "batch"), of_x

  halves = [array.reshape((2, 4, *array.shape[1:])) for array in (x, valid, coefficients)]
  mapped = jax.pmap(
    on_device, axis_name="batch", in_axes=(None, 0, 0, 0), out_axes=(0, None, None, 0), devices=small_runs.devices(2)
  )
  out, statistics, of_params, of_x = mapped(params, *halves)
  split = (out.reshape(x.shape), statistics, of_params, of_x.reshape(x.shape))
  for one, two in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)


def test_without_a_valid_sample_nothing_moves_and_nothing_is_nan():
  x, variables, valid = _inputs(3), _variables(), jnp.zeros(3, bool)

  def loss(params):
    apply = {"params": params, "batch_stats": variables["batch_stats"]}
    out, new = BatchNorm().apply(apply, x, valid, train=True, mutable=["batch_stats"])
    return jnp.sum(jnp.square(out)), (out, new["batch_stats"])

  gradients, (out, statistics) = jax.grad(loss, has_aux=True)(variables["params"])
  for name in ("mean", "var"):
    np.testing.assert_array_equal(statistics[name], variables["batch_stats"][name])
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradients, out)))
  np.testing.assert_array_equal(out, BatchNorm().apply(variables, x, valid, train=False))


def test_constant_channel_far_from_zero_stays_finite():
  x = jnp.full((5, 4, 2, CHANNELS), 1e4, jnp.float32) + jnp.asarray([0.0, 1e-3, 0.37])[None, None, None]
  gradient = jax.grad(lambda x: jnp.sum(BatchNorm().apply(_variables(), x, jnp.ones(5, bool), train=True)))(x)
  assert np.isfinite(gradient).all()
  out, new = BatchNorm().apply(_variables(), x, jnp.ones(5, bool), train=True, mutable=["batch_stats"])
  assert np.isfinite(out).all() and (np.asarray(new["batch_stats"]["var"]) >= 0).all()


def test_scoring_uses_the_batch_and_leaves_the_running_statistics():
  x, valid, variables = _inputs(5), jnp.ones(5, bool), _variables()
  scored = BatchNorm().apply(variables, x, valid, train=True)  # `batch_stats` is not mutable here
  trained, _ = BatchNorm().apply(variables, x, valid, train=True, mutable=["batch_stats"])
  np.testing.assert_array_equal(scored, trained)
  _, kept = BatchNorm().apply(variables, x, valid, train=False, mutable=["batch_stats"])
  np.testing.assert_array_equal(kept["batch_stats"]["mean"], variables["batch_stats"]["mean"])
  made = BatchNorm(axis_name="batch").init(jax.random.key(0), x, valid, train=True)  # no axis is mapped yet
  np.testing.assert_array_equal(made["batch_stats"]["mean"], 0.0)
  np.testing.assert_array_equal(made["batch_stats"]["var"], 1.0)


def test_half_precision_is_for_the_result_only():
  x, valid = _inputs(64), jnp.ones(64, bool)
  out, new = BatchNorm(dtype=jnp.bfloat16).apply(
    _variables(), x.astype(jnp.bfloat16), valid, train=True, mutable=["batch_stats"]
  )
  assert out.dtype == jnp.bfloat16
  _, statistics = _twin(x.astype(jnp.bfloat16), valid, _variables())
  for name in ("mean", "var"):
    assert new["batch_stats"][name].dtype == jnp.float32
    np.testing.assert_allclose(new["batch_stats"][name], statistics[name], rtol=1e-5)


def _written_out(axis_name, x, valid, scale, bias):
  moments = normalization.valid_moments(x, valid, axis_name)[:2]
  return normalization.normalized(1e-5, jnp.float32, axis_name, x, valid, *moments, scale, bias)


def _gradients(function, x, valid, wanted, scale, bias):
  def loss(x, scale, bias):
    return jnp.sum(jnp.where(valid.reshape(-1, 1, 1, 1), function(x, scale, bias), 0.0) * wanted)

  return jax.grad(loss, argnums=(0, 1, 2))(x, scale, bias)


def test_the_gradient_written_out_is_the_derived_one():
  x, valid = _inputs(7), jnp.asarray([1, 0, 1, 1, 0, 1, 1], bool)
  wanted, params = _inputs(7, seed=3), _variables()["params"]
  rest = (x, valid, wanted, params["scale"], params["bias"])
  derived = _gradients(
    lambda x, scale, bias: BatchNorm().apply(
      {**_variables(), "params": {"scale": scale, "bias": bias}}, x, valid, train=True, mutable=["batch_stats"]
    )[0],
    *rest,
  )
  written = _gradients(lambda x, scale, bias: _written_out(None, x, valid, scale, bias), *rest)
  for one, other in zip(written, derived, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_gradient_written_out_is_that_of_the_global_batch():
  devices = small_runs.devices(2)
  x, valid, wanted = _inputs(8), jnp.asarray([1, 1, 1, 0, 1, 0, 0, 0], bool), _inputs(8, seed=3)
  scale, bias = (_variables()["params"][name] for name in ("scale", "bias"))
  whole = _gradients(lambda x, s, b: _written_out(None, x, valid, s, b), x, valid, wanted, scale, bias)

  def part(x, valid, wanted):
    return _gradients(lambda x, s, b: _written_out("batch", x, valid, s, b), x, valid, wanted, scale, bias)

  halves = [array.reshape(2, 4, *array.shape[1:]) for array in (x, valid, wanted)]
  of_x, of_scale, of_bias = jax.pmap(part, axis_name="batch", devices=devices)(*halves)
  np.testing.assert_allclose(of_x.reshape(x.shape), whole[0], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(of_scale.sum(axis=0), whole[1], rtol=1e-4)
  np.testing.assert_allclose(of_bias.sum(axis=0), whole[2], rtol=1e-4)


def test_in_bfloat16_the_step_is_that_of_float32_up_to_rounding():
  x, valid = _inputs(6), jnp.ones(6, bool)

  def gradient(dtype):
    def loss(x):
      norm = BatchNorm(dtype=dtype)
      out, _ = norm.apply(_variables(), x.astype(dtype), valid, train=True, mutable=["batch_stats"])
      return jnp.sum(jnp.sin(out.astype(jnp.float32)))

    return np.asarray(jax.grad(loss)(x))

  exact, rounded = gradient(jnp.float32), gradient(jnp.bfloat16)
  assert np.linalg.norm(rounded - exact) < 0.02 * np.linalg.norm(exact)
