"""Inputs that break what is written for tame ones: odd scores in the table, sizes at which a float skips numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import batching, selectors
from dynsel_jax.options import UserError
from dynsel_jax.selectors import memory
from dynsel_jax.types import SampleTable, Selection
from tests.support import simulation

quick = functools.partial(jax.jit, compiler_options=simulation.QUICK)
READS_COLUMNS = [name for name in selectors.METHODS if selectors.columns(name)]
REFUSE_A_COLUMN_OF_NOTHING = ("central", "dual", "proxy", "rho_loss", "strata", "top")
FAULTS = {
  "equal": lambda column: jnp.full_like(column, 0.5),
  "nan": lambda column: column.at[7].set(jnp.nan),
  "inf": lambda column: column.at[7].set(jnp.inf),
  "all nan": lambda column: jnp.full_like(column, jnp.nan),
  "negative": lambda column: column - 2.0,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", READS_COLUMNS)
def test_odd_columns_still_give_a_plan(name, fault):
  table = simulation.table()
  table = table._replace(columns={column: FAULTS[fault](values) for column, values in table.columns.items()})
  if name in REFUSE_A_COLUMN_OF_NOTHING and fault == "all nan":
    with pytest.raises(UserError, match="contains no finite value"):
      selectors.create(name, table, 4)
    return
  program = simulation.compiled(selectors.create(name, table, 4))
  for epoch in simulation.run(program, 3):
    simulation.assert_epoch(epoch)


@pytest.mark.parametrize("name", selectors.METHODS)
def test_five_thousand_samples_are_told_apart(name):
  n = 4999  # half precision counts to 2,048, and up to 4,096 the order is sorted
  rng = np.random.default_rng(0)
  columns = {column: jnp.asarray(rng.random(n), jnp.float32) for column in selectors.columns(name)}
  selector = selectors.create(name, SampleTable(n, jnp.asarray(np.arange(n) % 7, jnp.int32), 7, columns), 8)
  state = quick(selector.init)(jax.random.key(0))
  seen = simulation.signals(np.arange(n), loss=rng.lognormal(size=n))
  selection, _ = quick(selector.select)(jax.random.key(1), quick(selector.observe)(state, seen), jnp.int32(3))
  plan = simulation.order(jax.random.key(2), selection)
  simulation.assert_selection(selection, n)
  simulation.assert_plan(plan, selection)
  assert np.max(plan.indices) > 4096


def test_positions_above_two_to_the_24_are_told_apart():
  n = (1 << 24) + 4  # float32 holds no odd number there
  wanted = [n - 3, n - 1]
  keep = jnp.zeros(n, bool).at[jnp.array(wanted)].set(True)
  plan = quick(batching.order)(jax.random.key(0), Selection(keep))
  assert int(plan.size) == 2 and sorted(plan.indices[:2].tolist()) == wanted
  seen = quick(memory.scatter)(jnp.zeros(n, bool), simulation.signals([*wanted, -1]), jnp.bool_(True))
  assert np.flatnonzero(seen).tolist() == wanted
