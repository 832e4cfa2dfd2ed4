"""What follows from a pilot: the methods ranked against shorter plain runs, and the advice in words. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dynsel_jax import options
from dynsel_jax.metric import Metric
from dynsel_jax.report import frontier
from dynsel_jax.report.frontier import Outcome, Position

__all__ = ["Advice", "Round", "advise", "expected", "ranked", "text"]

PLAIN = frontier.PLAIN


class Round(NamedTuple):
  """The finished runs of one rung."""

  epochs: int  # the length that stands for full training
  plain: Mapping[int, Sequence[Outcome]]  # by epochs; costs are compute, in samples of plain training
  methods: Mapping[str, Sequence[Outcome]]  # by method


class Advice(NamedTuple):
  """What to do, and what to expect."""

  method: str  # "full" for plain training
  position: Position | None  # of the best method of the last rung; None if no method could run
  best: str  # that method
  compared: int  # number of methods in the last rung
  expected: float  # the metric at full length
  half: float  # half the width of its interval, of the pilot's seeds alone; nan for plain training


def ranked(made: Round, metric: Metric) -> list[tuple[str, Position]]:
  """Returns the methods by their distance to plain training at equal compute, the best first.

  A method whose cost lies outside that of the plain runs comes last.
  """
  curve = frontier.curve(list(made.plain.values()), metric)
  if curve is None:
    return []
  sign = 1.0 if metric.larger_is_better else -1.0
  found = [(name, frontier.position(curve, runs, metric)) for name, runs in made.methods.items()]

  def order(entry: tuple[str, Position]) -> float:
    distance = entry[1].difference.mean
    return math.inf if math.isnan(distance) else -sign * distance

  return sorted(found, key=order)


def expected(made: Round, cost: float, metric: Metric) -> float:
  """Returns what plain training would reach at `cost`, by the line in log cost through its two longest runs.

  The line is never taken to get worse with the cost, and a percentage stays within its range.
  """
  curve = frontier.curve(list(made.plain.values()), metric)
  if curve is None:
    return math.nan
  (low, high), (first, last) = np.log(curve.costs[-2:]), curve.means[-2:]
  slope = (last - first) / (high - low)
  if slope != 0 and (slope > 0) != metric.larger_is_better:
    slope = 0.0
  value = float(last + slope * (math.log(cost) - high))
  return min(max(value, 0.0), 1.0) if metric.unit == "%" else value


def advise(made: Round, cost: float, metric: Metric) -> Advice:
  """Returns the advice that follows from the last rung.

  A method is recommended only if its interval lies above plain training at the same compute; otherwise the simpler is
  better: fewer epochs on everything.

  Args:
    made: the last rung.
    cost: the compute of the recommended run, in samples of plain training.
    metric: the headline.
  """
  order, plain = ranked(made, metric), expected(made, cost, metric)
  if not order:
    return Advice(PLAIN, None, "", 0, plain, math.nan)
  best, position = order[0]
  if position.word != "above":
    return Advice(PLAIN, position, best, len(order), plain, math.nan)
  half = (position.difference.high - position.difference.low) / 2
  return Advice(best, position, best, len(order), plain + position.difference.mean, half)


def _distance(position: Position, metric: Metric) -> str:
  unit = " points" if metric.unit == "%" else f" {metric.unit}".rstrip()
  mean, low, high, n = position.difference
  form = "+.2f" if metric.unit == "%" else "+.4g"
  shown = [f"{value * metric.scale:{form}}" for value in (mean, low, high)]
  interval = "" if math.isnan(low) else f" [{shown[1]}, {shown[2]}]"
  return f"{shown[0]}{unit}{interval}, {n} seeds"


def _reason(advice: Advice, metric: Metric) -> str:
  """Says in a sentence or two how sure the advice is."""
  if advice.position is None:
    return "No method could run on these data, so that nothing competes with plain training."
  distance, word = _distance(advice.position, metric), advice.position.word
  if word == "unknown" and not math.isnan(advice.position.difference.mean):
    return f"{advice.best} differs from it by {distance}, without an interval and so perhaps by chance."
  if word == "unknown":
    return (
      f"No method ran at a compute at which plain training ran too, so that none can be told from it ({advice.best})."
    )
  beside = f"{distance}, against plain training at the same compute"
  if word == "above":
    return (
      f"It is better than fewer epochs on everything: {beside}. The interval is a 95 % one of the pilot, whose runs are"
      f" shorter; {advice.best} was the best of {advice.compared} methods in the last rung, which flatters it."
    )
  if word == "on":
    return (
      f"No method is distinguishable from it. The best was {advice.best}: {beside}. Where nothing tells them apart,"
      " take the simpler."
    )
  return f"Every method of the last rung is behind it. The best was {advice.best}: {beside}."


def text(
  advice: Advice,
  rounds: Sequence[Round],
  metric: Metric,
  *,
  budget: float,
  epochs: int,
  pilot: float,
  judged: str,
  left_out: Mapping[str, str],
  command: str,
) -> str:
  """Returns the advice as Markdown.

  Args:
    advice: from `advise`.
    rounds: all rungs.
    metric: the headline.
    budget: fraction of full training's compute.
    epochs: of the recommended run.
    pilot: what the pilot cost, in full trainings.
    judged: the split on which the runs were compared.
    left_out: the reason for each method that could not run.
    command: trains the recommended run.
  """
  what = "for fewer epochs on everything" if advice.method == PLAIN else f"with `{advice.method}`"
  value, half = metric.show(advice.expected), advice.half * metric.scale
  sure = "" if math.isnan(half) else f" ± {half:.2g}{' points' if metric.unit == '%' else ''} by the pilot's seeds"
  saved, flattered = 1 - budget, ", which chose the method too and so flatters it" if judged == "test" else ""
  lines = [
    "# Advice",
    f"**Train {what}: {epochs} epochs, {100 * budget:.0f} % of the compute of full training.**",
    _reason(advice, metric),
    f"Expect about {value}{sure}, by extending the line through the longest plain runs of the pilot in the logarithm of"
    f" their compute; real curves flatten. Metrics are {metric.words} on the {judged} set{flattered}; learning rates"
    " are the config's own, in all runs.",
    f"The pilot cost as much compute as {pilot:.2f} full trainings, and each recommended run saves {saved:.2f} of one:"
    f" the pilot has paid for itself after {math.ceil(pilot / saved - 1e-9)} runs.",
    f"    {command}",
  ]
  for number, made in enumerate(rounds, 1):
    lines += [f"## Rung {number}: full training stands for {made.epochs} epochs", _table(made, metric)]
  if left_out:
    lines += ["## Left out", "\n".join(options.printable(f"- {name}: {reason}") for name, reason in left_out.items())]
  return "\n\n".join(lines) + "\n"


def _table(made: Round, metric: Metric) -> str:
  rows = [("run", "seeds", metric.title, "compute, thousands of samples", "against plain training")]
  for epochs, runs in made.plain.items():
    rows.append((f"plain, {epochs} epochs", *_numbers(runs, metric), "-"))
  for name, position in ranked(made, metric):
    beside = "-" if position.word == "unknown" else f"{position.word}, {_distance(position, metric)}"
    rows.append((name, *_numbers(made.methods[name], metric), beside))
  cells = [" | ".join(options.printable(cell) for cell in row) for row in rows]
  return "\n".join(f"| {line} |" for line in (cells[0], " | ".join(["---", *["---:"] * 4]), *cells[1:]))


def _numbers(runs: Sequence[Outcome], metric: Metric) -> tuple[str, str, str]:
  value, cost = (float(np.mean([getattr(one, name) for one in runs])) for name in ("metric", "cost"))
  return str(len(runs)), f"{value * metric.scale:{'.2f' if metric.unit == '%' else '.4g'}}", f"{cost / 1000:.1f}"
