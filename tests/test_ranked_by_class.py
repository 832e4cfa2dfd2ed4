"""The wrapper that ranks losses within their class: against a brute-force twin, and on sources of unlike losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import batching, selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import wrappers
from dynsel_jax.selectors.memory import EmptyState
from dynsel_jax.selectors.wrappers.ranked_by_class import rank_within
from dynsel_jax.types import SampleTable, Selection, Selector

RNG = np.random.default_rng(0)
LABELS = np.array([0, 0, 0, 1, 1, 1, 1, 2])
TABLE = SampleTable(8, jnp.asarray(LABELS, jnp.int32), 3)


def _recorder():
  """A selector whose state is the loss that it observed last of each sample."""

  def select(key, state, epoch):
    return Selection(jnp.ones(8, bool)), {}

  def observe(state, signals):
    place = jnp.where(signals.index >= 0, signals.index, 8)
    return state.at[place].set(signals.loss, mode="drop")

  return Selector(lambda key: jnp.full(8, jnp.nan), select, observe)


def _signals(index, loss, epoch):
  return batching.signals(jnp.asarray(index, jnp.int32), jnp.asarray(loss, jnp.float32), jnp.int32(epoch))


def _ranks(losses, labels, reference, reference_labels):
  found = []
  for loss, label in zip(losses, labels, strict=True):
    others = reference[(reference_labels == label) & np.isfinite(reference)]
    found.append((np.sum(others < loss) + 0.5 * np.sum(others == loss)) / len(others))
  return found


@pytest.mark.parametrize("size", [1, 7, 12, 64])
def test_ranks_are_those_of_brute_force(size):
  losses, labels = RNG.integers(0, 6, size).astype(np.float32), RNG.integers(-1, 3, size)
  others, other_labels = RNG.integers(0, 6, 80).astype(np.float32), RNG.integers(-1, 4, 80)
  others[::7], others[1::9], losses[3::5], losses[4::6], losses[6::6] = np.nan, np.inf, np.nan, np.inf, -np.inf
  found = rank_within(*map(jnp.asarray, (losses, labels, others, other_labels)))
  finite = np.isfinite(losses)
  np.testing.assert_array_equal(found[finite], np.float32(_ranks(losses[finite], labels[finite], others, other_labels)))
  np.testing.assert_array_equal(found[~finite], losses[~finite])  # as the selector would see them without the wrapper


def test_losses_are_compared_with_the_epochs_before_and_with_the_batch():
  wrapped = wrappers.ranked_by_class(_recorder(), TABLE, 3)
  observe = jax.jit(wrapped.observe)
  losses = RNG.normal(size=(3, 8)).astype(np.float32)
  state, known = wrapped.init(jax.random.key(0)), np.full(8, np.nan, np.float32)
  for epoch in range(3):
    for index in ([0, 3, 4, -1], [1, 2, 5, 6], [7, -1, -1, -1]):
      rows = np.array([row for row in index if row >= 0])
      loss = np.where(np.array(index) >= 0, losses[epoch][index], np.nan)
      state = observe(state, _signals(index, loss, epoch))
      reference, labels = np.append(known, losses[epoch][rows]), np.append(LABELS, LABELS[rows])
      np.testing.assert_allclose(
        state.inner[rows], _ranks(losses[epoch][rows], LABELS[rows], reference, labels), rtol=1e-6
      )
    known = losses[epoch]


def test_neither_the_order_of_the_steps_nor_a_second_look_changes_anything():
  wrapped = wrappers.ranked_by_class(_recorder(), TABLE, 3)
  observe, losses = jax.jit(wrapped.observe), RNG.normal(size=(2, 8)).astype(np.float32)
  before = observe(wrapped.init(jax.random.key(0)), _signals(range(8), losses[0], 0))
  one, other = (_signals(rows, losses[1][list(rows)], 1) for rows in (range(4), range(4, 8)))
  expected = observe(observe(before, one), other)
  for state in (observe(observe(before, other), one), observe(observe(expected, one), one)):
    for found, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
      np.testing.assert_array_equal(found, wanted)


def test_a_method_that_keeps_the_highest_losses_then_chooses_within_each_source():
  labels = np.repeat([0, 1], [60, 30]).astype(np.int32)
  loss = RNG.lognormal(size=90).astype(np.float32) * np.where(labels == 0, 1.0, 30.0).astype(np.float32)
  table = SampleTable(90, jnp.asarray(labels), 2)
  kept = {}
  for names in ((), ("ranked_by_class",)):
    selector = selectors.create("loss", table, 4, dict.fromkeys(names, {}), batch_fraction=0.5)
    thin, counts = jax.jit(selector.thin), np.zeros(2)
    state = selector.init(jax.random.key(0))
    for number in range(20):
      positions, _ = thin(jax.random.key(number), state, _signals(range(90), loss, 0))
      counts += np.bincount(labels[positions], minlength=2)
    kept[names] = counts[1] / counts.sum()
  assert kept[()] > 0.5 and kept["ranked_by_class",] == pytest.approx(1 / 3, abs=0.04)


def test_a_selector_without_thin_or_labels_is_told_apart():
  wrapped = wrappers.ranked_by_class(_recorder(), TABLE, 3)
  assert wrapped.thin is None and wrapped.reads == ("labels",)
  stateless = _recorder()._replace(init=lambda key: EmptyState(), observe=lambda state, signals: state)
  assert jax.tree.leaves(wrappers.ranked_by_class(stateless, TABLE, 3).init(jax.random.key(0)))
  with pytest.raises(UserError, match="reads labels, and the training set has none"):
    selectors.create("loss", SampleTable(8), 3, {"ranked_by_class": {}})
  irreducible = TABLE._replace(columns={"irreducible_loss": jnp.zeros(8)})
  with pytest.raises(UserError, match="ranks for losses, from which 'irreducible_loss' in nats cannot be subtracted"):
    selectors.create("rho_loss", irreducible, 3, {"ranked_by_class": {}})
