"""Breaks runs on purpose, and watches memory over long ones.

    python -m experiments.faults campaign --faults=200 --workdir=runs/faults      a kill, a flipped byte, a full disk
    python -m experiments.faults soak --epochs=2000 --runs=20 --workdir=runs/soak

A campaign that is stopped by a signal gives up its running fault and prints the table of those before.
`docs/faults.md` says what a run promises after a fault, and what came of the campaign and the soak.
"""

import pathlib

from absl import flags

from dynsel_jax import options
from dynsel_jax.runs import interruption
from experiments import cli
from experiments.faults import campaign, soak


def _campaign(folder: pathlib.Path) -> int:
  options.check_positive("faults", flags.FLAGS.faults)
  outcomes = []
  with interruption.stop_requests() as stop:
    for outcome in campaign.campaign(folder, flags.FLAGS.faults, flags.FLAGS.seed, flags.FLAGS.first):
      if stop():  # Ctrl-C reaches the run, too, so that its end says nothing about the fault
        break
      outcomes.append(outcome)
      print(f"{'WRONG ' if outcome.wrong else ''}{outcome.kind} {outcome.what}: {outcome.ended}", flush=True)
  print(f"\n{campaign.table(outcomes)}")
  return int(any(outcome.wrong for outcome in outcomes))


def _soak(folder: pathlib.Path) -> int:
  options.check_positive("epochs", flags.FLAGS.epochs)
  options.check_positive("runs", flags.FLAGS.runs)
  for line in soak.soak(folder, flags.FLAGS.epochs, flags.FLAGS.runs):
    print(line, flush=True)
  return 0


_COMMANDS = {"campaign": _campaign, "soak": _soak}


def main(name: str = "campaign", *others: str) -> int:
  """Runs the campaign or the soak; the status is 1 if a fault ended wrong."""
  options.check_choice("command", name, _COMMANDS)
  if others:
    raise options.UserError(f"unexpected argument {others[0]!r}")
  return _COMMANDS[name](pathlib.Path(options.expand_home("workdir", flags.FLAGS.workdir)).absolute())


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "The folder for the runs.", required=True)
  flags.DEFINE_integer("faults", 200, "Number of faults of a campaign.")
  flags.DEFINE_integer("seed", 0, "Seed of a campaign.")
  flags.DEFINE_integer("first", 0, "Number of a campaign's first fault, to see one again.")
  flags.DEFINE_integer("epochs", 2000, "Length of the long run of a soak.")
  flags.DEFINE_integer("runs", 20, "Number of the short runs of a soak, in one process.")
  cli.run(main, with_arguments=True)
