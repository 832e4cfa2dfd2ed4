"""Estimates from a few timed steps how long a run will take and what it will cost, at several keep fractions.

    python -m experiments.estimate --config=configs/cifar10.py:selector=rrd --price_per_hour="2.5 USD"

Full training is estimated for comparison. The offline stage is run once, in full, with an empty cache. Loading,
compiling and checkpoints are not included. Selection is timed in the first epoch; a method that takes the full data
there may be slower in later epochs. Let nothing else run at the same time.

A method that decides by itself how much it trains on has no `keep_fraction` to compute with, and one that thins batches
pays for scoring them: for these a run of six epochs is made in a temporary folder, and the estimate supposes that the
whole run keeps as much and costs as much an epoch.
"""

import contextlib
import io
import math
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
from absl import flags

from dynsel_jax import data, offline, options, selectors
from dynsel_jax.offline.plain_config import plain_config
from dynsel_jax.runs import timing
from dynsel_jax.training import evaluation, setup
from experiments import cli
from experiments.benchmarks import clock

SHORT_EPOCHS = 6


class Timed(NamedTuple):
  """Measured seconds, and the sizes of the run."""

  step: float  # one training step
  selecting: float  # one epoch's selection
  evaluating: float  # the whole test set
  offline: float  # features and factors
  num_samples: int
  batch_size: int
  epochs: int
  full_fraction: float  # rho, the fraction of the epochs that take the full data


class Short(NamedTuple):
  """What a short run realised."""

  epochs: int
  kept: float  # backward visits / (N * epochs)
  epoch: float  # seconds of an epoch's selecting, training and scoring, averaged over the run
  offline: float  # seconds of features and factors


class Estimate(NamedTuple):
  """The expected seconds of a run."""

  label: str  # the first column of the table
  epoch_seconds: float  # averaged over the run, without the offline stage
  run_seconds: float
  speed_up: float  # relative to full training
  ideal: float  # 1 / ((1 - rho) p + rho) at keep fraction p, the speed-up if only training samples took time
  pays_after: float  # epochs until the saved time exceeds that of the offline stage; 0 without one, infinite if never


def estimate(timed: Timed, keep_fraction: float) -> Estimate:
  """Returns the estimate for one keep fraction; 1 stands for full training.

  Assumes that the mean time of a step does not depend on the samples, and that n samples take ceil(n / batch) steps.
  """
  full = math.ceil(timed.num_samples / timed.batch_size) * timed.step + timed.evaluating
  if keep_fraction == 1:
    return Estimate("full", full, timed.epochs * full, 1.0, 1.0, 0.0)
  kept_steps = math.ceil(math.floor(keep_fraction * timed.num_samples + 1e-6) / timed.batch_size)
  kept = kept_steps * timed.step + timed.evaluating
  full_epochs = math.ceil(timed.full_fraction * timed.epochs - 1e-6)
  full_fraction = full_epochs / timed.epochs
  epoch = (1 - full_fraction) * kept + full_fraction * full + timed.selecting
  run = timed.offline + timed.epochs * epoch
  pays = 0.0 if not timed.offline else timed.offline / (full - epoch) if full > epoch else math.inf
  ideal = 1 / ((1 - timed.full_fraction) * keep_fraction + timed.full_fraction)
  return Estimate(f"{keep_fraction:.0%} kept", epoch, run, timed.epochs * full / run, ideal, pays)


def estimate_realised(timed: Timed, short: Short) -> Estimate:
  """Returns the estimate of a run whose epochs cost as much as those of a short run; `timed` is of full training."""
  full = math.ceil(timed.num_samples / timed.batch_size) * timed.step + timed.evaluating
  epoch = short.epoch + timed.evaluating
  run = short.offline + timed.epochs * epoch
  pays = 0.0 if not short.offline else short.offline / (full - epoch) if full > epoch else math.inf
  label = f"{short.kept:.0%} kept in a run of {short.epochs} epochs"
  return Estimate(label, epoch, run, timed.epochs * full / run, 1 / short.kept, pays)


