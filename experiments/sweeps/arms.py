"""The arms of a sweep over learning rates and seeds: each tunes its rate on a few seeds, then trains the others at it.

An arm is everything of a sweep that differs only by learning rate and seed: a length of plain training, or a method at
a budget. Host-side.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from configs.sweeps import base
from dynsel_jax import options
from dynsel_jax.report import frontier
from dynsel_jax.runs import finished
from dynsel_jax.runs.interruption import Interrupted
from experiments.sweeps import run_cell
from experiments.sweeps.run_cell import Outcome, Task

__all__ = ["Arm", "arms", "make", "tuned_rate"]


class Arm(NamedTuple):
  """The cells of a sweep that differ only by learning rate and seed."""

  name: str
  cells: dict[float, dict[int, base.Cell]]  # by learning rate and seed, each in the sweep's order

  @property
  def seeds(self) -> list[int]:
    """The seeds of the first rate, in the sweep's order."""
    return list(next(iter(self.cells.values())))


def arms(cells: Sequence[base.Cell]) -> list[Arm]:
  """Returns the arms of a sweep, in the order of their first cells; each cell sets `learning_rate` and `seed`."""
  found: dict[str, Arm] = {}
  for cell in cells:
    rest = {name: value for name, value in cell.fields.items() if name not in ("learning_rate", "seed")}
    rate, seed = cell.fields["learning_rate"], cell.fields["seed"]
    arm = found.setdefault(repr((cell.config, sorted(rest.items()))), Arm(cell.row.rpartition("-")[0], {}))
    arm.cells.setdefault(rate, {})[seed] = cell
  return list(found.values())


def _outcome(folder: pathlib.Path, seed: int) -> tuple[frontier.Outcome, finished.Metric] | None:
  run = run_cell.finished_run(folder)
  if run is None:
    return None
  return frontier.Outcome(seed, 0.0, finished.final(run), run_cell.validation(run)), run.metric


def tuned_rate(arm: Arm, workdir: pathlib.Path, seeds: Sequence[int]) -> float | None:
  """Returns the learning rate that is best on the validation set over `seeds`, or None before all of them are done."""
  found = [[_outcome(workdir / of_rate[seed].name, seed) for seed in seeds] for of_rate in arm.cells.values()]
  if not all(one for runs in found for one in runs):
    return None
  metric = next(one[1] for runs in found for one in runs if one)
  place = frontier.tuned([[one[0] for one in runs if one] for runs in found], metric)
  return None if place is None else list(arm.cells)[place]


def make(
  arm: Arm,
  workdir: pathlib.Path,
  tuning_seeds: int,
  config_of: Callable[[base.Cell], Any],
  note: Callable[[base.Cell, Outcome], None],
  hooks: dict[str, Any],
) -> None:
  """Makes the runs of an arm that are not finished.

  Args:
    arm: the arm.
    workdir: the folder that contains the runs' folders.
    tuning_seeds: the number of seeds that run at every rate. The others run at the rate chosen on these, or not at all
      if there is no choice: a run failed, or the data set has no validation set.
    config_of: returns the config of a cell.
    note: is told the outcome of each run.
    hooks: arguments of `offline.train_and_evaluate`.

  Raises:
    Interrupted: a signal asked to stop.
  """
  first, others = arm.seeds[:tuning_seeds], arm.seeds[tuning_seeds:]

  def run(cells: Sequence[base.Cell]) -> None:
    for cell in cells:
      task = Task(cell.name, config_of(cell), workdir / cell.name)
      try:
        if run_cell.finished_summary(task) is not None:
          continue
      except options.UserError as error:
        note(cell, run_cell.failure(error))
        continue
      outcome = run_cell.attempt(task, **hooks)
      note(cell, outcome)
      if outcome.state == "stopped":
        raise Interrupted(f"{cell.name}: {outcome.text}")

  # Seed by seed: the columns of a method may depend on the seed, and programs are shared only with equal columns.
  run([of_rate[seed] for seed in first for of_rate in arm.cells.values()])
  rate = tuned_rate(arm, workdir, first)
  if rate is not None:
    run([arm.cells[rate][seed] for seed in others])
