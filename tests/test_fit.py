"""The fit: resumed bit for bit, the same on two devices, as good as an autoencoder can be told to be, and loud."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax.factors import fit, quality, sae
from dynsel_jax.options import UserError
from tests.support import small_runs

N, D, L, B = 100, 12, 32, 32
OPTIONS = {"num_latents": L, "k": 3, "epochs": 4, "batch_size": B, "dead_after": 40, "learning_rate": 1e-2}


@pytest.fixture(autouse=True)
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@functools.cache
def data():
  features = jax.random.normal(jax.random.key(0), (N, 4)) @ jax.random.normal(jax.random.key(1), (4, D))
  return sae.fit_normalizer(features), features


@functools.cache
def whole():
  """One fit in a single call, with the functions it was made from."""
  plan = fit.make_fit(N, D, **OPTIONS)
  advance = jax.jit(plan.advance, static_argnames="num_steps")
  state = plan.init(jax.random.key(2))
  return plan, advance, *advance(jax.random.key(3), state, *data(), num_steps=plan.num_steps)


def test_fit_stopped_within_an_epoch_continues_with_the_same_bits():
  plan, advance, expected, losses = whole()
  assert plan.num_steps == 12  # three full batches in each of four epochs
  state = plan.init(jax.random.key(2))
  seen = []
  for _ in range(3):
    state, part = advance(jax.random.key(3), state, *data(), num_steps=4)
    state = jax.tree.map(lambda x: jnp.asarray(np.array(x)), state)  # as a checkpoint does
    seen.append(part.total)
  jax.tree.map(np.testing.assert_array_equal, state, expected)
  np.testing.assert_array_equal(jnp.concatenate(seen), losses.total)


def test_every_epoch_visits_in_a_new_order():
  plan, advance, *_ = whole()
  state, orders = plan.init(jax.random.key(2)), []
  for _ in range(3):
    state, _ = advance(jax.random.key(3), state, *data(), num_steps=4)
    orders.append(np.asarray(state.order))
  for order in orders:
    np.testing.assert_array_equal(np.sort(order), np.arange(N))
  assert not any(np.array_equal(a, b) for a, b in zip(orders, orders[1:], strict=False))


def test_two_devices_fit_what_one_does():
  plan, _, expected, losses = whole()
  assert 0 < np.max(losses.dead_fraction) < 1  # so that the revival loss is at work
  spread = fit.make_fit(N, D, axis_name="batch", **OPTIONS)
  advance = jax.pmap(
    lambda _, *args: spread.advance(*args, num_steps=plan.num_steps),
    axis_name="batch",
    in_axes=(0, None, None, None, None),
    out_axes=None,
    devices=small_runs.devices(2),
  )
  state, seen = advance(jnp.arange(2), jax.random.key(3), spread.init(jax.random.key(2)), *data())
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), state.params, expected.params)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3), seen, losses)
  np.testing.assert_array_equal(state.since_fired, expected.since_fired)


def test_quality_is_that_of_dense_arithmetic():
  normalizer, features = data()
  params = whole()[2].params
  codes, measured = quality.measure(params, normalizer, features, k=3, topk="absolute")
  np.testing.assert_array_equal(
    codes.indices, quality.encode_all(params, normalizer, features, k=3, topk="absolute").indices
  )
  x = np.asarray(sae.normalize(normalizer, features))
  z = x @ np.asarray(params.W_enc).T + np.asarray(params.b_enc)
  z[np.abs(z) < np.sort(np.abs(z), axis=1)[:, -3][:, None]] = 0
  error = x - z @ np.asarray(params.W_enc) - np.asarray(params.b_dec)
  np.testing.assert_allclose(measured.fvu, np.sum(error**2) / np.sum((x - x.mean(axis=0)) ** 2), rtol=1e-3)
  frequency = np.sum(z > 0, axis=0)
  np.testing.assert_allclose(measured.mean_l0, np.mean(np.sum(z > 0, axis=1)), rtol=1e-6)
  np.testing.assert_allclose(measured.dead_fraction, np.mean(frequency == 0), rtol=1e-6)
  expected = [np.sum(frequency == 0)]
  for low, high in zip(quality.HISTOGRAM_EDGES, quality.HISTOGRAM_EDGES[1:], strict=False):
    expected.append(np.sum((frequency > round(low * N, 6)) & (frequency <= round(high * N, 6))))
  np.testing.assert_array_equal(measured.frequency_histogram, expected)
  assert np.sum(measured.frequency_histogram) == L


def test_chunks_of_a_data_set_are_encoded_as_the_whole(monkeypatch):
  normalizer, features = data()
  params = whole()[2].params
  monkeypatch.setattr(quality, "_CHUNK", 30)  # 100 samples: the last chunk overlaps
  codes, _ = quality._measured_codes(params, normalizer, features, 3, "absolute")
  expected = jax.jit(functools.partial(sae.encode, k=3))(params, sae.normalize(normalizer, features))
  np.testing.assert_array_equal(codes.indices, expected.indices)
  np.testing.assert_allclose(codes.values, expected.values, rtol=1e-5, atol=1e-6)


def test_oriented_fit_reconstructs_the_same_and_leaves_no_latent_mostly_negative(caplog):
  _, features = data()
  options = {**OPTIONS, "num_latents": 30}
  with caplog.at_level(logging.WARNING, logger="absl"):
    plain, _, plain_quality = fit.fit_sae(jax.random.key(4), features, orient=False, **options)
    settled, codes, settled_quality = fit.fit_sae(jax.random.key(4), features, **options)
  assert quality.mostly_negative(*plain, features, k=3).any()
  assert not quality.mostly_negative(*settled, features, k=3).any()
  uses = np.zeros(30)
  np.add.at(uses, np.asarray(codes.indices), np.sign(codes.values))
  assert uses.min() >= 0  # the codes returned are those of the flipped autoencoder
  np.testing.assert_allclose(plain_quality.fvu, settled_quality.fvu, rtol=1e-5)
  np.testing.assert_array_equal(jnp.abs(plain.params.W_enc), jnp.abs(settled.params.W_enc))
  assert len(caplog.messages) == len(quality.warnings(plain_quality) + quality.warnings(settled_quality)) > 0


def test_latents_of_either_sign_are_active_where_they_are_not_zero():
  normalizer, features = data()
  params = whole()[2].params
  signed, positive = quality.measure(params, normalizer, features, k=3, topk="absolute")
  codes, both = quality.measure(params, normalizer, features, k=3, topk="absolute", active="nonzero")
  assert np.min(signed.values) < 0
  np.testing.assert_array_equal(codes.indices, signed.indices)
  np.testing.assert_array_equal(codes.values, np.abs(signed.values))
  assert float(positive.mean_l0) < float(both.mean_l0) == 3
  assert float(both.dead_fraction) <= float(positive.dead_fraction)
  assert float(both.fvu) == float(positive.fvu)
  frequency = np.bincount(np.asarray(codes.indices).ravel(), minlength=len(params.b_enc))
  assert float(both.dead_fraction) == pytest.approx(np.mean(frequency == 0))


def test_quality_warns_of_each_bound_it_breaks():
  def warned(fvu, dead_fraction):
    return len(quality.warnings(quality.Quality(fvu, 3.0, dead_fraction, jnp.zeros(8, jnp.int32))))

  assert [warned(0.35, 0.3), warned(0.36, 0.3), warned(0.35, 0.31), warned(0.9, 0.9)] == [0, 1, 1, 2]


def test_quality_is_read_from_a_cache_with_the_old_name_of_the_dead_fraction():
  saved = {"fvu": 0.1, "mean_l0": 3.0, "frequency_histogram": np.arange(8), "W_enc": np.zeros((2, 2))}
  for name in ("dead_fraction", "dead_share"):
    read = quality.from_arrays({**saved, name: 0.25})
    assert (float(read.fvu), float(read.mean_l0), float(read.dead_fraction)) == pytest.approx((0.1, 3.0, 0.25))
    np.testing.assert_array_equal(read.frequency_histogram, np.arange(8))


@pytest.mark.parametrize(
  ("options", "named"),
  [({"k": 0}, "k=0"), ({"k": 97}, "k=97"), ({"topk": "largest"}, "topk='largest'"), ({"epochs": 0}, "epochs=0")],
)
def test_wrong_option_is_named_in_one_line(options, named):
  with pytest.raises(UserError, match=named) as error:
    fit.make_fit(N, D, **options)
  assert "\n" not in str(error.value)


def test_features_that_are_not_finite_are_counted():
  with pytest.raises(UserError, match="2 values"):
    fit.fit_sae(jax.random.key(0), jnp.ones((5, 3)).at[1, :2].set(jnp.nan))


def test_option_that_a_fit_does_not_have_is_named_with_those_it_has():
  with pytest.raises(UserError, match="no option 'latents'.*num_latents"):
    fit.fit_sae(jax.random.key(0), jnp.ones((5, 3)), latents=4)