def decides_itself(config: ml_collections.ConfigDict) -> bool:
  """Whether the cost does not follow from a `keep_fraction`: there is none, or the method may thin batches."""
  known = selectors.METHODS.get(config.selector.name)
  return "keep_fraction" not in config.selector or known is None or known.level == "batch"


def short_run(config: ml_collections.ConfigDict) -> Short:
  """Makes a run of `SHORT_EPOCHS` epochs in a temporary folder, with an empty cache.

  Raises:
    UserError: a value of the config is wrong, or such a run cannot be estimated.
  """
  _check(config)
  short = config.copy_and_resolve_references().unlock()
  short.epochs, short.checkpoint_every_steps = min(config.epochs, SHORT_EPOCHS), 0
  with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    if "features" in config or "proxy" in config:
      short.cache_dir = str(pathlib.Path(folder, "cache"))
    summary = offline.train_and_evaluate(short, pathlib.Path(folder, "run")).summary
  spent = summary["seconds"]
  epoch = sum(spent[name] for name in ("selecting", "training", "scoring")) / short.epochs
  return Short(short.epochs, summary["realised_keep_fraction"], epoch, sum(spent[name] for name in timing.OFFLINE))


def measure(config: ml_collections.ConfigDict, num_steps: int) -> Timed:
  """Times steps, selection, evaluation and the offline stage of a run of `config`; writes no file.

  Raises:
    UserError: a value of the config is wrong, or such a run cannot be estimated.
  """
  _check(config)
  run, spent = _built(config)
  state, programs, arrays = run.devices.copy(run.initial), run.programs, run.arrays
  # The first epoch that the config does not give to the full data.
  epoch, planning = int(config.get("wrappers", {}).get("annealed", {}).get("first", 0.0) * config.epochs), []
  for _ in range(4):
    start = time.perf_counter()
    state, _ = jax.block_until_ready(programs.plan(state, arrays, epoch))
    planning.append(time.perf_counter() - start)
  # A selector may take the full data there all the same, to see each sample once.
  warms_up = int(state.plan.size) == run.source.num_samples and config.selector.get("keep_fraction", 1) < 1
  whole = int(state.plan.size) // config.batch_size  # steps whose batches are full
  count = min(programs.steps_per_call, whole)
  taken = []
  for call in range(1 + math.ceil(num_steps / count)):
    first = (call * count) % (whole - count + 1)
    start = time.perf_counter()
    state = jax.block_until_ready(programs.train(state, arrays, epoch, first, count))
    taken.append((time.perf_counter() - start) / count)
  return Timed(
    step=statistics.mean(taken[1:]),  # the first call compiles; a mean, since texts differ in length
    selecting=statistics.median(planning[1:]),
    evaluating=_evaluating(run, config.eval_batch_size, state),
    offline=sum(spent[name] for name in timing.OFFLINE),
    num_samples=run.source.num_samples,
    batch_size=config.batch_size,
    epochs=config.epochs,
    full_fraction=min(1.0, setup.full_fraction(config) + warms_up / config.epochs),
  )


def _check(config: ml_collections.ConfigDict) -> None:
  """Raises `UserError` if runs of `config` cannot be estimated."""
  if config.match_steps:
    raise options.UserError(
      "match_steps=True: the estimates are of runs with as many epochs as full training; leave it out"
    )
  if config.dataset.get("stream"):
    raise options.UserError(
      "dataset.stream=True: only sets that lie on the device are estimated, since reading is not timed"
    )


def _built(config: ml_collections.ConfigDict) -> tuple[setup.Run, dict[str, float]]:
  """Builds the run with an empty cache; returns it with the seconds of its offline stage by phase."""
  timers = timing.Timers()
  with tempfile.TemporaryDirectory() as empty:
    uncached = config.copy_and_resolve_references().unlock()
    uncached.cache_dir = empty
    source = data.prepare(config.dataset.to_dict(), config.cache_dir)
    parts = setup.parts(uncached, source)
    columns, _ = offline.columns(uncached, source, timers)
    return setup.build(parts, setup.table_of(source, columns)), timers.seconds()


