"""What selectors are told of a batch, against numpy."""

import jax.numpy as jnp
import numpy as np

from dynsel_jax.training import signals

LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32) * 3
LABELS = np.array([0, 1, 2, 3, 0, 1], np.int32)
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
OF_LABEL = PROBABILITIES[np.arange(6), LABELS]


def _signals():
  index = np.arange(6, dtype=np.int32)
  return signals.of_logits(jnp.asarray(LOGITS), jnp.asarray(LABELS), index, np.ones(6, bool), jnp.int32(3))


def test_loss_is_the_negative_log_probability_of_the_label():
  np.testing.assert_allclose(_signals().loss, -np.log(OF_LABEL), rtol=1e-5)


def test_smoothing_mixes_in_the_mean_over_classes():
  smoothed = signals.cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), 0.1)
  target = 0.9 * np.eye(4)[LABELS] + 0.1 / 4
  np.testing.assert_allclose(smoothed, -(target * np.log(PROBABILITIES)).sum(1), rtol=1e-5)


def test_confidence_margin_el2n_and_correctness():
  seen = _signals()
  others = np.where(np.eye(4, dtype=bool)[LABELS], -np.inf, PROBABILITIES).max(1)
  np.testing.assert_allclose(seen.confidence, PROBABILITIES.max(1), rtol=1e-5)
  np.testing.assert_allclose(seen.margin, OF_LABEL - others, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(seen.el2n, np.linalg.norm(PROBABILITIES - np.eye(4)[LABELS], axis=1), rtol=1e-5)
  np.testing.assert_array_equal(seen.correct, PROBABILITIES.argmax(1) == LABELS)
  assert 0 < np.count_nonzero(seen.correct) < 6  # both outcomes occur
