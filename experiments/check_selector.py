"""Tries a selector of your own on made-up signals, and says in words where it breaks the contract.

    python -m experiments.check_selector examples.new_selector:forgotten

Nothing is trained. The selector is built with its default options for 60 samples of three classes, with every column
and signal that registered scores and tasks give, and the columns that it reads beside them.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dynsel_jax import options, selectors
from dynsel_jax.tasks import classification
from dynsel_jax.training import checks, contract
from dynsel_jax.types import SampleTable, Selector, Signals
from experiments import cli

__all__ = ["main"]

NUM_SAMPLES, NUM_CLASSES, BATCH_SIZE, EPOCHS = 60, 3, 16, 6


def _table(columns: set[str]) -> SampleTable:
  rng = np.random.default_rng(0)
  labels = jnp.asarray(np.arange(NUM_SAMPLES) % NUM_CLASSES, jnp.int32)
  held = {name: jnp.asarray(rng.random(NUM_SAMPLES), jnp.float32) for name in sorted(columns)}
  return SampleTable(NUM_SAMPLES, labels, NUM_CLASSES, held)


def _signals() -> Signals:
  """Returns the shapes and types of a step's signals, with all extras of the registered tasks."""
  row = jax.ShapeDtypeStruct((BATCH_SIZE,), jnp.float32)
  logits, labels = jax.ShapeDtypeStruct((BATCH_SIZE, NUM_CLASSES), jnp.float32), jnp.zeros(BATCH_SIZE, jnp.int32)
  extras = jax.eval_shape(classification.signals, logits, labels)
  index, trained = (jax.ShapeDtypeStruct((BATCH_SIZE,), dtype) for dtype in (jnp.int32, jnp.bool_))
  return Signals(index, row, trained, jax.ShapeDtypeStruct((), jnp.int32), extras)


def _built(name: str, known: set[str], signals: Signals) -> tuple[Selector, list[str]]:
  """Builds the selector; returns it with the names that it reads and that no registered score or task gives."""
  selector = selectors.create(name, _table(known), EPOCHS)
  unknown = [read for read in selector.reads if read not in {*known, *signals.extras, "labels"}]
  return selectors.create(name, _table(known | set(unknown)), EPOCHS), unknown


def main(name: str = "") -> int:
  """Prints what was tried and what is wrong; returns the exit status."""
  if not name:
    raise options.UserError("name a selector by its path: experiments.check_selector examples.new_selector:forgotten")
  known, signals = {column for method in selectors.METHODS for column in selectors.columns(method)}, _signals()
  selector, unknown = _built(name, known, signals)
  checks.check_selector(name, selector, NUM_SAMPLES, signals, 1)
  print("ok     shapes and types, and no value of a traced array is used")
  found = contract.findings(selector, NUM_SAMPLES, signals)
  for words, wrong in found.items():
    print(options.printable(f"wrong  {wrong}" if wrong else f"ok     {words}"))
  for read in unknown:
    print(options.printable(f"note   reads {read!r}, a column that a score file of yours must give"))
  wrongs = sum(map(bool, found.values()))
  print(
    options.printable(
      f"{name}: {wrongs} of {len(found) + 1} checks found something wrong" if wrongs else f"{name} keeps the contract"
    )
  )
  return 1 if wrongs else 0


if __name__ == "__main__":
  cli.run(main, with_arguments=True)
