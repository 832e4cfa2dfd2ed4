"""PODS: its schedule against hand-made tables and its budget, and who is kept against the method at each fraction."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsel_jax import selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors.wrappers.pods import volumes
from tests.support import simulation
from tests.support.simulation import NUM_SAMPLES

quick = functools.partial(jax.jit, compiler_options=simulation.QUICK)


def create(method="random", epochs=8, wrap=None, **options):
  return selectors.create(method, simulation.table(), epochs, {"pods": {}} if wrap is None else wrap, **options)


@pytest.mark.parametrize(
  ("count", "low", "high", "high_epochs", "epochs", "expected"),
  [
    (500, 300, 700, 1, 8, [300, 700] * 4),
    (500, 300, 700, 1, 9, [300, 700] * 4 + [500]),
    (500, 300, 900, 1, 8, [300, 300, 900, 300, 300, 900, 300, 700]),
    (300, 100, 500, 1, 9, [100, 500] * 4 + [300]),
    (500, 300, 700, 2, 10, [300, 300, 700, 700, 300, 300, 700, 700, 300, 700]),
  ],
)
def test_the_schedule_is_the_table(count, low, high, high_epochs, epochs, expected):
  assert volumes(1000, count, low, high, high_epochs, epochs) == expected


@settings(deadline=None)
@given(st.integers(3, 500), st.data())
def test_no_prefix_exceeds_the_budget_and_the_run_spends_it(num_samples, draw):
  count = draw.draw(st.integers(2, num_samples - 1))
  low, high = draw.draw(st.integers(1, count - 1)), draw.draw(st.integers(count + 1, num_samples))
  high_epochs, epochs = draw.draw(st.integers(1, 4)), draw.draw(st.integers(1, 60))
  sizes = volumes(num_samples, count, low, high, high_epochs, epochs)
  spent = np.cumsum(sizes)
  assert np.all(spent <= count * np.arange(1, epochs + 1))
  assert set(sizes[:-1]) <= {low, high} and min(sizes) >= low
  assert spent[-1] == count * epochs or sizes[-1] == num_samples


@pytest.mark.parametrize("method", ["random", "ucb", "random_static"])
def test_each_epoch_keeps_what_the_method_keeps_at_its_fraction(method):
  """Over the same states: a fraction changes how many, and the method decides who."""
  selector = create(method, keep_fraction=0.5)
  fixed = {
    count: selectors.create(method, simulation.table(), 8, keep_fraction=count / NUM_SAMPLES) for count in (15, 37)
  }
  program, states = simulation.compiled(selector), {}
  state = program.init(jax.random.key(3))
  for count, bare in fixed.items():
    states[count] = bare.init(jax.random.key(3))
  warm = int(method == "ucb")
  sizes = []
  for epoch in range(5):
    outcome = simulation.run_epoch(program, state, epoch)
    keep = np.asarray(outcome.selection.keep)
    sizes.append(keep.sum())
    if sizes[-1] in fixed:
      expected, _ = quick(fixed[sizes[-1]].select)(simulation.select_key(epoch), states[sizes[-1]], jnp.int32(epoch))
      np.testing.assert_array_equal(keep, expected.keep)
    for index in simulation.batches(outcome.chosen):
      for count, bare in fixed.items():
        states[count] = bare.observe(states[count], simulation.signals(index, epoch))
    state = outcome.state
  assert sizes == [NUM_SAMPLES] * warm + ([15, 37] * 3)[: 5 - warm]  # 26 of 53 at the fixed fraction


def test_epochs_on_the_full_data_are_left_out_of_the_cycle():
  bare = selectors.create("eswp", simulation.table(), 20, anneal_first=0.1, anneal_last=0.05)
  assert bare.full_epochs == (2, 1)
  assert selectors.create("ucb", simulation.table(), 20).full_epochs == (1, 0)
  rrd = create("rrd", 20, keep_fraction=0.5, refinement=0.15, class_balanced=False)
  assert rrd.full_epochs == (0, 3)
  select, state = quick(rrd.select), rrd.init(jax.random.key(0))
  infos = [select(jax.random.key(1), state, jnp.int32(epoch))[1] for epoch in range(20)]
  assert [int(info["volume"]) for info in infos] == [15, 37] * 8 + [26] * 4
  assert [bool(info["full_data"]) for info in infos] == [False] * 17 + [True] * 3


def test_static_subsets_are_nested_and_thinning_goes_on():
  program = simulation.compiled(create("top", keep_fraction=0.5))
  low, high = (set(epoch.chosen) for epoch in simulation.run(program, 2))
  assert low < high and (len(low), len(high)) == (15, 37)
  program = simulation.compiled(create("eswp", keep_fraction=0.5, anneal_first=0.0, weights="inverse_probability"))
  history = simulation.run(program, 3)
  for epoch in history:
    simulation.assert_epoch(epoch)
  assert history[1].thinned and program.select.traces == 1


@pytest.mark.parametrize(
  ("method", "wrap", "options", "line"),
  [
    ("infobatch", {"pods": {}}, {}, "wrap=pods sets the keep_fraction of each epoch"),
    ("random", {"annealed": {}, "pods": {}}, {}, "name it first"),
    ("random", {"pods": {}}, {"keep_fraction": 1.0}, "wrap=pods: low=1 and high=1 keep 53 and 53 of 53"),
    ("random", {"pods": {"low": 0.4}}, {}, "wrap=pods: low=0.4"),
    ("random", {"pods": {"high": 0.2}}, {}, "high=0.2"),
    ("random", {"pods": {"low": -0.1}}, {}, "low=-0.1"),
    ("random", {"pods": {"high_epochs": 0}}, {}, "high_epochs=0"),
  ],
)
def test_what_cannot_swing_is_refused(method, wrap, options, line):
  with pytest.raises(UserError, match=line) as error:
    create(method, wrap=wrap, **options)
  assert "\n" not in str(error.value)
