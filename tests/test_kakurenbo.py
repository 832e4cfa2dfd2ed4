"""KAKURENBO against the outputs of its authors' code, and a run against a numpy twin."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import batching, selectors
from dynsel_jax.options import UserError
from dynsel_jax.types import SampleTable
from tests.support import oracles, simulation
from tests.support.simulation import NUM_SAMPLES


@pytest.mark.parametrize("case", ["fraction30", "fraction40"])
def test_agrees_with_the_authors_code(case):
  reference = oracles.load("kakurenbo")
  num_samples = reference["losses"].size
  options = {"max_hidden_fraction": float(reference[f"{case}_fraction"])}
  selector = selectors.create("kakurenbo", SampleTable(num_samples), 200, **options)
  loss, confidence = (jnp.asarray(reference[name], jnp.float32) for name in ("losses", "confidence"))
  index, correct = jnp.arange(num_samples, dtype=jnp.int32), jnp.asarray(reference["correct"])
  seen = batching.signals(index, loss, jnp.int32(0), confidence=confidence, correct=correct)
  state = selector.observe(selector.init(jax.random.key(0)), seen)
  select = jax.jit(functools.partial(selector.select, state=state), compiler_options=simulation.QUICK)
  for row, epoch in enumerate(reference[f"{case}_epochs"]):
    selection, info = select(jax.random.key(1), epoch=jnp.int32(epoch))
    np.testing.assert_array_equal(~selection.keep, reference[f"{case}_hidden_by_epoch"][row])
    assert int(info["may_hide"]) == reference[f"{case}_candidate_count_by_epoch"][row]
    assert int(info["moved_back"]) == reference[f"{case}_moved_back_count_by_epoch"][row]
    expected = reference[f"{case}_learning_rate_multiplier_by_epoch"][row]
    np.testing.assert_allclose(selection.learning_rate_multiplier, expected, rtol=1e-6)


def test_a_run_hides_refreshes_and_tells_the_learning_rate():
  selector = selectors.create("kakurenbo", simulation.table(), 8, max_hidden_fraction=0.6, confidence_threshold=0.4)
  program = simulation.compiled(selector)
  state, seen, everyone, num_hidden = program.init(jax.random.key(0)), None, np.arange(NUM_SAMPLES), 0
  for epoch in range(8):
    outcome = simulation.run_epoch(program, state, epoch)
    state = outcome.state
    if epoch == 0:
      assert simulation.is_full(outcome.selection)
    else:  # T = 8: the fraction falls at t = 2.4, 4.8 and 6.4
      fraction = 0.6 * (1.0 if epoch < 3 else 0.8 if epoch < 5 else 0.6 if epoch < 7 else 0.4)
      candidates = np.argsort(np.asarray(seen.loss))[: int(fraction * NUM_SAMPLES + 1e-9)]
      hide = candidates[
        np.asarray(seen.extras["correct"])[candidates] & (np.asarray(seen.extras["confidence"])[candidates] >= 0.4)
      ]
      assert set(outcome.chosen) == set(everyone) - set(hide)
      np.testing.assert_allclose(outcome.selection.learning_rate_multiplier, 1 / (1 - fraction), rtol=1e-6)
      num_hidden += hide.size
    seen = simulation.signals(everyone, epoch)  # the hidden ones too, by the forward pass
  assert num_hidden > 30


def test_only_the_hidden_are_refreshed():
  selector = selectors.create("kakurenbo", simulation.table(), 8)
  program = simulation.compiled(selector)
  state = selector.observe(program.init(jax.random.key(0)), simulation.signals(np.arange(NUM_SAMPLES), 0))
  assert not np.any(program.refresh(state, jnp.int32(0)))
  state = selector.observe(state, simulation.signals(np.arange(10, NUM_SAMPLES), 1))
  assert np.flatnonzero(program.refresh(state, jnp.int32(1))).tolist() == list(range(10))
  state = selector.observe(state, simulation.signals(np.arange(10), 1, trained=False))
  assert not np.any(program.refresh(state, jnp.int32(1)))


@pytest.mark.parametrize("options", [{"max_hidden_fraction": 1.0}, {"confidence_threshold": 1.2}])
def test_values_out_of_range_are_named(options):
  with pytest.raises(UserError, match=f"{next(iter(options))}="):
    selectors.create("kakurenbo", simulation.table(), 8, **options)
