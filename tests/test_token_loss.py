"""The chunked cross-entropy: equal to the plain one with its gradients, and without all logits in memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax.tasks.token_loss import token_losses


@pytest.fixture(scope="module")
def case():
  rng = np.random.default_rng(0)
  states, head = rng.normal(size=(23, 8)), rng.normal(size=(11, 8))
  return *(jnp.asarray(x, jnp.float32) for x in (states, head)), jnp.asarray(rng.integers(0, 11, 23), jnp.int32)


def plain(states, head, targets):
  logits = states @ head.T
  return -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=1)[:, 0], logits.argmax(axis=1)


@pytest.mark.parametrize("chunk", [1, 11, 50, 100, 22 * 11, 1000])
def test_chunks_change_neither_losses_nor_gradients(case, chunk):
  states, head, targets = case
  weights = jnp.linspace(0.1, 1.0, 23)

  def weighted(losses, states, head):
    return jnp.sum(weights * losses(states, head, targets)[0])

  chunked = functools.partial(token_losses, chunk=chunk)
  loss, right = jax.jit(chunked)(states, head, targets)
  expected, best = plain(states, head, targets)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  np.testing.assert_array_equal(right, best == targets)
  ours, theirs = (jax.jit(jax.grad(functools.partial(weighted, f), (0, 1)))(states, head) for f in (chunked, plain))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), ours, theirs)


def test_memory_is_that_of_a_chunk():
  tokens, vocabulary, width, chunk = 2048, 4096, 16, 2**18
  shapes = [jax.ShapeDtypeStruct((rows, width), jnp.float32) for rows in (tokens, vocabulary)]
  targets = jax.ShapeDtypeStruct((tokens,), jnp.int32)
  loss = lambda chunk, states, head, targets: token_losses(states, head, targets, chunk=chunk)[0].sum()  # noqa: E731

  def temporary(chunk):
    step = jax.jit(jax.grad(functools.partial(loss, chunk), (0, 1)))
    return step.lower(*shapes, targets).compile().memory_analysis().temp_size_in_bytes

  assert temporary(tokens * vocabulary) > 4 * tokens * vocabulary
  assert temporary(chunk) < 4 * 4 * chunk + 8 * width * (tokens + vocabulary)
