"""What features, factors and proxies cost each run, whoever found them in the cache. Pure functions."""

import collections
import json
from collections.abc import Callable, Sequence
from typing import Any

from dynsel_jax.runs import timing
from dynsel_jax.runs.finished import Run

__all__ = ["offline_costs"]

_OF_PROXY = ("batch_size", "epochs", "learning_rate", "match_steps", "optimizer", "schedule")


def offline_costs(members: Sequence[Run], method_of: Callable[[Run], str]) -> Callable[[Run], dict[str, float]]:
  """Returns a function that gives the seconds of a run's offline stage by phase, as if none of it had been cached.

  A phase takes the longest time that any run with the same settings spent on it, since the others may have found its
  result in the cache; where they all did, the longest of the runs that differ by the factors' seed alone.
  """

  def keys(run: Run) -> dict[str, tuple[tuple[Any, ...], ...]]:
    """Returns the settings of each phase, with and without the seed of the factors or of the proxy."""
    settings = {name: json.dumps(run.config.get(name), sort_keys=True) for name in (*timing.OFFLINE, "model")}
    factors = dict(run.config.get("factors") or {})
    seed, seedless = factors.pop("seed", None), json.dumps(factors, sort_keys=True)
    seed = run.seed if seed == -1 else seed
    space = settings["features"]
    of_model = '"backbone"' in space  # features of the trained model itself
    trained = run.task + settings["model"] if of_model else ""
    method = method_of(run) if space == "null" else ""
    shared = (space, trained, method)
    recipe = json.dumps([run.config.get(name) for name in _OF_PROXY], sort_keys=True)
    small = ((run.config.get("proxy") or {}).get("model") or {}).get("name") or settings["model"]  # or the run's own
    proxy = (settings["proxy"], small, run.task, recipe, (run.config.get("selector") or {}).get("keep_fraction"))
    return {
      "features": ((*shared, seed if of_model else None), shared),
      "factors": ((*shared, seedless, seed), (*shared, seedless)),
      "proxy": ((*proxy, run.seed), proxy),
    }

  longest: dict[tuple[Any, ...], float] = collections.defaultdict(float)
  for run in members:
    for phase, found in keys(run).items():
      for key in found:
        longest[(phase, *key)] = max(longest[(phase, *key)], (run.summary or {})["seconds"].get(phase, 0.0))

  def seconds(run: Run) -> dict[str, float]:
    return {
      phase: longest[(phase, *same)] or longest[(phase, *seedless)] for phase, (same, seedless) in keys(run).items()
    }

  return seconds
