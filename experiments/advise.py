"""Finds out by a pilot how to train at a fraction of full training's compute; the same command continues it.

    python -m experiments.advise --config=configs/digits.py --workdir=runs/advice [--budget=0.4] \
        [--config.FIELD=VALUE ...]

Tries shorter plain runs and several methods for a fraction of the config's epochs, drops the worse half, and tries the
others for longer and with more seeds. WORKDIR/advice.md says which to take, what to expect and how sure that is, and
WORKDIR/recommended.py is its config. Where no method beats plain training at the same compute beyond the interval of
the pilot's seeds, the advice is to train for fewer epochs on everything.

The runs are judged on the validation set if the data have one, else on the test set, whose numbers the advice then
flatters. The pilot's own cost stands beside what it saves.
"""

import math
import pathlib
import pprint
import shlex
from collections.abc import Callable, Mapping, Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from configs.sweeps import base
from dynsel_jax import data, options
from dynsel_jax.report.frontier import Outcome
from dynsel_jax.runs import files, finished
from dynsel_jax.runs.interruption import Interrupted, stop_requests
from dynsel_jax.runs.workdir import check_writable
from experiments import cli, sweep
from experiments.advice import plan, verdict
from experiments.advice.plan import Given
from experiments.advice.verdict import Round
from experiments.sweeps import one_program, run_cell

PLAIN = verdict.PLAIN


class _Pilot:
  """The runs of a pilot, made one after another, and what they told."""

  def __init__(self, given: Given, workdir: pathlib.Path, stop: Callable[[], str]):
    self.given, self.workdir = given, workdir
    self._hooks = {
      "prepare": run_cell.prepare_once(data.prepare),
      "build": one_program.build_once(),
      "stop": stop,
    }
    self.fractions: dict[str, float] = {}  # compute per epoch by method, as a fraction of full training's
    self.left_out: dict[str, str] = {}
    self.found: dict[pathlib.Path, finished.Run] = {}  # a run may serve two rungs

  def _make(self, cell: base.Cell) -> finished.Run | str:
    """Returns the finished run of a cell, or why it failed."""
    task = run_cell.Task(cell.name, sweep.config_of(cell), self.workdir / "runs" / cell.name)
    if run_cell.finished_summary(task) is None:
      outcome = run_cell.attempt(task, **self._hooks)
      print(options.printable(f"{cell.name}: {outcome.text}, {outcome.seconds:.1f} s"), flush=True)
      if outcome.state == "stopped":
        raise Interrupted(f"{cell.name}: {outcome.text}")
      if outcome.state == "failed":
        return outcome.text
    run = run_cell.finished_run(task.folder)
    return f"its folder {task.folder} is damaged" if run is None else run

  def runs_of(self, method: str, epochs: int, seeds: int) -> list[finished.Run]:
    """Returns the runs of a method, one for each seed; none if one failed, which is then the reason to leave it out.

    Raises:
      UserError: a plain run failed.
    """
    runs = []
    for seed in range(seeds):
      made = self._make(plan.cell(self.given, method, epochs, seed))
      if isinstance(made, str):
        if method == PLAIN:
          raise options.UserError(made)
        self.left_out[method] = made
        return []
      runs.append(made)
    self.found |= {run.path: run for run in runs}
    cost = sum(_compute(run) for run in runs) / len(runs)
    self.fractions[method] = cost / (finished.num_samples(runs[0]) * epochs)
    return runs

  def round(self, rung: plan.Rung, methods: Sequence[str]) -> Round:
    """Makes the runs of a rung."""
    budget = self.given.budget
    lengths = plan.plain_epochs(rung, budget)
    plain = {epochs: list(map(_outcome, self.runs_of(PLAIN, epochs, rung.seeds))) for epochs in lengths}
    made: dict[str, list[Outcome]] = {}
    for method in methods:
      fraction = self.fractions.get(method, plan.first_fraction(method, budget))
      made[method] = list(
        map(_outcome, self.runs_of(method, plan.epochs_of(rung.epochs, budget, fraction), rung.seeds))
      )
    return Round(rung.epochs, plain, {method: runs for method, runs in made.items() if runs})


