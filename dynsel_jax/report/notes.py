"""What a reader must know before comparing the runs of a report, a sentence each. Pure functions."""

import collections
from collections.abc import Sequence

from dynsel_jax import options
from dynsel_jax.report import seconds
from dynsel_jax.report.groups import Group
from dynsel_jax.runs.finished import Run

__all__ = ["all_notes"]


def all_notes(
  found: Sequence[Run], groups: Sequence[Group], lost: Sequence[str], on_groups: Sequence[str]
) -> list[str]:
  """Returns what was left out, what differs between runs that are averaged, and whether seconds compare.

  Args:
    found: all runs.
    groups: their groups.
    lost: descriptions of what was left out, as `finished.lost` returns them.
    on_groups: notes of `groups.collect`.
  """
  notes = [
    *(f"Left out: {line}." for line in lost),
    *on_groups,
    _versions(groups),
    _shared_factors(groups),
    _two_seeds(groups),
  ]
  return [*filter(None, [*notes, seconds.incomparable(found)])]


def _versions(groups: Sequence[Group]) -> str:
  """Names the packages whose versions differ between runs that are averaged."""
  differing: dict[str, set[str]] = collections.defaultdict(set)
  for group in groups:
    versions = [_versions_of(run) for run in group.runs]
    for name in {name for one in versions for name in one}:
      values = {one.get(name, "unknown") for one in versions}
      if len(values) > 1:
        differing[name] |= values
  if not differing:
    return ""
  named = "; ".join(f"{name} {', '.join(sorted(values))}" for name, values in sorted(differing.items()))
  return f"Runs that are averaged were made by different versions: {named}."


def _versions_of(run: Run) -> dict[str, str]:
  versions = run.made.get("versions")
  return {name: str(value) for name, value in options.flatten(versions).items()} if isinstance(versions, dict) else {}


def _two_seeds(groups: Sequence[Group]) -> str:
  """Says how little an interval of two seeds tells, where two groups have them and none has more."""
  counts = [len(group.runs) for group in groups]
  if counts.count(2) < 2 or max(counts) > 2:
    return ""
  return (
    "Of two seeds an interval reaches 12.7 standard errors to each side: that a method is not distinguishable then says"
    " little, and more seeds say more."
  )


def _shared_factors(groups: Sequence[Group]) -> str:
  """Names the groups whose runs share one autoencoder, so that their deviation lacks that of the offline stage."""
  sharing = []
  for group in groups:
    seeds = {run.seed: (run.config.get("factors") or {}).get("seed", -1) for run in group.runs}
    if len(seeds) > 1 and -1 not in seeds.values() and len(set(seeds.values())) == 1:  # -1 is the run's seed
      sharing.append(group.label)
  if not sharing:
    return ""
  return f"One autoencoder served all seeds, so deviations lack that of its fit: {', '.join(sharing)}."