def _evaluating(run: setup.Run, batch_size: int, state: Any) -> float:
  """Returns the seconds of an evaluation, estimated from batches spread over it, since texts are sorted by length."""
  programs, num_samples = run.programs, run.feed.evaluated["test"]
  num_steps = math.ceil(num_samples / batch_size)
  count = min(programs.steps_per_call, num_steps)
  sums = run.devices.place(evaluation.empty(evaluation.shapes(run.recipe, state.train, run.arrays, num_samples)))
  taken = []
  for call in range(9):  # the first call compiles
    first = max(call - 1, 0) * (num_steps - count) // 7
    start = time.perf_counter()
    sums = jax.block_until_ready(programs.evaluate(sums, state.train, run.arrays, first, count))
    taken.append(time.perf_counter() - start)
  return statistics.mean(taken[1:]) * num_steps / count


def _clock(seconds: float) -> str:
  return (
    f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.2f} s"
  )


def price_of(text: str) -> tuple[float, str]:
  """Returns the number and the currency of a price such as "2.5 USD"; without a currency "units" are meant.

  Raises:
    UserError: it does not begin with a number that is at least 0.
  """
  number, _, currency = text.strip().partition(" ")
  try:
    price = float(number)
  except ValueError:
    raise options.UserError(f'price_per_hour={text} is not a number with a currency, such as "2.5 USD"') from None
  options.check_positive("price_per_hour", price, zero=True)
  return price, currency.strip() or "units"


def lines(timed: Timed, estimates: Sequence[Estimate], price_per_hour: float, currency: str) -> list[str]:
  """Returns the measurements and the table of estimates as lines of text."""
  head = ["", "epoch", "run", "speed-up", "ideal", "pays after", *([f"cost, {currency}"] if price_per_hour else [])]
  rows = [head]
  for one in estimates:
    pays = "-" if one.pays_after == 0 else "never" if one.pays_after > timed.epochs else f"{one.pays_after:.1f} epochs"
    row = [
      one.label,
      _clock(one.epoch_seconds),
      _clock(one.run_seconds),
      f"{one.speed_up:.2f}",
      f"{one.ideal:.2f}",
      pays,
    ]
    rows.append(row + ([f"{one.run_seconds / 3600 * price_per_hour:.2f}"] if price_per_hour else []))
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  measured = (
    f"measured: step {clock(timed.step)}, selecting {clock(timed.selecting)} per epoch,"
    f" evaluating {clock(timed.evaluating)}, offline stage {clock(timed.offline) if timed.offline else 'none'}"
  )
  table = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
  return [measured, *table]


def main(config: ml_collections.ConfigDict) -> int:
  """Measures, and prints the estimates."""
  given = flags.FLAGS
  price, currency = price_of(given.price_per_hour)
  options.check_positive("steps", given.steps)
  for kept in given.keep_fraction:
    options.check_fraction("keep_fraction", kept)
  if decides_itself(config):
    timed = measure(plain_config(config), given.steps)
    found = [estimate(timed, 1.0)]
    if config.selector.name != "full":
      found.append(estimate_realised(timed, short_run(config)))
  else:
    timed = measure(config, given.steps)
    found = [estimate(timed, kept) for kept in (1.0, *sorted(kept for kept in given.keep_fraction if kept < 1))]
  print("\n".join(lines(timed, found, price, currency)))
  return 0


if __name__ == "__main__":
  flags.DEFINE_string("price_per_hour", "0", 'The price of an hour of the machine, with its currency: "2.5 USD".')
  flags.DEFINE_multi_float("keep_fraction", [0.1, 0.3, 0.5, 0.7], "A keep fraction to estimate; may be repeated.")
  flags.DEFINE_integer("steps", 20, "The number of training steps to time.")
  cli.run_on_config(main, with_workdir=False)
