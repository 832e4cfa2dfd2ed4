"""Scores from training dynamics, against stored reference outputs and plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax.coresets import dynamics, windows
from dynsel_jax.options import UserError
from tests.support import oracles

RNG = np.random.default_rng(0)


def _float32(array):
  return jnp.asarray(array, jnp.float32)


def _softmax(logits):
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True)


def test_scores_of_one_epoch_equal_the_reference():
  want = oracles.load("el2n_grand_margin")
  probabilities, labels = _float32(want["probabilities"]), jnp.asarray(want["labels"], jnp.int32)
  np.testing.assert_allclose(dynamics.el2n(probabilities, labels), want["el2n"], rtol=1e-5)
  np.testing.assert_allclose(dynamics.margin(probabilities, labels), -want["margin_max_other_minus_label"], atol=1e-6)
  np.testing.assert_allclose(dynamics.entropy(probabilities), want["reference_entropy_natural_log"], rtol=1e-5)


def test_entropy_of_a_certain_prediction_is_zero():
  np.testing.assert_array_equal(
    dynamics.entropy(jnp.asarray([[1.0, 0.0], [0.5, 0.5]])), np.log([1, 2], dtype=np.float32)
  )


def test_area_under_the_margin_equals_the_reference():
  want = oracles.load("aum_ccs")
  labels = jnp.asarray(want["labels"], jnp.int32)
  margins = jax.vmap(lambda p: dynamics.margin(p, labels))(_float32(_softmax(want["logits"])))
  got = dynamics.replay(dynamics.average(), margins)
  np.testing.assert_allclose(got * len(margins), want["aum_sum_over_epochs"], atol=1e-4)
  correct = want["logits"].argmax(-1) == want["labels"]
  learned = correct.any(0)  # the published count gives no special place to the others
  np.testing.assert_array_equal(
    np.asarray(dynamics.replay(dynamics.forgetting(), jnp.asarray(correct)))[learned], want["forgetting_count"][learned]
  )


def test_forgetting_equals_the_reference():
  want = oracles.load("forgetting")
  method = dynamics.forgetting()
  state = method.init(want["correct_by_epoch"].shape[1])
  update = jax.jit(method.update)
  for correct in want["correct_by_epoch"]:
    state = update(state, jnp.asarray(correct))
  np.testing.assert_array_equal(state.forgotten, want["forgetting_count"])
  np.testing.assert_array_equal(state.first_learned, want["first_learned_epoch_zero_based"])
  np.testing.assert_array_equal(state.first_learned < 0, want["never_learned"])
  np.testing.assert_array_equal(method.score(state), want["count_with_never_learned_as_number_of_epochs"])


def test_a_sample_never_learned_outranks_the_most_forgotten():
  correct = np.zeros((6, 3), bool)
  correct[::2, 1] = True  # forgotten as often as six epochs allow
  correct[:, 2] = True
  np.testing.assert_array_equal(dynamics.replay(dynamics.forgetting(), jnp.asarray(correct)), [6, 3, 0])


@pytest.mark.parametrize(("method", "name"), [(windows.dyn_unc, "dyn_unc"), (windows.dual, "dual")])
@pytest.mark.parametrize("window", [5, 10])
def test_windowed_uncertainty_equals_the_reference(method, name, window):
  want = oracles.load("dyn_unc_dual")
  got = dynamics.replay(method(window=window), _float32(want["probability_of_label"]))
  np.testing.assert_allclose(10 * got, want[f"{name}_window{window}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("epochs", "window"), [(12, 5), (10, 4)])
def test_tdds_equals_the_reference(epochs, window):
  want = oracles.load("tdds")
  probabilities = _float32(want["softmax_outputs"][:epochs])
  got = dynamics.replay(windows.tdds(5, window=window, decay=float(want["decay"])), probabilities)
  np.testing.assert_allclose(got, want[f"score_T{epochs}_window{window}"], rtol=1e-3, atol=1e-5)


def test_tdds_weighs_windows_by_age():
  probabilities = _softmax(RNG.normal(size=(7, 9, 4))).astype(np.float32)
  log = np.log(probabilities + 1e-8)
  changes = np.abs(probabilities[1:] * (log[1:] - log[:-1])).sum(-1)
  spreads = [np.linalg.norm(c - c.mean(0), axis=0) for c in (changes[m : m + 3] for m in range(4))]
  want = sum(0.3 * 0.7**age * spread for age, spread in enumerate(reversed(spreads)))
  got = dynamics.replay(windows.tdds(4, window=4, decay=0.3), jnp.asarray(probabilities))
  np.testing.assert_allclose(got, want, rtol=1e-4)


WINDOWED = {
  "dyn_unc": (windows.dyn_unc(window=4), ()),
  "dual": (windows.dual(window=4), ()),
  "tdds": (windows.tdds(3, window=4), (3,)),
}


@pytest.mark.parametrize("name", WINDOWED)
def test_there_is_no_score_before_the_first_whole_window(name):
  method, shape = WINDOWED[name]
  columns = _float32(RNG.uniform(size=(4, 6, *shape)))
  assert np.isnan(dynamics.replay(method, columns[:3])).all()
  assert np.isfinite(dynamics.replay(method, columns)).all()


@pytest.mark.parametrize("name", WINDOWED)
def test_a_nan_spoils_one_sample_only_and_constant_dynamics_score_zero(name):
  method, shape = WINDOWED[name]
  columns = RNG.uniform(size=(4, 6, *shape))
  columns[:, 1] = columns[0, 1]
  spoilt = columns.copy()
  spoilt[2, 3] = np.nan
  want, got = (np.array(dynamics.replay(method, _float32(c))) for c in (columns, spoilt))
  assert np.isnan(got[3]) and abs(got[1]) < 1e-6 and np.delete(want, 1).min() > 1e-3
  np.testing.assert_array_equal(np.delete(got, 3), np.delete(want, 3))


def test_memory_does_not_grow_with_the_epochs():
  for method, shape in [(dynamics.average(), ()), *WINDOWED.values()]:
    state = jax.eval_shape(lambda method=method: method.init(8))
    column = jax.ShapeDtypeStruct((8, *shape), jnp.float32)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), jax.eval_shape(method.update, state, column)) == jax.tree.map(
      lambda x: (x.shape, x.dtype), state
    )


@pytest.mark.parametrize(
  ("factory", "message"),
  [
    (lambda: windows.dyn_unc(window=1), "window=1 "),
    (lambda: windows.dual(window=0), "window=0 "),
    (lambda: windows.tdds(3, window=2), "window=2 "),
    (lambda: windows.tdds(3, decay=0.0), "decay=0.0 "),
    (lambda: windows.tdds(3, decay=float("nan")), "decay=nan "),
  ],
)
def test_wrong_options_are_named(factory, message):
  with pytest.raises(UserError, match=message):
    factory()
