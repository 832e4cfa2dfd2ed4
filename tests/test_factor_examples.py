"""The samples and classes of a factor against a dense twin, and that nothing of samples by latents is ever made."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsel_jax.factors import examples, scores, statistics
from dynsel_jax.factors.sae import Codes
from tests.test_factor_scores import codes_of


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31), density=st.floats(0, 0.6))
def test_strongest_samples_and_classes_are_those_of_a_dense_array(seed, density):
  rng = np.random.default_rng(seed)
  active, labels = rng.random((31, 12)) < density, rng.integers(0, 4, 31)
  codes = codes_of(active, 12, rng)
  dense = np.zeros((31, 12), np.float32)
  np.put_along_axis(dense, np.asarray(codes.indices), np.maximum(codes.values, 0), axis=1)
  latents = jnp.asarray(rng.permutation(12)[:5], jnp.int32)

  samples, values = examples.top_samples(codes, latents, count=6)
  for latent, sample, value in zip(latents, samples, values, strict=True):
    column = dense[:, latent]
    order = np.argsort(-column, kind="stable")[:6]
    np.testing.assert_array_equal(sample, np.where(column[order] > 0, order, -1))
    np.testing.assert_array_equal(value, column[order])

  counts = examples.class_counts(codes, latents, jnp.asarray(labels, jnp.int32), num_classes=4)
  for latent, count in zip(latents, counts, strict=True):
    np.testing.assert_array_equal(count, np.bincount(labels[active[:, latent]], minlength=4))


def _largest(jaxpr):
  """Returns the size of the largest array that a program makes, whatever it is nested in."""
  sizes = [variable.aval.size for equation in jaxpr.eqns for variable in equation.outvars]
  parameters = jax.tree.leaves([equation.params for equation in jaxpr.eqns], is_leaf=lambda x: hasattr(x, "eqns"))
  inner = [getattr(each, "jaxpr", each) for each in parameters]
  return max([*sizes, *(_largest(each) for each in inner if hasattr(each, "eqns"))])


def test_no_array_grows_with_samples_times_latents():
  num_samples, k, num_latents = 2000, 4, 3000
  codes = Codes(jnp.zeros((num_samples, k), jnp.int32), jnp.ones((num_samples, k)))
  labels, latents = jnp.zeros(num_samples, jnp.int32), jnp.arange(7, dtype=jnp.int32)
  counted = statistics.FactorStatistics(*jnp.ones((2, num_latents), jnp.int32))
  programs = {
    "statistics": functools.partial(
      statistics.factor_statistics, codes, labels, num_classes=3, num_latents=num_latents
    ),
    "representativeness": functools.partial(scores.representativeness, codes, counted),
    "rarity": functools.partial(scores.rarity, codes, counted),
    "top": functools.partial(examples.top_samples, codes, latents, count=10),
    "classes": functools.partial(examples.class_counts, codes, latents, labels, num_classes=3),
  }
  dense = jax.jit(lambda: jax.lax.map(lambda x: x + jnp.zeros((num_samples, num_latents)), jnp.arange(2.0)))
  assert _largest(jax.make_jaxpr(dense)().jaxpr) >= num_samples * num_latents  # the measure sees what is nested
  for name, program in programs.items():
    largest = _largest(jax.make_jaxpr(program)().jaxpr)
    assert k < largest <= max(num_samples * k, 3 * num_latents), name
