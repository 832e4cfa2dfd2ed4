"""Builds runs that differ only by seed and learning rate on programs that are compiled once. Host-side.

A run's programs contain its learning rate as a constant. Here it is part of the state: a selection may scale the
learning rate of its epoch, and `rated` makes it do so by a number that lies beside the selector's own state. A run
differs from the one that `experiments.train` makes of the same config by rounding at most.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dynsel_jax import hashing, models
from dynsel_jax.training import feed, parallel, schedules, setup, state
from dynsel_jax.types import SampleTable, Selection, Selector, Signals

__all__ = ["build_once", "rated"]

_PROGRESS = np.linspace(0, 1, 257, dtype=np.float32)  # at which two schedules are compared


def rated(selector: Selector) -> Selector:
  """Wraps a selector: its state becomes `(rate [] float32, state)`, and each epoch's learning rate is scaled by it."""

  def select(key: jax.Array, held: Any, epoch: jax.Array) -> tuple[Selection, dict[str, jax.Array]]:
    rate, inner = held
    selection, info = selector.select(key, inner, epoch)
    return selection._replace(learning_rate_multiplier=selection.learning_rate_multiplier * rate), info

  def observe(held: Any, signals: Signals) -> Any:
    return held[0], selector.observe(held[1], signals)

  thin, refresh = selector.thin, selector.refresh
  return selector._replace(
    init=lambda key: (jnp.float32(1), selector.init(key)),
    select=select,
    observe=observe,
    thin=None if thin is None else lambda key, held, scored: thin(key, held[1], scored),
    refresh=None if refresh is None else lambda held, epoch: refresh(held[1], epoch),
  )


class _Built(NamedTuple):
  """What runs that differ by seed and learning rate have in common."""

  run: setup.Run
  initial: Callable[[jax.Array, Any], state.RunState]  # compiled


def build_once() -> Callable[[setup.Parts, SampleTable], setup.Run]:
  """Returns a function like `setup.build` that takes over the programs of the run that it built last, where it can.

  It can if config, data and columns are the same but for seed and learning rate, the schedule is proportional to the
  learning rate, and the model starts neither from weights of a file or of a run nor from the data.
  """
  held: dict[str, _Built] = {}

  def shared(parts: setup.Parts, table: SampleTable) -> setup.Run:
    key = _key(parts, table)
    if key not in held:
      held.clear()
      # A run of its own, in case that nothing can be shared; a key is used once.
      run = setup.build(parts._replace(init_key=jax.random.clone(parts.init_key)), table)
      unit = _unit_schedule(parts)
      started = getattr(parts.module, "weights", "") or isinstance(parts.module, models.fast_net.FastNet)
      if unit is None or started or run.arrays.frozen is not None:
        return run
      held[key] = _built(run, unit, parts)
    built = held[key]
    initial = built.initial(parts.init_key, _example(parts))
    rate = parts.devices.place(jnp.float32(parts.config.learning_rate))
    initial = initial._replace(selector=(rate, initial.selector[1]))
    # The new feed has the new run's key, and its own copy of the data set.
    return built.run._replace(feed=parts.feed, initial=initial)

  return shared


def _key(parts: setup.Parts, table: SampleTable) -> str:
  config = parts.config.to_dict()
  same = {name: value for name, value in config.items() if name not in ("seed", "learning_rate")}
  columns = {name: np.asarray(column) for name, column in table.columns.items()}
  return json.dumps([same, parts.source.fingerprint, hashing.checksum(columns)], sort_keys=True, default=str)


def _example(parts: setup.Parts) -> dict[str, jax.Array]:
  return {name: jnp.asarray(array[:1]) for name, array in parts.source.train.items()}


def _unit_schedule(parts: setup.Parts) -> schedules.Schedule | None:
  """Returns the schedule whose largest learning rate is 1; None if the run's is not a multiple of it."""
  settings = parts.config.schedule.to_dict()
  unit = schedules.create(settings.pop("name"), 1.0, **settings)
  ours, theirs = parts.schedule(jnp.asarray(_PROGRESS)), parts.config.learning_rate * unit(jnp.asarray(_PROGRESS))
  return unit if np.allclose(ours, theirs, rtol=1e-5, atol=0) else None


def _built(run: setup.Run, unit: schedules.Schedule, parts: setup.Parts) -> _Built:
  """Compiles nothing yet: programs are compiled when they are first called."""
  selector = rated(run.recipe.selector)
  recipe = run.recipe._replace(selector=selector, schedule=unit)
  task, module, num_samples = parts.task, parts.module, parts.source.num_samples

  def initial_state(key: jax.Array, example: Any) -> state.RunState:
    inputs = task.inputs(None, jnp.zeros(1, jnp.int32), example)["inputs"]
    return state.create_run_state(key, module, parts.tx, selector, inputs, num_samples)[0]

  programs = parallel.create_programs(recipe, parts.devices, streamed=isinstance(parts.feed, feed.Streamed))
  initial = jax.jit(initial_state, out_shardings=parts.devices.replicated)
  return _Built(run._replace(recipe=recipe, programs=programs), initial)
