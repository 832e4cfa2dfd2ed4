"""Methods that thin by losses: promises of them all, and the stateless ones against references and twins."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsel_jax import batching, selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import evolved, rho_loss, thinning
from dynsel_jax.types import SampleTable
from tests.support import oracles, simulation

METHODS = [name for name, method in selectors.METHODS.items() if method.level == "batch" and "loss" in method.signal]
WEIGHTED = [name for name in METHODS if "weights" in selectors.defaults(name)]
DRAWS = 2000


class Thinner:
  """A method's `thin` over many keys, compiled once, with nothing known of the samples before."""

  def __init__(self, name, batch_fraction=0.5, **options):
    table = simulation.table()
    if name == "rho_loss":
      table = table._replace(columns={"irreducible_loss": jnp.zeros_like(table.columns["irreducible_loss"])})
    self.selector = selectors.create(name, table, 8, batch_fraction=batch_fraction, **options)
    self.state = self.selector.init(jax.random.key(0))
    over_keys = jax.vmap(self.selector.thin, in_axes=(0, None, None))
    self.call = jax.jit(over_keys, compiler_options=simulation.QUICK)

  def __call__(self, index, loss, draws=DRAWS):
    """Returns positions and weights, `[draws, b]` each."""
    keys = jax.random.split(jax.random.key(5), draws)
    return tuple(map(np.asarray, self.call(keys, self.state, simulation.signals(index, loss=loss))))


@pytest.fixture(scope="module", params=METHODS)
def thinner(request):
  return Thinner(request.param)


INDEX = [3, 9, 27, 1, 40, 41, 52, 0]


def frequencies(positions, size):
  return (positions[:, :, None] == np.arange(size)).any(axis=1).mean(axis=0)


@pytest.mark.parametrize("loss", [1.5, 0.0])
def test_equal_losses_are_chosen_by_chance(thinner, loss):
  positions, weights = thinner(INDEX, loss)
  assert positions.shape == weights.shape == (DRAWS, 4) and np.all(weights == 1)
  assert np.all(np.diff(positions) > 0)
  assert np.all(np.abs(frequencies(positions, 8) - 0.5) < 5 * np.sqrt(0.25 / DRAWS))


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_chosen_last(thinner, odd):
  loss = np.linspace(0.5, 2.0, 8)
  loss[2:5] = odd
  positions, weights = thinner(INDEX, loss)
  assert not np.isin(positions, [2, 3, 4]).any() and np.all(weights == 1)
  loss[1:6] = odd  # only three are left for four places
  positions, weights = thinner(INDEX, loss)
  assert np.isin([0, 6, 7], positions[0]).all() and np.all(weights == 1)
  assert np.all(np.abs(frequencies(positions, 8)[1:6] - 0.2) < 5 * np.sqrt(0.16 / DRAWS))


def test_padding_is_chosen_last_and_weighs_nothing(thinner):
  positions, weights = thinner([3, -1, -1, 1, -1, 41, 52, 0], 1.0)
  assert np.isin(positions, [0, 3, 5, 6, 7]).all() and np.all(weights == 1)
  positions, weights = thinner([-1, -1, -1, 1, -1, 41, -1, 0], 0.0)
  assert np.all(np.diff(positions) > 0)
  np.testing.assert_array_equal(weights, np.isin(positions, [3, 5, 7]))
  assert np.all(weights.sum(axis=1) == 3)
  assert np.all(thinner([-1] * 8, 0.0)[1] == 0)


@pytest.mark.parametrize(
  "name, options", [(name, {}) for name in METHODS] + [(name, {"weights": "inverse_probability"}) for name in WEIGHTED]
)
def test_training_on_whole_batches_changes_nothing(name, options):
  whole = Thinner(name, 1.0, **options)
  index = [3, 9, -1, 1, 40, 41, -1, 0]
  positions, chosen_weights = whole(index, [0.1, 0.0, 9.0, 3.0, np.nan, 1.0, 1.0, np.inf], 5)
  np.testing.assert_array_equal(positions, np.broadcast_to(np.arange(8), (5, 8)))
  np.testing.assert_array_equal(chosen_weights, np.broadcast_to(np.array(index) >= 0, (5, 8)))


@pytest.mark.parametrize("name", WEIGHTED)
def test_inverse_probabilities_are_finite_whatever_the_losses(name):
  thinner = Thinner(name, weights="inverse_probability")
  for loss in ([0.0] * 8, [0.0] * 6 + [1.0] * 2, [1e-30, 1e30] * 4, [np.nan] * 7 + [1.0], [np.inf] * 8):
    _, weights = thinner(INDEX, loss)
    assert np.all(np.isfinite(weights)) and np.all(weights > 0)
  _, weights = thinner(INDEX, 1.0)
  assert np.all(np.abs(weights - weights[:, :1]) < 1e-6)  # equal losses, equal weights


