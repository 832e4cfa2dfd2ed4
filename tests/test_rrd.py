"""RRD: its schedule and scores against the paper's numbers, whole runs against a numpy twin, and how samples rotate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsel_jax import batching, selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import rrd
from dynsel_jax.types import SampleTable
from tests.support import oracles, simulation

quick = functools.partial(jax.jit, compiler_options=simulation.QUICK)


@pytest.fixture(scope="module")
def reference():
  return oracles.load("rrd")


def table_of(labels, representativeness, rarity):
  columns = {"representativeness": jnp.asarray(representativeness), "rarity": jnp.asarray(rarity)}
  columns = {name: column.astype(jnp.float32) for name, column in columns.items()}
  return SampleTable(len(labels), jnp.asarray(labels, jnp.int32), int(np.max(labels)) + 1, columns)


class Run:
  """A compiled run of all epochs, whose columns may be changed from call to call."""

  def __init__(self, table, epochs, **options):
    self.columns = table.columns

    def one(selector, key, state, epoch):
      selection, info = selector.select(jax.random.fold_in(key, epoch), state, epoch)
      index = jnp.where(selection.keep, jnp.arange(table.num_samples, dtype=jnp.int32), -1)
      losses = jnp.full(table.num_samples, jnp.nan)  # which RRD does not read
      return selector.observe(state, batching.signals(index, losses, epoch)), (selection.keep, info)

    def run(key, columns):
      selector = selectors.create("rrd", table._replace(columns=columns), epochs, **options)
      step = functools.partial(one, selector, key)
      return jax.lax.scan(step, selector.init(key), jnp.arange(epochs, dtype=jnp.int32))

    self.program = quick(run)

  def __call__(self, seed=0, columns=None):
    """Returns which samples each epoch took [T, N] bool, the infos, and the final usage [N]."""
    state, (taken, info) = self.program(jax.random.key(seed), self.columns if columns is None else columns)
    return np.asarray(taken), {name: np.asarray(value) for name, value in info.items()}, np.asarray(state.usage.visits)


def alpha_curve(epochs, slope):
  curve = functools.partial(rrd.mixing, low=0.2, high=1.0, midpoint=0.6 * epochs, slope=slope)
  return np.asarray(jax.vmap(curve)(jnp.arange(epochs, dtype=jnp.int32)))


def test_the_schedule_has_the_papers_values():
  alpha = alpha_curve(200, 0.05)
  expected = {1: 0.9979, 50: 0.9766, 80: 0.9046, 100: 0.7848, 120: 0.6, 140: 0.4152, 160: 0.2954, 170: 0.2607}
  for t, value in expected.items():
    assert alpha[t - 1] == pytest.approx(value, abs=5e-5)
  assert alpha_curve(90, 0.05)[[0, 75]] == pytest.approx([0.947, 0.400], abs=5e-4)


def test_schedule_penalty_and_score_agree_with_the_reference(reference):
  np.testing.assert_allclose(alpha_curve(200, 0.05), reference["alpha_T200_slope_0p05"], atol=1e-6)
  np.testing.assert_allclose(alpha_curve(30, 10 / 30), reference["alpha_T30_slope_10_over_T"], atol=1e-6)
  rep = jnp.asarray(reference["representativeness_minmax"], jnp.float32)
  div = jnp.asarray(reference["diversity_minmax"], jnp.float32)
  for case, epochs in (("hybrid", "hybrid_epochs_T200"), ("hybrid30", "hybrid30_epochs")):
    alphas = alpha_curve(200, 0.05) if case == "hybrid" else alpha_curve(30, 10 / 30)
    for row, t in enumerate(reference[epochs]):
      pen = rrd.usage_penalty(jnp.asarray(reference[f"{case}_usage_counts"][row], jnp.int32), 0.2)
      if case == "hybrid":
        np.testing.assert_allclose(pen, reference["hybrid_penalty"][row], atol=1e-6)
      score = rrd.hybrid_score(rep, div, jnp.float32(alphas[t - 1]), pen)
      np.testing.assert_allclose(score, reference[f"{case}_score"][row], atol=1e-5)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("keep", [30, 70])
def test_whole_runs_agree_with_the_reference(reference, keep, balanced):
  table = table_of(reference["labels"], reference["representativeness_minmax"], reference["diversity_minmax"])
  taken, info, usage = Run(table, 12, keep_fraction=keep / 100, class_balanced=balanced)()
  case = f"keep{keep}_{'per_class' if balanced else 'global'}"
  np.testing.assert_array_equal(info["full_data"], reference["trajectory_is_full_data_epoch"])
  np.testing.assert_array_equal(taken, reference[f"{case}_selected"])
  np.testing.assert_array_equal(usage, reference[f"{case}_final_usage"])
  np.testing.assert_array_equal(usage, taken.sum(axis=0))
  chosen = ~info["full_data"]
  np.testing.assert_allclose(info["alpha"][chosen], reference["trajectory_alpha_slope_10_over_T"][chosen], atol=1e-6)
  if balanced:
    before = reference[f"{case}_usage_before_epoch"][chosen]
    np.testing.assert_allclose(info["mean_penalty"][chosen], np.log1p(before).mean(axis=1) * 0.2, rtol=1e-5)
    np.testing.assert_array_equal(info["never_used"][chosen], (before == 0).sum(axis=1))


def twin(labels, rep, div, epochs, keep, alpha_min, alpha_max, midpoint, slope, penalty, refinement):
  """Algorithm 1 with the balance of Sec. 3.5, in float64 with plain sorting."""
  usage, rows = np.zeros(len(labels), int), []
  for t in range(1, epochs + 1):
    alpha = alpha_min + (alpha_max - alpha_min) * (1 - 1 / (1 + np.exp(-slope * (t - midpoint * epochs))))
    score = alpha * rep + (1 - alpha) * div - penalty * np.log(1 + usage)
    member = np.full(len(labels), t > (1 - refinement) * epochs)
    for label in np.unique(labels):
      (of_class,) = np.nonzero(labels == label)
      best = of_class[np.argsort(-score[of_class])]
      member[best[: max(1, int(keep * of_class.size))]] = True
    usage += member
    rows.append(member)
  return np.array(rows)


PAPER = {"alpha_min": 0.2, "alpha_max": 1.0, "midpoint": 0.6, "slope": 1.0, "penalty": 0.2, "refinement": 0.15}
ABLATIONS = {  # Table 6, as the docstring writes it
  "w/o Rep": {"representativeness": False},
  "w/o Div": {"diversity": False},
  "w/o Pen": {"penalty": 0.0},
  "w/o alpha": {"alpha_min": 0.5, "alpha_max": 0.5},
  "static": {"alpha_min": 0.5, "alpha_max": 0.5, "penalty": 0.0},
  "only Div": {"representativeness": False, "penalty": 0.0},
  "only Rep": {"diversity": False, "penalty": 0.0},
  "w/o full data": {"refinement": 0.0},
}
CASES = {
  "full method": {},
  "other numbers": {"alpha_min": 0.1, "alpha_max": 0.8, "midpoint": 0.3, "slope": 2.0, "penalty": 0.5},
} | ABLATIONS


LABELS = np.repeat([0, 1, 2], [5, 11, 24])
REP, DIV = np.random.default_rng(5).random((2, 40)).astype(np.float32).astype(float)


@functools.cache
def run_of(case):
  return Run(table_of(LABELS, REP, DIV), 10, keep_fraction=0.4, **CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_options_and_ablations_agree_with_a_twin(case):
  options = CASES[case]
  taken, _, usage = run_of(case)()
  numbers = PAPER | {name: value for name, value in options.items() if name in PAPER}
  rep, div = REP * options.get("representativeness", True), DIV * options.get("diversity", True)
  np.testing.assert_array_equal(taken, twin(LABELS, rep, div, 10, 0.4, **numbers))
  if case == "w/o Pen":  # the schedule alone moves the choice
    assert not np.array_equal(taken[0], taken[7])
  elif options.get("penalty") == 0:
    assert set(usage) == {2, 10}  # a monopoly: the rest has only the two full-data epochs
  else:
    assert len(set(usage)) > 3


@pytest.mark.parametrize("case", ABLATIONS)
def test_an_ablation_leaves_out_what_it_names_and_nothing_else(case):
  options = ABLATIONS[case]
  taken, info, _ = run_of(case)()
  for term, columns in (("representativeness", (REP[::-1], DIV)), ("diversity", (REP, DIV[::-1]))):
    other, _, _ = run_of(case)(columns=table_of(LABELS, *columns).columns)
    assert np.array_equal(taken, other) == (not options.get(term, True))
  assert np.any(info["mean_penalty"] > 0) == (options.get("penalty") != 0)
  assert np.ptp(info["alpha"][~info["full_data"]]) == pytest.approx(0, abs=1e-6) or "alpha_min" not in options
  assert info["full_data"].any() == ("refinement" not in options)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), levels=st.integers(1, 50))
def test_each_class_gives_its_fraction_every_epoch_and_uses_add_up(seed, levels):
  """Whatever the scores, many of them equal where there are few levels."""
  rep, div = np.random.default_rng(seed).integers(0, levels, (2, 40)) / levels
  taken, info, usage = run_of("full method")(seed, table_of(LABELS, rep, div).columns)
  for label in range(3):
    of_class = taken[:, label == LABELS]
    count = int(0.4 * of_class.shape[1] + 1e-6)
    np.testing.assert_array_equal(of_class.sum(axis=1), np.where(info["full_data"], of_class.shape[1], count))
  assert usage.sum() == taken.sum()
  np.testing.assert_array_equal(usage, taken.sum(axis=0))


@settings(max_examples=25, deadline=None)
@given(
  scores=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
  rarely=st.integers(0, 30),
  penalty=st.floats(0.1, 2.0),
  alpha=st.floats(0, 1),
)
def test_enough_use_outweighs_any_score(scores, rarely, penalty, alpha):
  """Theorem 3.1, at the smallest use that its condition (Eq. 14) allows, for scores with a spread of at most 1."""
  often = int(np.ceil((1 + rarely) * np.exp(1.0 / penalty) - 1))
  rep, div = jnp.asarray(scores[:2], jnp.float32), jnp.asarray(scores[2:], jnp.float32)
  pen = rrd.usage_penalty(jnp.array([often, rarely], jnp.int32), penalty)
  score = rrd.hybrid_score(rep, div, jnp.float32(alpha), pen)
  assert score[0] <= score[1] + 1e-5


@pytest.mark.parametrize("columns", ["constant", "none"])
def test_equal_scores_rotate_exactly(columns):
  labels, keep = np.repeat([0, 1, 2], [7, 20, 26]), 0.3
  if columns == "constant":
    table, options = table_of(labels, np.full(53, 0.4), np.full(53, 0.1)), {}
  else:  # the penalty alone
    keep, table = 0.55, SampleTable(53, jnp.asarray(labels, jnp.int32), 3)
    options = {"representativeness": False, "diversity": False}
  run = Run(table, 17, keep_fraction=keep, refinement=0.0, **options)
  taken, _, usage = run()
  for label in range(3):
    visits = np.cumsum(taken[:, labels == label], axis=0)
    assert np.all(visits.max(axis=1) - visits.min(axis=1) <= 1)
    assert np.all(taken[:, labels == label].sum(axis=1) == int(keep * (labels == label).sum() + 1e-9))
  assert usage.sum() == taken.sum()
  assert not np.array_equal(taken, run(seed=1)[0])  # ties are the key's


def test_a_score_that_is_not_finite_comes_last_and_is_reported():
  rep = np.linspace(0, 1, 10)
  rep[[9, 4]] = np.nan, np.inf
  selector = selectors.create("rrd", table_of(np.zeros(10, int), rep, np.zeros(10)), 5, keep_fraction=0.9)
  selection, info = quick(selector.select)(jax.random.key(0), selector.init(jax.random.key(0)), jnp.int32(0))
  assert int(selection.keep.sum()) == 9  # the count stays what it is
  assert np.flatnonzero(~selection.keep).tolist() in ([9], [4])
  assert int(info["non_finite"]) == 2


@pytest.mark.parametrize(
  "options, message",
  [
    ({"alpha_min": 0.6, "alpha_max": 0.5}, r"alpha_min=0.6 must lie in \[0, alpha_max=0.5\]"),
    ({"alpha_max": 1.5}, "alpha_max=1.5"),
    ({"midpoint": -0.1}, "midpoint=-0.1"),
    ({"slope": -1.0}, "slope=-1.0"),
    ({"penalty": -0.2}, "penalty=-0.2"),
    ({"refinement": 1.1}, "1.1"),
    ({"keep_fraction": 0.0}, "keep_fraction=0.0"),
  ],
)
def test_values_out_of_range_are_named(options, message):
  with pytest.raises(UserError, match=message):
    selectors.create("rrd", simulation.table(), 8, **options)


def test_a_missing_column_is_named():
  table = simulation.table()
  without = table._replace(columns={name: value for name, value in table.columns.items() if name != "rarity"})
  with pytest.raises(
    UserError, match=r"selector=rrd reads the column 'rarity', .*: name features, as in features=pixels"
  ):
    selectors.create("rrd", without, 8)
  assert selectors.create("rrd", without, 8, diversity=False)
