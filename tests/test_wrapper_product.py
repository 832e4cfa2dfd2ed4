"""Wrappers over methods, and wrappers over wrappers: the contract of `types`, and what each wrapper promises."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import selectors
from dynsel_jax.selectors import wrappers
from tests.support import simulation
from tests.support.simulation import NUM_CLASSES, NUM_SAMPLES

EPOCHS = 4
OPTIONS = {"annealed": {"first": 0.25, "last": 0.25}, "noise_guarded": {"drop": 0.3, "first": 0.5}}
RANKS = "ranked_by_class"  # changes what a selector observes and not what it selects: its order does not matter
PAIRS = list(itertools.permutations([name for name in wrappers.WRAPPERS if name != RANKS], 2))
PAIRS = [*(names for names in PAIRS if names[1] != "pods"), (RANKS, "class_balanced")]  # pods is the innermost
METHODS_OF_PAIRS = ("infobatch", "es", "kakurenbo", "rcap")  # weights, thinning, refreshing, classes
TABLE = simulation.table()


def _families():
  """The methods by what a wrapper asks of one: its functions, whether it reads labels, and whether it gives weights."""
  families = {}
  for name in selectors.METHODS:
    made = selectors.create(name, TABLE, EPOCHS)
    state = jax.eval_shape(made.init, jax.random.key(0))
    selection, _ = jax.eval_shape(made.select, jax.random.key(0), state, jnp.int32(0))
    seen = (made.thin is None, made.refresh is None, selection.weights is None, "labels" in made.reads)
    families.setdefault(str(seen), []).append(name)
  return list(families.values())


def _drawn():
  """Each wrapper over a third of each family, and over one method of it at least; each method in two of the five.

  As strong as all of them where a wrapper cannot tell the members apart. `ranked_by_class` changes the losses that a
  method observes, which each reads in its own way, and has them all; `pods` needs a keep_fraction, and test_pods.py
  has its other methods.
  """
  others = [name for name in wrappers.WRAPPERS if name not in (RANKS, "pods")]
  drawn = [(method, RANKS) for method in selectors.METHODS if method != "rho_loss"]  # refused: test_ranked_by_class.py
  drawn += [(method, "pods") for method in ("eswp", "rrd", "top")]
  for family in _families():
    for (place, method), (number, name) in itertools.product(enumerate(family), enumerate(others)):
      if (place - number) % min(len(family), 3) == 0:
        drawn.append((method, name))
  return drawn


LABELS = np.asarray(TABLE.labels)


def balanced(selection):
  keep, sizes = np.asarray(selection.keep), np.bincount(LABELS, minlength=NUM_CLASSES)
  kept = np.bincount(LABELS[keep], minlength=NUM_CLASSES)
  return np.all(np.abs(kept - keep.sum() * sizes / NUM_SAMPLES) < 1)


def run(method, names):
  """Runs a method in wrappers and checks what all of them owe."""
  wrapped_in = {name: OPTIONS.get(name, {}) for name in names}
  selector = selectors.create(method, TABLE, EPOCHS, wrapped_in)
  bare = selectors.create(method, TABLE, EPOCHS)
  assert (selector.thin is None, selector.refresh is None) == (bare.thin is None, bare.refresh is None)
  program = simulation.compiled(selector)
  history = simulation.run(program, EPOCHS)
  for epoch in history:
    simulation.assert_epoch(epoch)
    assert [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(epoch.state)] == [
      (x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(history[0].state)
    ]
  state = history[1].state
  restored = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), state)
  again = simulation.run_epoch(program, restored, 2)
  simulation.assert_same(again.selection, history[2].selection)
  simulation.assert_same(again.plan, history[2].plan)
  simulation.assert_same(again.state, history[2].state)
  seen = simulation.signals([3, 9, 27, 1, 40, 41, 52, -1], epoch=2)
  once = program.observe(state, seen)
  simulation.assert_same(program.observe(once, seen), once)
  assert all(leaf.size > 0 for leaf in jax.tree.leaves(state))
  assert program.select.traces == program.observe.traces == 1
  return history


@pytest.mark.parametrize(("method", "name"), _drawn())
def test_wrappers_work_over_methods(method, name):
  history = run(method, (name,))
  selections = [epoch.selection for epoch in history]
  if name == "class_balanced":
    assert all(map(balanced, selections))
  if name == "annealed":
    assert all(simulation.is_full(selections[epoch], epoch) for epoch in (0, 3))
  if name == "warmed_up":
    assert simulation.is_full(selections[0])
  if name == "rescaled":
    assert all(np.all(epoch.plan.weights == 1) for epoch in history if epoch.chosen.size == NUM_SAMPLES)
  if name == "noise_guarded":
    suspected = [int(epoch.info["suspected"]) for epoch in history]
    assert suspected[:2] == [0, 0] and min(suspected[2:]) > 0
    assert all(epoch.chosen.size <= NUM_SAMPLES - number for epoch, number in zip(history, suspected, strict=True))


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_wrappers_work_over_wrappers(number):
  names = PAIRS[number]
  history = run("rcap" if "pods" in names else METHODS_OF_PAIRS[number % len(METHODS_OF_PAIRS)], names)
  if names[1] == "class_balanced":
    assert all(balanced(epoch.selection) for epoch in history)
  if names[1] == "annealed":
    assert simulation.is_full(history[3].selection, 3)
