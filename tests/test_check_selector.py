"""The checker of selectors: each planted mistake is told in words, and a selector without one passes."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax.options import UserError
from dynsel_jax.selectors import memory
from dynsel_jax.training import checks, contract
from dynsel_jax.types import Selection, Selector
from experiments import check_selector
from tests.support import simulation

NUM_SAMPLES = 60
SHAPES = simulation.signals([3, 4, 5, -1] * 4)._replace(extras={})


def init(key):
  return jnp.zeros(NUM_SAMPLES)


def select(key, loss, epoch):
  score = jnp.where(jnp.isfinite(loss), loss, jnp.inf)
  return Selection(score >= jnp.median(score)), {}


def observe(loss, signals):
  return memory.scatter(loss, signals, signals.loss)


RIGHT = Selector(init, select, observe)  # the samples with the highest last loss


def selecting(**fields):
  """A selector whose `select` gives other fields, functions of its key."""
  return RIGHT._replace(
    select=lambda key, loss, epoch: (Selection(**{"keep": loss >= 0, **{n: f(key) for n, f in fields.items()}}), {})
  )


def thinning(positions):
  return RIGHT._replace(thin=lambda key, loss, signals: (positions, jnp.ones(4)))


MISTAKES = {
  "padding": (
    contract.padding,
    RIGHT._replace(observe=lambda loss, signals: loss.at[signals.index].set(signals.loss)),
    "observe changes the state on rows with index -1, which are padding",
  ),
  "nothing kept": (
    contract.first_selection,
    selecting(keep=lambda key: jnp.zeros(NUM_SAMPLES, bool)),
    "select keeps no sample in epoch 1",
  ),
  "negative": (
    contract.first_selection,
    selecting(weights=lambda key: jnp.full(NUM_SAMPLES, -1.0)),
    "weights from -1.0 to -1.0 in epoch 1",
  ),
  "rate": (
    contract.first_selection,
    selecting(learning_rate_multiplier=lambda key: jnp.float32(0)),
    "learning_rate_multiplier=0.0 in epoch 1",
  ),
  "later": (
    contract.later_selections,
    RIGHT._replace(select=lambda key, loss, epoch: (Selection(loss <= 0), {})),
    "select keeps no sample in epoch 2",
  ),
  "numpy draws": (
    contract.repeats,
    selecting(keep=lambda key: jnp.asarray(np.random.random(NUM_SAMPLES) < 0.5)),
    "select gives another selection for the same key",
  ),
  "key": (
    contract.keys,
    selecting(
      keep=lambda key: (jax.random.uniform(key, NUM_SAMPLES) < 0.9) | (jax.random.uniform(key, NUM_SAMPLES) < 0.5)
    ),
    "select uses its key twice",
  ),
  "counting": (
    contract.order_of_steps,
    RIGHT._replace(observe=lambda loss, signals: memory.scatter(loss, signals, memory.gather(loss, signals) + 1.0)),
    "observe changes the state when it is shown a step of an epoch again",
  ),
  "nan": (
    contract.bad_losses,
    RIGHT._replace(select=lambda key, loss, epoch: (Selection(loss >= jnp.mean(loss)), {})),
    "select keeps no sample after losses of nan; ranking.sanitize",
  ),
  "out of range": (
    contract.thinning,
    thinning(jnp.arange(14, 18, dtype=jnp.int32)),
    "positions 14 to 17 of type int32",
  ),
  "twice": (contract.thinning, thinning(jnp.zeros(4, jnp.int32)), "thin gives a position twice"),
  "float": (contract.thinning, thinning(jnp.arange(4.0)), "of type float32; they must be int32"),
  "picks padding": (contract.thinning, thinning(jnp.arange(12, 16, dtype=jnp.int32)), "thin picks padding"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_words_by_its_check(mistake):
  check, selector, words = MISTAKES[mistake]
  with jax.debug_key_reuse(False):  # the tests make it an error wherever it happens
    assert words in check(contract.Trial(selector, NUM_SAMPLES, SHAPES))
  assert not check(contract.Trial(RIGHT, NUM_SAMPLES, SHAPES))


@pytest.mark.parametrize("mistake", ["padding", "nothing kept", "negative", "twice"])
def test_a_run_refuses_a_users_own_before_its_first_step(mistake):
  _, selector, words = MISTAKES[mistake]
  with pytest.raises(UserError, match=f"selector=mine: .*{words}"):
    contract.check_values("mine", selector, NUM_SAMPLES, SHAPES)


@pytest.fixture
def lab(monkeypatch):
  module = types.ModuleType("lab_of_mistakes")
  monkeypatch.setitem(sys.modules, "lab_of_mistakes", module)
  return module


@pytest.mark.parametrize(
  ("selector", "status", "last"), [(RIGHT, 0, "keeps the contract"), (MISTAKES["padding"][1], 1, "1 of 9 checks found")]
)
def test_the_command_says_what_it_tried_and_found(selector, status, last, lab, capsys):
  lab.method = lambda table, epochs: selector._replace(reads=("el2n", "my_score"))
  assert check_selector.main("lab_of_mistakes:method") == status
  lines = capsys.readouterr().out.splitlines()
  assert [line.partition(" ")[0] for line in lines[:-1]].count("wrong") == status
  assert len(lines) == 1 + len(contract.CHECKS) + 2
  assert lines[-2] == "note   reads 'my_score', a column that a score file of yours must give"
  assert lines[-1].startswith(f"lab_of_mistakes:method: {last}") or last in lines[-1]


@pytest.mark.parametrize("name", ["full", "es", "kakurenbo"])  # of each kind: a selection, thinned batches, refreshed
def test_registered_methods_pass(name, capsys):
  assert check_selector.main(name) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
  ("selector", "words"),
  [
    (
      RIGHT._replace(select=lambda key, loss, epoch: select(key, loss, epoch) if epoch > 1 else None),
      r"select uses the value of a traced array \(.*jnp.where",
    ),
    (
      selecting(weights=lambda key: jnp.ones(NUM_SAMPLES, jnp.int32)),
      r"weights of shape \(60,\) and type int32; they must be \(60,\) float32",
    ),
    (selecting(keep=lambda key: jnp.arange(60)), r"keep of shape \(60,\) and type int32; it must be \(60,\) bool"),
  ],
)
def test_what_shapes_show_is_told_in_one_line(selector, words, lab):
  lab.method = lambda table, epochs: selector
  with pytest.raises(UserError, match=words):
    check_selector.main("lab_of_mistakes:method")


def test_a_column_of_a_signals_name_does_not_pass_for_the_signal():
  """`el2n` is a score of score files, and a signal of classification alone."""
  selector = RIGHT._replace(
    observe=lambda loss, signals: memory.scatter(loss, signals, signals.extras["el2n"]), reads=("el2n",)
  )
  shapes = simulation.signals([3, 4, 5, -1])
  checks.check_selector("mine", selector, NUM_SAMPLES, shapes, 1)
  with pytest.raises(UserError, match="observe fails .* KeyError: 'el2n', which is no signal that it is given"):
    checks.check_selector("mine", selector, NUM_SAMPLES, shapes._replace(extras={}), 1)
