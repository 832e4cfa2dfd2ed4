"""The maximum mean discrepancy against reference outputs and all pairs at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax.factors.mmd import mmd_squared
from dynsel_jax.options import UserError
from tests.support import oracles


@pytest.mark.parametrize("case", ["random_subset", "biased_subset", "shifted"])
def test_both_forms_match_the_reference(case):
  ref = oracles.load("mmd")
  u, v = (jnp.asarray(ref[f"{case}_{side}"], jnp.float32) for side in "UV")
  np.testing.assert_allclose(mmd_squared(u, v), ref[f"{case}_mmd2_unbiased"], atol=1e-6)
  np.testing.assert_allclose(mmd_squared(u, v, unbiased=False), ref[f"{case}_mmd2_biased"], atol=1e-6)


@pytest.mark.parametrize("unbiased", [True, False])
def test_blocks_sum_to_all_pairs(unbiased):
  u, v = jax.random.normal(jax.random.key(0), (23, 3)), 1 + jax.random.normal(jax.random.key(1), (17, 3))

  def mean_kernel(a, b, skip):
    kernel = np.exp(-0.7 * np.sum((np.asarray(a)[:, None] - np.asarray(b)[None]) ** 2, axis=2))
    return (kernel.sum() - np.trace(kernel)) / (len(a) * (len(a) - 1)) if skip else kernel.mean()

  expected = mean_kernel(u, u, unbiased) + mean_kernel(v, v, unbiased) - 2 * mean_kernel(u, v, False)
  result = mmd_squared(u, v, gamma=0.7, unbiased=unbiased, block_size=5)
  np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_features_far_from_the_origin_lose_nothing():
  u, v = jax.random.normal(jax.random.key(0), (30, 4)), 0.5 + jax.random.normal(jax.random.key(1), (30, 4))
  near, far = mmd_squared(u, v), mmd_squared(u + 300, v + 300)
  np.testing.assert_allclose(far, near, atol=2e-5)


def test_what_is_small_beside_a_kernel_near_one_is_kept():
  rng = np.random.default_rng(0)
  u, v = rng.normal(size=(2, 300, 128)) + 0.2 * np.linspace(0, 1, 2)[:, None, None]
  u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (u, v))  # float64

  def mean_kernel(a, b):
    return np.exp(-np.sum((a[:, None] - b[None]) ** 2, axis=2) / 128)

  within = sum((mean_kernel(x, x).sum() - 300) / (300 * 299) for x in (u, v))
  expected = within - 2 * mean_kernel(u, v).mean()
  assert 0 < expected < 2e-3
  result = mmd_squared(jnp.asarray(u, jnp.float32), jnp.asarray(v, jnp.float32))
  np.testing.assert_allclose(result, expected, rtol=1e-4)


def test_unbiased_form_needs_two_points_a_side():
  with pytest.raises(UserError, match="1 and 4 points"):
    mmd_squared(jnp.ones((1, 2)), jnp.ones((4, 2)))
