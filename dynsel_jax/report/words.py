"""The fixed words of a report: its recipe line, and the meaning of what its tables show. Pure functions."""

from collections.abc import Sequence

from dynsel_jax import options
from dynsel_jax.report.groups import Group, device

__all__ = ["NOTHING_FINISHED", "WORDS", "overview", "recipe"]

NOTHING_FINISHED = "No run is finished yet"
_LONGEST = 200  # characters

WORDS = (
  (
    "interval",
    "The difference method minus reference, paired by seed, with the 95 % interval of Student's t. Each stands for its"
    " pair alone: one in twenty misses the true difference by chance.",
  ),
  ("not distinguishable", "The interval holds 0: chance alone could have made the difference."),
  (
    "passes",
    "The samples that went forward or backward through the model in the whole run. Compute counts a third for a forward"
    " pass and two thirds for a backward pass.",
  ),
  (
    "seconds",
    "What the method costs: features and factors as if nothing had been cached, selecting, training and scoring."
    " Evaluation, loading, set-up, compiling, checkpoints and records are in the table of phases.",
  ),
  (
    "shorter plain runs",
    "Full training for fewer epochs, the learning rate chosen for each length on a validation set: what selection has"
    " to beat at its own compute.",
  ),
  (
    "against random",
    "Of several groups of random the one with the same keep fraction, or else the nearest realised one, then named.",
  ),
  (
    "target",
    "99 % of full training's mean in the same recipe, or of the best method's where there is none; a loss is divided by"
    " 0.99. Means are over the runs that reached it.",
  ),
  ("Gini coefficient", "0 if all samples were used equally often, near 1 if few had all the visits."),
  (
    "factors",
    "A factor is covered if it fires in a sample of the epoch. Its rate is its firings per visit over those per sample"
    " of the whole set: 1 for samples at random. All are means over the epochs.",
  ),
)


def overview(groups: Sequence[Group]) -> str:
  """Returns the heading of the first picture."""
  metric = groups[0].metric.words
  return f"{metric[:1].upper()}{metric[1:]} against compute"


def recipe(groups: Sequence[Group]) -> str:
  """Says in a line what the runs of the groups have in common: task, epochs, batch size, seeds, devices."""
  runs = [run for group in groups for run in group.runs]
  epochs = _range([run.config.get("epochs") for run in runs])
  batch = _range([run.config.get("batch_size") for run in runs])
  seeds = sorted({run.seed for run in runs})
  devices = sorted({device(run) for run in runs} - {""})
  parts = [
    f"{groups[0].task}, test {groups[0].metric.words}",
    f"{epochs} epochs" if epochs else "",
    f"batches of {batch}" if batch else "",
    f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds",
    ", ".join(devices),
  ]
  return options.printable("; ".join(filter(None, parts)), _LONGEST)


def _range(values: Sequence[object]) -> str:
  numbers = sorted({value for value in values if isinstance(value, int)})
  if not numbers:
    return ""
  return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
