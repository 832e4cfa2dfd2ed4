"""RCAP against the outputs of its authors' code, its budgets against bisection, and whole runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsel_jax import selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import rcap
from tests.support import oracles, simulation
from tests.support.simulation import NUM_CLASSES, NUM_SAMPLES

quick = functools.partial(jax.jit, compiler_options=simulation.QUICK)
importance = quick(rcap.importance, static_argnums=2)
class_mass = quick(rcap.class_mass, static_argnums=3)
class_quotas = quick(rcap.class_quotas, static_argnums=2)
round_quotas = quick(rcap.round_quotas)


@pytest.mark.parametrize("beta", ["beta033", "beta100", "beta200"])
def test_agrees_with_the_authors_code(beta):
  reference = oracles.load("rcap")
  labels, num_classes = jnp.asarray(reference["labels"], jnp.int32), int(reference["num_classes"])
  sizes = jnp.bincount(labels, length=num_classes)
  log_weight = jnp.clip(jnp.asarray(reference["losses"], jnp.float32), 0.0, float(reference["clip_value"]))
  weight = importance(log_weight / float(reference[f"{beta}_beta"]), labels, num_classes)
  np.testing.assert_allclose(weight, reference[f"{beta}_importance"], rtol=2e-5)
  for keep in (30, 50):
    for when in ("first", "later"):
      case = f"{beta}_keep{keep}_{when}_epoch"
      assert not reference[f"{case}_any_class_above_one"]
      selected = reference["previously_selected"] if when == "later" else np.ones(labels.size, bool)
      mass = class_mass(weight, jnp.asarray(selected), labels, num_classes)
      np.testing.assert_allclose(mass, reference[f"{case}_class_mass"], rtol=1e-5)
      total = int(reference[f"{case}_required_total"])
      quotas = class_quotas(mass, sizes, total)
      np.testing.assert_allclose(quotas, reference[f"{case}_class_budget_real_before_saturation_loop"], rtol=1e-5)
      counts = np.asarray(round_quotas(jax.random.key(0), quotas, sizes, total))
      assert counts.sum() == total
      excess = reference[f"{case}_class_count_drawn_by_official_code"] - counts  # which rounds every class up
      assert np.all((excess == 0) | (excess == 1)) and excess.sum() > 0


@settings(max_examples=40, deadline=None)
@given(
  classes=st.lists(st.tuples(st.floats(1e-4, 1.0), st.integers(1, 60)), min_size=6, max_size=6),
  fraction=st.floats(0.01, 1.0),
)
def test_no_class_gets_more_than_it_has_and_the_total_stays(classes, fraction):
  mass, sizes = np.array([m for m, _ in classes]), np.array([n for _, n in classes])
  total = max(1, int(fraction * sizes.sum()))
  # The total is static in `rcap`; it is traced here only to compile once.
  quotas = np.asarray(traced_quotas(jnp.asarray(mass, jnp.float32), jnp.asarray(sizes, jnp.int32), float(total)))
  weight, low, high = np.sqrt(mass * sizes), 0.0, 1e6
  for _ in range(100):  # the rate at which the capped quotas sum to the total
    middle = (low + high) / 2
    low, high = (middle, high) if np.minimum(sizes, middle * weight).sum() < total else (low, middle)
  np.testing.assert_allclose(quotas, np.minimum(sizes, high * weight), rtol=1e-3, atol=1e-3)
  counts = np.asarray(round_quotas(jax.random.key(0), jnp.asarray(quotas), jnp.asarray(sizes, jnp.int32), total))
  assert counts.sum() == total
  assert np.all((counts >= 0) & (counts <= sizes))
  assert np.all(np.abs(counts - quotas) < 1.01)


traced_quotas = quick(rcap.class_quotas)


def test_a_run_keeps_the_budget_and_leans_to_hard_classes_and_losses():
  selector = selectors.create("rcap", simulation.table(), 30, keep_fraction=0.4, temperature=0.4)
  program = simulation.compiled(selector)
  labels = np.asarray(simulation.table().labels)
  loss = np.where(labels == 0, 1.2, 0.05) + np.linspace(0, 0.15, NUM_SAMPLES)
  state, kept = program.init(jax.random.key(0)), []
  for epoch in range(30):
    outcome = simulation.run_epoch(program, state, epoch, loss)
    state = outcome.state
    simulation.assert_epoch(outcome)
    assert outcome.chosen.size == (NUM_SAMPLES if epoch == 0 else 21)
    kept.append(np.asarray(outcome.selection.keep))
  frequency = np.array(kept[1:]).mean(axis=0)
  for label in range(NUM_CLASSES - 1):
    assert frequency[labels == label].min() > 0 and frequency[labels == label].max() < 1
  hard = np.full(NUM_SAMPLES, 0.05)
  hard[np.flatnonzero(labels == 1)[:3]] = np.log(NUM_CLASSES)  # ten times the weight of the others of the class
  for epoch in range(30, 45):
    state = simulation.run_epoch(program, program.observe(state, all_seen(epoch - 1, hard)), epoch, hard).state
  visits = np.zeros(NUM_SAMPLES)
  for epoch in range(45, 60):
    state = program.observe(state, all_seen(epoch - 1, hard))
    selection, _ = program.select(simulation.select_key(epoch), state, jnp.int32(epoch))
    visits += np.asarray(selection.keep)
  of_class = np.flatnonzero(labels == 1)
  assert visits[of_class[:3]].mean() > 1.5 * visits[of_class[3:]].mean()


def all_seen(epoch, loss):
  return simulation.signals(np.arange(NUM_SAMPLES), epoch, loss=loss)


@pytest.mark.parametrize("options", [{"keep_fraction": 0.0}, {"temperature": 0.0}])
def test_values_out_of_range_are_named(options):
  with pytest.raises(UserError, match=f"{next(iter(options))}="):
    selectors.create("rcap", simulation.table(), 8, **options)


@pytest.mark.parametrize("total", [1, 7, 29, 30])
def test_an_empty_class_has_no_quota_and_changes_no_other(total):
  mass, sizes = jnp.array([0.2, 1.0, 1.0, 0.5, 1.0]), jnp.array([20, 0, 4, 6, 0], jnp.int32)
  some = np.array([0, 2, 3])
  quotas = np.asarray(rcap.class_quotas(mass, sizes, total))
  np.testing.assert_array_equal(quotas[[1, 4]], 0)
  np.testing.assert_allclose(quotas[some], rcap.class_quotas(mass[some], sizes[some], total), rtol=1e-5)
  assert quotas.sum() == pytest.approx(total, rel=1e-6)
