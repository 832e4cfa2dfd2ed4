"""OrderDP: inclusion probabilities against the closed form and the authors' code."""

import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import order_dp
from tests.support import oracles, simulation
from tests.support.simulation import NUM_SAMPLES


@pytest.mark.parametrize("case", ["pool075_top085", "pool060_top050"])
def test_inclusion_agrees_with_the_closed_form_and_the_authors_code(case):
  reference = oracles.load("order_dp")
  losses = jnp.asarray(reference["losses"])
  pool, top, draws = float(reference[f"{case}_pool_ratio"]), float(reference[f"{case}_top_ratio"]), 2000
  kept = np.asarray(simulation.over_keys(lambda key: order_dp.best_of_pool(key, losses, pool, top), draws))
  assert np.all(kept.sum(axis=1) == reference[f"{case}_n_selected"])
  chance = reference[f"{case}_inclusion_probability_of_sample"]
  deviation = np.sqrt(chance * (1 - chance) / draws)
  assert np.all(np.abs(kept.mean(axis=0) - chance) <= 5 * deviation + 1e-9)
  theirs, ours = int(reference[f"{case}_official_n_draws"]), kept.mean(axis=0)
  spread = np.sqrt(chance * (1 - chance) * (1 / draws + 1 / theirs))
  difference = np.abs(ours - reference[f"{case}_official_inclusion_frequency_of_sample"])
  assert np.all(difference <= 5 * spread + 1e-9)


def test_a_run_keeps_the_best_of_a_pool():
  selector = selectors.create("order_dp", simulation.table(), 6, pool_fraction=1.0, top_fraction=0.5)
  last_loss = np.zeros(NUM_SAMPLES, np.float32)
  for epoch, outcome in enumerate(simulation.run(simulation.compiled(selector), 6)):
    chosen = outcome.chosen
    assert set(chosen) == set(range(NUM_SAMPLES) if epoch == 0 else np.argsort(-last_loss)[:26])
    last_loss[chosen] = simulation.signals(chosen, epoch).loss


@pytest.mark.parametrize("options", [{"pool_fraction": 0.0}, {"top_fraction": 1.1}])
def test_values_out_of_range_are_named(options):
  with pytest.raises(UserError, match=f"{next(iter(options))}="):
    selectors.create("order_dp", simulation.table(), 8, **options)