@pytest.mark.parametrize("name", WEIGHTED)
def test_the_loss_of_drawn_rows_estimates_that_of_their_batch(name):
  thinner = Thinner(name, weights="inverse_probability")
  loss = np.linspace(0.05, 3.0, 8, dtype=np.float32)
  positions, weights = thinner(INDEX, loss)
  assert thinner.selector.loss_normalization == "batch_size"
  assert selectors.create(name, simulation.table(), 8).loss_normalization == "weight_sum"  # without such weights

  def bias(normalization):
    mean = functools.partial(batching.weighted_mean, loss_normalization=normalization)
    estimates = np.asarray(jax.vmap(mean)(loss[positions], weights, np.array(INDEX, np.int32)[positions]))
    return (estimates.mean() - loss.mean()) / (estimates.std() / np.sqrt(DRAWS))

  assert abs(bias("batch_size")) < 5 < abs(bias("weight_sum"))


@pytest.mark.parametrize("name", METHODS)
def test_a_part_of_a_batch_must_be_whole(name):
  with pytest.raises(UserError, match="batch_fraction=0.3 of batch_size=8 is 2.4 samples, not an integer"):
    Thinner(name, 0.3)(INDEX, 1.0)
  assert thinning.batch_budget(0.07, 100) == 7  # which is not whole in floats
  for value in (0.0, 1.5):
    with pytest.raises(UserError, match=f"batch_fraction={value}"):
      Thinner(name, value)


@pytest.mark.parametrize("keep", ["keep025", "keep050"])
def test_selective_backprop_agrees_with_composer(keep):
  data = oracles.load("selective_backprop")
  expected, draws = data[f"{keep}_inclusion_frequency_of_sample"], 8000
  thinner = Thinner("selective_backprop", float(data[f"{keep}_keep"]))
  positions, weights = thinner(np.arange(32), data["losses"], draws)
  assert positions.shape[1] == data[f"{keep}_n_selected"] and np.all(weights == 1)
  seen, other = frequencies(positions, 32), int(data[f"{keep}_n_draws"])
  pooled = (seen * draws + expected * other) / (draws + other)
  deviation = np.sqrt(pooled * (1 - pooled) * (1 / draws + 1 / other))
  assert np.all(np.abs(seen - expected) <= 5 * deviation)
  by_rank = seen[np.argsort(data["losses"])].reshape(4, 8).mean(axis=1)
  np.testing.assert_allclose(by_rank, data[f"{keep}_inclusion_frequency_by_loss_quarter"], atol=0.01)


reducible = jax.jit(selectors.create("rho_loss", simulation.table(), 8, batch_fraction=0.25).thin)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(simulation.NUM_SAMPLES)), st.integers(0, 8), st.integers(0, 1000))
def test_rho_loss_takes_the_largest_reducible_losses(order, num_padded, seed):
  index = np.array(order[:8])
  index[:num_padded] = -1
  loss = np.random.default_rng(seed).exponential(size=8)
  irreducible = np.asarray(simulation.table().columns["irreducible_loss"])
  score = np.where(index < 0, -np.inf, loss - irreducible[index])
  batch = simulation.signals(index, loss=loss)
  positions, weights = map(np.asarray, reducible(jax.random.key(seed), (), batch))
  chosen = positions[weights > 0]
  np.testing.assert_array_equal(chosen, np.sort(np.argsort(-score)[: min(2, 8 - num_padded)]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rho_loss_takes_what_is_not_finite_last_and_counts_it(value):
  irreducible = np.where(np.arange(simulation.NUM_SAMPLES) < 6, value, 0.0).astype(np.float32)
  table = simulation.table()._replace(columns={"irreducible_loss": irreducible})
  selector = selectors.create("rho_loss", table, 8, batch_fraction=0.25)
  positions, _ = selector.thin(jax.random.key(0), (), simulation.signals(np.arange(8), loss=1.0))
  np.testing.assert_array_equal(positions, [6, 7])
  _, info = selector.select(jax.random.key(0), (), jnp.int32(0))
  assert int(info["non_finite"]) == 6


def test_rho_loss_says_where_its_column_comes_from():
  with pytest.raises(UserError, match="rho_loss reads the column 'irreducible_loss'.* experiments.score_dataset"):
    selectors.create("rho_loss", simulation.table()._replace(columns={}), 8)


def test_samples_beyond_the_whole_numbers_of_float32_are_told_apart():
  size = (1 << 24) + 8
  index, marked = np.arange(size - 8, size), [size - 7, size - 5]  # both odd: no float32 holds them
  values = np.zeros(size, np.float32)
  values[marked] = 1.0
  table = SampleTable(size, columns={"irreducible_loss": -values})
  batch = simulation.signals(index, loss=1.0)
  rho = rho_loss.rho_loss(table, 8, batch_fraction=0.25)
  assert index[rho.thin(jax.random.key(0), (), batch)[0]].tolist() == marked
  es = evolved.es(table, 8, batch_fraction=0.25, beta1=1.0)  # the weight is the score
  state = evolved.EvolvedState(jnp.asarray(values), jnp.full(size, -1, jnp.int32))
  assert index[es.thin(jax.random.key(0), state, batch)[0]].tolist() == marked
  state = jax.jit(es.observe)(state, simulation.signals(marked, epoch=0))
  assert np.flatnonzero(np.asarray(state.last_epoch) == 0).tolist() == marked
