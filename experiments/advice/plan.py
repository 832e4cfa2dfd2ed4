"""The plan of a pilot: rungs of growing length, and the configs of their runs. Host-side, no arrays.

Successive halving (Jamieson and Talwalkar, arXiv 1502.07943): every method runs in the first rung, the better half also
in the next, which is longer and has more seeds. Plain training runs in every rung, at several lengths around the
budget: it is what a method has to beat.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from configs.sweeps import base
from dynsel_jax import options, selectors

__all__ = ["METHODS", "Given", "Rung", "cell", "epochs_of", "first_fraction", "plain_epochs", "rungs", "survivors"]

# Methods that are worth a pilot: cheap, or reported as lossless; a method that the data or the task does not allow is
# left out with the reason. Random subsets are drawn by rs2, in turn.
METHODS = ("rs2", "infobatch", "es", "stale_es", "kakurenbo", "rrd")

_FEWEST = 3  # epochs of plain training within the budget, below which a pilot says nothing about longer runs
_AROUND = (0.5, 1.0, 1.5)  # lengths of plain runs, as multiples of the budget


class Given(NamedTuple):
  """What the user's command line says."""

  config: str  # the value of the flag --config
  fields: Mapping[str, Any]  # overrides by dotted name
  epochs: int  # of full training
  budget: float  # fraction of full training's compute


class Rung(NamedTuple):
  """One round of the pilot."""

  epochs: int  # the length that stands for full training
  seeds: int


def rungs(given: Given) -> list[Rung]:
  """Returns the rungs: an eighth of full training with two seeds, then a quarter with four.

  Both are longer where the budget would leave plain training fewer than three epochs, and never longer than full
  training.

  Raises:
    UserError: full training itself is too short for that.
  """
  options.check_fraction("budget", given.budget, one=False)
  shortest = math.ceil(_FEWEST / given.budget - 1e-9)
  if given.epochs < shortest:
    raise options.UserError(
      f"epochs={given.epochs} is too short for a pilot at budget={given.budget:g}, which needs at least {shortest};"
      " compare methods at full length with experiments.sweep"
    )
  first = min(given.epochs, max(math.ceil(given.epochs / 8), shortest))
  second = min(given.epochs, max(math.ceil(given.epochs / 4), 2 * first))
  return [Rung(first, 2), Rung(second, 4)] if second > first else [Rung(first, 4)]


def survivors(ranked: list[str]) -> list[str]:
  """Returns the better half of the methods, the best first."""
  return ranked[: math.ceil(len(ranked) / 2)]


def plain_epochs(rung: Rung, budget: float) -> list[int]:
  """Returns the lengths of the rung's plain runs, ascending."""
  return sorted({max(1, round(multiple * budget * rung.epochs)) for multiple in _AROUND})


def first_fraction(method: str, budget: float) -> float:
  """Returns the compute per epoch to expect of a method before it has run, as a fraction of full training's."""
  return budget if "keep_fraction" in selectors.defaults(method) else 1.0


def epochs_of(epochs: int, budget: float, fraction: float) -> int:
  """Returns the number of epochs for which a method costs `budget` of `epochs` epochs of full training.

  Args:
    epochs: of full training.
    budget: fraction of its compute.
    fraction: the method's compute per epoch, as a fraction of full training's.
  """
  return max(1, round(budget * epochs / fraction))


def cell(given: Given, method: str, epochs: int, seed: int) -> base.Cell:
  """Returns the run of a method for so many epochs; one with a keep fraction keeps the budget."""
  path, _, variants = given.config.partition(":")
  fields = {**given.fields, "epochs": epochs, "seed": seed}
  if "keep_fraction" in selectors.defaults(method):
    fields["selector.keep_fraction"] = given.budget
  whole = ",".join(filter(None, (variants, f"selector={method}")))  # of two words for one key the last counts
  return base.Cell(f"{method}_epochs{epochs}", f"seed{seed}", f"{path}:{whole}", fields)
