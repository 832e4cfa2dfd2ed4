"""The ranks that the method `proxy` reads: a small network's run, which notes every batch's losses. Host-side.

The run has the recipe, the data and the seed of the run that it is made for, and so the same order of all samples and
the same augmented images. Its batches have batch_size / keep_fraction samples, its steps train on the batch_size
hardest of them, and only every few steps train at all, as in airbench96_faster; see `selectors.proxy`. There the
statistics of batch normalisation also move in the steps between; no rank depends on them, since losses are computed
with those of the batch.

`N` is the number of training samples, `B` the batch size of the small network.
"""

import math
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import Array

from dynsel_jax import cache, options
from dynsel_jax.data import Source
from dynsel_jax.offline.plain_config import plain_config
from dynsel_jax.runs.interruption import Interrupted, NonFiniteError
from dynsel_jax.runs.timing import Timers
from dynsel_jax.selectors import ranking, thinning
from dynsel_jax.selectors.proxy import COLUMN
from dynsel_jax.training import feed, loop, parallel, setup, steps
from dynsel_jax.training.state import RunState
from dynsel_jax.types import SampleTable, Selector, Signals

__all__ = ["columns", "defaults", "made", "now_and_then", "recorder"]

_IDLE = ("cache_dir", "checkpoint_every_steps", "dataset", "eval_batch_size")  # no rank depends on them, or by field
_RECORDER = f"{__name__}:recorder"


def defaults(model: dict[str, Any]) -> dict[str, Any]:
  """Returns the options of a config's section `proxy` with the section `model` of the small network."""
  return {
    "update_every": 4,  # steps between two on which the small network trains; it scores the batches of all
    "model": model,  # with the name "" it is the run's own, and nothing is saved
  }


def columns(config: ml_collections.ConfigDict, source: Source, timers: Timers) -> dict[str, Array]:
  """Returns the column "proxy_rank", `[N, epochs]` float32, from the cache or by training the small network.

  Args:
    config: of the run that trains on what the small network chooses; its section `proxy` names that network.
    source: the data set.
    timers: receive the seconds of "proxy".

  Raises:
    UserError: a value of the section is wrong, or there are several processes.
    Interrupted: a signal came; the same call trains the small network anew.
    NonFiniteError: a loss or a gradient of it was not finite.
  """
  return {COLUMN: jnp.asarray(made(config, source, timers)["ranks"])}


def made(config: ml_collections.ConfigDict, source: Source, timers: Timers) -> cache.Arrays:
  """Returns "ranks" `[N, epochs]` float32 and "seconds" `[]`, what their run spent on selecting and training.

  Arguments and errors as of `columns`.
  """
  proxy, every = _config(config)
  held = proxy.to_dict()
  dataset = {name: value for name, value in held["dataset"].items() if name != "data_dir"}
  key = {name: value for name, value in held.items() if name not in _IDLE}
  key |= {"dataset": dataset, "data": source.fingerprint, "update_every": every}

  def build() -> cache.Arrays:
    with timers.phase("proxy"):
      return _trained(proxy, every, source)

  return cache.cached("proxy", key, build, config.cache_dir)


def _config(config: ml_collections.ConfigDict) -> tuple[ml_collections.ConfigDict, int]:
  """Returns the config of the small network's run, and the number of steps between two that train."""
  config = setup.matched(config)
  section = config.proxy.to_dict()
  options.check_present("proxy", section, defaults({}))
  options.check_settings("proxy", "update_every", section, defaults({}))
  options.check_at_least("proxy.update_every", section["update_every"], 1)
  options.check_present("proxy.model", section["model"], ("name",))
  fraction = config.selector.get("keep_fraction")
  if fraction is None:
    raise options.UserError(f"config has a section proxy, and selector={config.selector.name} has no keep_fraction")
  options.check_fraction("selector.keep_fraction", fraction)
  proxy = plain_config(config, _RECORDER, batch_size=config.batch_size)
  # The smallest batch of which the fraction is batch_size samples; the quotient may be off in its last digit.
  proxy.batch_size = min(math.ceil(config.batch_size / fraction * (1 - 1e-12)), 2**31 - 1)
  proxy.checkpoint_every_steps = 0
  if section["model"]["name"]:
    proxy.model = section["model"]
  return proxy, section["update_every"]


