"""Real data where this machine has it; elsewhere skipped with the reason."""

import numpy as np
import pytest

from dynsel_jax import data, options


@pytest.fixture(scope="module")
def cifar10():
  try:
    return data.load("cifar10")
  except options.UserError as error:
    pytest.skip(str(error))


def test_cifar10_is_the_published_set(cifar10):
  assert cifar10.train["inputs"].shape == (50_000, 32, 32, 3)
  assert cifar10.test["inputs"].shape == (10_000, 32, 32, 3)
  np.testing.assert_array_equal(np.bincount(cifar10.train["labels"]), [5000] * 10)
  np.testing.assert_array_equal(np.bincount(cifar10.test["labels"]), [1000] * 10)
  np.testing.assert_allclose(cifar10.mean, [0.4914, 0.4822, 0.4465], atol=1e-4)
  np.testing.assert_allclose(cifar10.std, [0.2470, 0.2435, 0.2616], atol=1e-4)
