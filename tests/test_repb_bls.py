"""RePB against a numpy twin, and batch loss scores under InfoBatch and SeTa."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import bls, infobatch, repb
from dynsel_jax.selectors.memory import EmptyState
from dynsel_jax.types import Selector
from tests.support import simulation
from tests.support.simulation import NUM_SAMPLES


def test_repb_prunes_readmits_and_weights_by_use():
  program = simulation.compiled(selectors.create("repb", simulation.table(), 12, readmitted_fraction=0.25))
  visits, pruned, readmissions = np.zeros(NUM_SAMPLES, int), np.zeros(NUM_SAMPLES, bool), np.zeros(NUM_SAMPLES, int)
  for epoch, outcome in enumerate(simulation.run(program, 12)):
    chosen = outcome.chosen
    member = np.isin(np.arange(NUM_SAMPLES), chosen)
    if epoch == 0:
      assert simulation.is_full(outcome.selection)
    else:
      assert np.all(member[~pruned])
      assert member[pruned].sum() == int(0.25 * pruned.sum()) == int(outcome.info["readmitted"])
      np.testing.assert_allclose(outcome.selection.weights[chosen], (epoch + 1) / (visits[chosen] + 1), rtol=1e-6)
      readmissions += member & pruned
    visits += member
    for batch in simulation.batches(chosen):
      valid = batch[batch >= 0]
      loss = np.asarray(simulation.signals(valid, epoch).loss)
      pruned[valid] = loss < loss.mean()
  np.testing.assert_array_equal(outcome.state.inner.usage.visits, visits)
  assert np.unique(visits).size > 3 and (readmissions > 0).sum() > 10


def test_repb_weights_make_every_sample_count_alike():
  """A sample that each epoch t takes with chance p has expected weight 1 - (1 - p)^t in it, which goes to 1."""
  rng, chances = np.random.default_rng(0), np.array([0.2, 0.5, 1.0])
  visits, total, expected = np.zeros((3, 400), int), np.zeros((3, 400)), np.zeros(3)
  for epoch in range(60):
    weights = repb.use_weights(jnp.asarray(visits.ravel(), jnp.int32), jnp.int32(epoch))
    member = rng.random((3, 400)) < chances[:, None]
    total += np.where(member, np.asarray(weights).reshape(3, 400), 0.0)
    visits += member
    expected += 1 - (1 - chances) ** (epoch + 1)
  deviation = total.std(axis=1) / np.sqrt(400)
  assert np.all(np.abs(total.mean(axis=1) - expected) <= 5 * deviation + 1e-4)
  assert np.all(expected > 0.9 * 60)


def test_equal_and_bad_losses_of_a_batch():
  equal = simulation.signals([4, 5, 6, 7, -1], 0, loss=np.full(5, 0.1))
  assert not np.any(np.asarray(repb.low_in_batch(equal))[:4])
  bad = simulation.signals([4, 5, 6, 7, -1], 0, loss=np.array([np.nan, 1.0, 3.0, np.inf, 0.0]))
  assert np.asarray(repb.low_in_batch(bad))[:4].tolist() == [True, True, False, True]


def test_a_batch_loss_score_is_a_running_average_of_batch_means():
  seen = []

  def observe(state, signals):
    seen.append(signals)
    return state

  inner = Selector(lambda key: EmptyState(), lambda key, state, epoch: (None, {}), observe)
  selector = bls.scored_by_batch(inner, simulation.table(), history_weight=0.6)
  state, score, known = selector.init(jax.random.key(0)), np.zeros(NUM_SAMPLES), np.zeros(NUM_SAMPLES, bool)
  rng = np.random.default_rng(0)
  for epoch in range(5):
    for index in rng.permutation(NUM_SAMPLES)[:40].reshape(5, 8):
      signals = simulation.signals(np.append(index, -1), epoch)
      state = selector.observe(selector.observe(state, signals), signals)  # twice counts once
      mean = np.asarray(signals.loss)[:-1].mean()
      score[index] = np.where(known[index], 0.6 * score[index] + 0.4 * mean, mean)
      known[index] = True
      for observed in seen[-2:]:
        np.testing.assert_allclose(np.asarray(observed.loss)[:-1], score[index], rtol=1e-5)
        assert observed._replace(loss=signals.loss) == signals
  np.testing.assert_allclose(state.score, score, rtol=1e-5)


def test_a_bad_loss_is_left_out_of_the_mean_and_a_bad_batch_forgotten():
  inner = infobatch.infobatch(simulation.table(), 8)
  selector = bls.scored_by_batch(inner, simulation.table())
  state = selector.init(jax.random.key(0))
  for epoch, losses, expected in ((0, [1.0, np.nan], 1.0), (1, [np.nan, np.inf], np.nan), (2, [3.0, 5.0], 4.0)):
    state = selector.observe(state, simulation.signals([8, 9], epoch, loss=np.array(losses)))
    np.testing.assert_allclose(np.asarray(state.score)[[8, 9]], [expected, expected])


@pytest.mark.parametrize("name", ["bls_infobatch", "bls_seta"])
def test_the_inner_selector_chooses_by_the_scores(name):
  """With a history of weight 0 and one sample a batch, a score is the last loss."""
  base = name.removeprefix("bls_")
  scored = selectors.create(name, simulation.table(), 8, history_weight=0.0)
  plain = selectors.create(base, simulation.table(), 8)
  states = [scored.init(jax.random.key(0)), plain.init(jax.random.key(0))]
  for index in range(NUM_SAMPLES):
    signals = simulation.signals([index], 0)
    states = [one.observe(state, signals) for one, state in zip((scored, plain), states, strict=True)]
  assert scored.loss_normalization == plain.loss_normalization
  assert scored.reads == plain.reads == ()
  simulation.assert_same(states[0].inner, states[1])


@pytest.mark.parametrize(
  "name, options", [("repb", {"readmitted_fraction": 0.0}), ("bls_infobatch", {"history_weight": 1.5})]
)
def test_values_out_of_range_are_named(name, options):
  with pytest.raises(UserError, match=f"{next(iter(options))}="):
    selectors.create(name, simulation.table(), 8, **options)