def _trained(config: ml_collections.ConfigDict, update_every: int, source: Source) -> cache.Arrays:
  """Trains the small network in a temporary folder, on one device, so that no rank depends on their number."""
  if jax.process_count() > 1:
    raise options.UserError(
      "selector=proxy can train its small network in a single process only: start the run there once, until it trains;"
      " cache_dir keeps the ranks"
    )
  with tempfile.TemporaryDirectory() as workdir:
    try:
      result = loop.train_and_evaluate(
        config, workdir, jax.local_devices()[:1], prepare=lambda *_: source, build=_building(update_every)
      )
    except options.UserError as error:
      raise options.UserError(f"the network of the section proxy: {error}") from None
    except NonFiniteError as error:
      raise NonFiniteError(f"the network of the section proxy: {error}") from None
    except Interrupted:
      stopped = Interrupted("stopped while the network of the section proxy was trained")
      stopped.add_note("the same command trains it anew")
      raise stopped from None
  spent = result.summary["seconds"]
  return {"ranks": np.asarray(result.state.selector), "seconds": np.array(spent["selecting"] + spent["training"])}


def _building(update_every: int) -> loop.Build:
  """Returns `setup.build` with steps of which only each `update_every`-th of an epoch trains."""

  def build(parts: setup.Parts, table: SampleTable) -> setup.Run:
    run = setup.build(parts, table)
    streamed = isinstance(run.feed, feed.Streamed)
    watching = parallel.create_programs(run.recipe, run.devices, streamed=streamed, thinned=steps.watch)
    # Compiled by a call that does nothing, since the plan is empty, so that no second of training pays for it.
    jax.block_until_ready(watching.train_thinned(run.devices.copy(run.initial), run.arrays, 0, 0, 1))
    train = now_and_then(update_every, run.programs.train_thinned, watching.train_thinned)
    return run._replace(programs=run.programs._replace(train_thinned=train))

  return build


def now_and_then(update_every: int, train: Callable[..., RunState], watch: Callable[..., RunState]) -> Any:
  """Returns a program that calls `train` for one step of `update_every`, beginning with the first, else `watch`."""

  def call(state: RunState, arrays: steps.Arrays, epoch: int, step: int, count: int) -> RunState:
    end = step + count
    while step < end:
      trains = step % update_every == 0
      taken = 1 if trains else min(end - step, update_every - step % update_every)
      state = (train if trains else watch)(state, arrays, epoch, step, taken)
      step += taken
    return state

  return call


def recorder(table: SampleTable, epochs: int, *, batch_size: int = 1) -> Selector:
  """Visits everything, trains on the hardest of each batch, and remembers where each loss ranked.

  Its state are the ranks, `[N, epochs]` float32: 1/B for the highest loss of a batch, 1 for the lowest. A loss that is
  not finite counts as the lowest.

  Args:
    table: the training set, N samples.
    epochs: of the run.
    batch_size: number of samples of a batch that a step trains on.
  """
  num_samples = table.num_samples

  def ordered(signals: Signals) -> Array:
    loss, _ = ranking.sanitize(signals.loss)
    # Batches are in random order, so that one fixed key settles ties, and `thin` and `observe` agree.
    return thinning.rank_rows(jax.random.key(0), loss, signals.index >= 0)

  def init(key: Array) -> Array:
    del key
    return jnp.zeros((num_samples, epochs), jnp.float32)

  def thin(key: Array, state: Array, signals: Signals) -> tuple[Array, Array]:
    del key, state
    positions = jnp.sort(ordered(signals)[:batch_size])
    return positions, (signals.index >= 0)[positions].astype(jnp.float32)

  def observe(state: Array, signals: Signals) -> Array:
    rows, valid = signals.index.shape[0], signals.index >= 0
    place = jnp.zeros(rows, jnp.int32).at[ordered(signals)].set(jnp.arange(1, rows + 1, dtype=jnp.int32))
    rank = place.astype(jnp.float32) / jnp.sum(valid, dtype=jnp.float32)
    return state.at[jnp.where(valid, signals.index, num_samples), signals.epoch].set(rank, mode="drop")

  return thinning.stateless(num_samples, thin)._replace(init=init, observe=observe)