def _compute(run: finished.Run) -> float:
  """Returns a run's compute in samples of plain training: a forward pass costs a third of a visit."""
  made = run.summary or {}
  return (made["forward_visits"] + 2 * made["backward_visits"]) / 3


def _outcome(run: finished.Run) -> Outcome:
  judged = run_cell.validation(run)
  return Outcome(run.seed, _compute(run), finished.final(run) if math.isnan(judged) else judged)


def _config_file(config: ml_collections.ConfigDict) -> str:
  """Returns the text of a config file without variants."""
  fields = pprint.pformat(config.to_dict(), sort_dicts=False, width=110)
  return (
    '"""The run that experiments.advise recommends."""\n\nimport ml_collections\n\n\n'
    f"def get_config() -> ml_collections.ConfigDict:\n  return ml_collections.ConfigDict(\n{fields}\n  )\n"
  )


def advise(given: Given, workdir: str) -> str:
  """Makes the pilot, or what is left of it, writes advice.md, advice.json and recommended.py, and returns the advice.

  Raises:
    UserError: a value is wrong, or a plain run cannot be made.
    Interrupted: a signal asked to stop; the same call continues.
  """
  folder = pathlib.Path(options.expand_home("workdir", workdir))
  rungs = plan.rungs(given)
  check_writable(str(folder))
  with stop_requests() as stop:
    pilot, methods, rounds = _Pilot(given, folder, stop), list(plan.METHODS), []
    for number, rung in enumerate(rungs, 1):
      print(f"rung {number} of {len(rungs)}: {', '.join(('plain training', *methods))}", flush=True)
      rounds.append(pilot.round(rung, methods))
      metric = next(iter(pilot.found.values())).metric
      methods = plan.survivors([name for name, _ in verdict.ranked(rounds[-1], metric)])
  return _write(given, folder, pilot, rounds)


def _write(given: Given, folder: pathlib.Path, pilot: _Pilot, rounds: Sequence[Round]) -> str:
  """Writes the files, and returns the text of advice.md."""
  first = next(iter(pilot.found.values()))
  whole = finished.num_samples(first) * given.epochs
  advice = verdict.advise(rounds[-1], given.budget * whole, first.metric)
  epochs = plan.epochs_of(given.epochs, given.budget, pilot.fractions[advice.method])
  cost = sum(map(_compute, pilot.found.values())) / whole
  seed = int(given.fields.get("seed", 0))
  config, path = sweep.config_of(plan.cell(given, advice.method, epochs, seed)), folder / "recommended.py"
  files.write_text(path, _config_file(config))
  command = ["python", "-m", "experiments.train", f"--config={path}", f"--workdir={folder / 'recommended'}"]
  text = verdict.text(
    advice,
    rounds,
    first.metric,
    budget=given.budget,
    epochs=epochs,
    pilot=cost,
    judged="test" if math.isnan(run_cell.validation(first)) else "validation",
    left_out=pilot.left_out,
    command=shlex.join(command),
  )
  numbers: Mapping[str, object] = {
    "method": advice.method,
    "epochs": epochs,
    "budget": given.budget,
    "expected": advice.expected,
    "metric": first.metric._asdict(),
    "best": advice.best,
    "position": None if advice.position is None else advice.position._asdict(),
    "pilot_full_trainings": cost,
    "left_out": pilot.left_out,
  }
  files.write_json(folder / "advice.json", numbers)
  files.write_text(folder / "advice.md", text)
  return text


def main(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Makes the pilot, and prints the advice."""
  overrides = dict(config_flags.get_override_values(flags.FLAGS["config"]))
  if chosen := [name for name in overrides if name.startswith("selector.")]:
    raise options.UserError(f"config.{chosen[0]}={overrides[chosen[0]]!r}: the pilot chooses the method; leave it out")
  if config.match_steps:
    raise options.UserError("match_steps=True: the pilot compares runs of equal compute; leave it out")
  named = config_flags.get_config_filename(flags.FLAGS["config"])
  text = advise(Given(named, overrides, config.epochs, flags.FLAGS.budget), workdir)
  print("\n".join(map(options.printable, text.splitlines())))


if __name__ == "__main__":
  flags.DEFINE_float("budget", 0.4, "The compute to train with, as a fraction of full training's.")
  cli.run_on_config(main)
