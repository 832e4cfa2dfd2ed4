"""`train_and_evaluate(config, workdir)`: a whole run, from a config to the files that it leaves behind. Host-side."""

import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from dynsel_jax import cache, data, options
from dynsel_jax.factors import coverage
from dynsel_jax.selectors import ranking
from dynsel_jax.training import parallel, setup
from dynsel_jax.training.checkpoint import Checkpoints, Position
from dynsel_jax.training.console import Console
from dynsel_jax.training.state import RunState
from dynsel_jax.training.steps import Evaluation, Fixed
from dynsel_jax.training.timing import Timers
from dynsel_jax.training.workdir import Workdir, check_writable, provenance

__all__ = ["AfterEpoch", "Interrupted", "NonFiniteError", "Result", "stop_requests", "train_and_evaluate"]

AfterEpoch = Callable[[setup.Run, RunState, int], RunState]


class Interrupted(Exception):  # noqa: N818 - no error: the run can be continued
  """A signal asked the run to stop, and everything has been saved."""


class NonFiniteError(ArithmeticError):
  """A loss or a gradient was not finite. The last good checkpoint is kept."""


class Result(NamedTuple):
  """What a finished run returns."""

  summary: dict[str, Any]  # as `summary.json`
  state: RunState
  run: setup.Run


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], str]]:
  """Yields a function that names the signal which asked to stop, or returns ""; a second one acts as it always does."""
  asked: list[str] = []
  before: dict[int, Any] = {}

  def note(number: int, frame: Any) -> None:
    del frame
    asked.append(signal.Signals(number).name)
    signal.signal(number, before[number])

  with contextlib.ExitStack() as stack:
    for number in (signal.SIGTERM, signal.SIGINT):
      with contextlib.suppress(ValueError):  # only the main thread may
        before[number] = signal.signal(number, note)
        stack.callback(signal.signal, number, before[number])
    yield lambda: asked[0] if asked else ""


class _Trainer:
  """The host's side of a run: its position, its clock, and when it writes what."""

  def __init__(self, run: setup.Run, config: ml_collections.ConfigDict, workdir: Workdir, timers: Timers):
    self.run, self.config, self.workdir, self.timers = run, config, workdir, timers
    self.state: RunState = run.initial
    self.position = Position()
    self.checkpoints = Checkpoints(workdir.checkpoints)
    self.saved = 0  # optimizer steps at the last checkpoint
    self.firings = workdir.read_firings()
    self.validation: Fixed | None = None  # the run's arrays with the validation set for the test set
    if run.source.validation is not None:
      self.validation = run.fixed._replace(test=run.devices.place(run.source.validation))

  def restore(self, begun: dict[str, float] | None) -> None:
    """Continues from the newest checkpoint, if there is one.

    Args:
      begun: what an earlier part took before its first step; without a checkpoint only this is known of its time.
    """
    if self.checkpoints.latest_step() is None:
      if begun is not None:
        self.timers.add(begun)
      return
    self.state, self.position = self.checkpoints.restore(self.state, self.run.devices)
    self.run.feed.restore(self.position.corrupt)
    self.timers.add(self.position.seconds)
    self.saved = self.position.steps
    if self.position.epoch < self.config.epochs:
      self.position.resumed_from.append(self.position.steps)

  def save(self) -> None:
    """Saves the run in the background."""
    with self.timers.phase("checkpointing"):
      self.position.corrupt = self.run.feed.corrupt() or {}
      self.position.seconds = self.timers.seconds()
      self.checkpoints.save(self.state, self.position)
    self.saved = self.position.steps

  def save_if_due(self) -> None:
    """Saves the run when another `checkpoint_every_steps` steps are done."""
    every = self.config.checkpoint_every_steps
    if every and self.position.steps // every > self.saved // every:
      self.save()

  def compile(self) -> None:
    """Compiles every program by a call on a copy that does nothing, so that no other phase pays for it."""
    run, programs, fixed = self.run, self.run.programs, self.run.fixed
    selector = run.recipe.selector
    with self.timers.phase("compiling"):
      state, _ = programs.plan(run.devices.copy(self.state), fixed, 0)
      nothing = run.devices.place(ranking.nothing(state.usage.visits.shape[0]))
      state = programs.train(state._replace(plan=nothing), fixed, 0, 0, 1)
      if selector.thin is not None:
        state = programs.train_thinned(state, fixed, 0, 0, 1)
      if selector.refresh is not None:
        state = programs.refresh(programs.score(state, fixed, 0, 0, 1), fixed, 0)
      for evaluated in filter(None, (fixed, self.validation)):
        beyond = self._num_evaluations(evaluated)
        jax.block_until_ready(programs.evaluate(self._no_evaluation(), self.state.train, evaluated, beyond, 1))

  def plan_epoch(self) -> None:
    """Selects the running epoch's samples."""
    with self.timers.phase("selecting"):
      self.state, info = self.run.programs.plan(self.state, self.run.fixed, self.position.epoch)
      values = {name: float(value) for name, value in parallel.fetch(info).items()}
      # JSON has no number for what is not finite.
      self.position.info = {name: value if math.isfinite(value) else None for name, value in values.items()}
    self.position.non_finite_scores += int(values.get("non_finite", 0))
    if parallel.fetch(self.state.plan.size) < 1:
      name, epoch = self.config.selector.name, self.position.epoch + 1
      raise options.UserError(f"selector={name} selects no sample in epoch {epoch}")

  def train_epoch(self, console: Console, stop: Callable[[], str]) -> None:
    """Takes the rest of the running epoch's steps.

    Raises:
      Interrupted: a signal asked to stop.
      NonFiniteError: a loss or a gradient was not finite.
    """
    programs, position = self.run.programs, self.position
    size, thin = parallel.fetch((self.state.plan.size, self.state.plan.thin))
    num_steps = -(-int(size) // self.config.batch_size)
    thinned = bool(thin) and self.run.recipe.selector.thin is not None
    train = programs.train_thinned if thinned else programs.train
    every = self.config.checkpoint_every_steps or sys.maxsize
    with contextlib.closing(self.run.feed.training(self.state.plan, position.epoch, position.step)) as fed:
      while position.step < num_steps:
        count = min(programs.steps_per_call, num_steps - position.step, every - position.steps % every)
        with self.timers.phase("training"):
          self.state = train(self.state, next(fed), position.epoch, position.step, count)
          bad = int(parallel.fetch(self.state.meters.non_finite_step))
        if bad >= 0:
          raise NonFiniteError(f"step {bad}: the loss or a gradient is not finite; {self._last_good()}")
        position.step += count
        position.steps += count
        if console.due():
          console.step(position.epoch + position.step / num_steps, self._running_loss())
        # An epoch's last step is saved with the epoch's end: checkpoints are named by steps, and it is one step.
        if position.step < num_steps:
          self.stop_if_asked(stop)
          self.save_if_due()

  def stop_if_asked(self, stop: Callable[[], str]) -> None:
    """Saves the run and raises `Interrupted` if a signal asked any of the processes to stop."""
    asked = stop()
    if parallel.any_process(bool(asked)):
      asked = asked or "a signal to another process"
      if not self.position.steps:
        raise Interrupted(f"stopped by {asked} before the first step")
      self.save()
      self.checkpoints.close()
      raise Interrupted(f"stopped by {asked} after step {self.position.steps}, and saved")

  def refresh_scores(self) -> None:
    """Scores the samples that the selector wants seen again after the epoch."""
    if self.run.recipe.selector.refresh is None:
      return
    programs, epoch = self.run.programs, self.position.epoch
    with self.timers.phase("scoring"):
      self.state = programs.refresh(self.state, self.run.fixed, epoch)
      num_steps = -(-int(parallel.fetch(self.state.plan.size)) // self.config.batch_size)
      with contextlib.closing(self.run.feed.scoring(self.state.plan)) as fed:
        for step in range(0, num_steps, programs.steps_per_call):
          count = min(programs.steps_per_call, num_steps - step)
          self.state = programs.score(self.state, next(fed), epoch, step, count)
      jax.block_until_ready(self.state.usage)

  def evaluate(self, fixed: Fixed) -> tuple[float, float]:
    """Returns the mean loss over the test set of `fixed`, in nats, and the accuracy, in [0, 1]."""
    programs, num_steps = self.run.programs, self._num_evaluations(fixed)
    with self.timers.phase("evaluating"):
      sums = self._no_evaluation()
      with contextlib.closing(self.run.feed.testing(fixed)) as fed:
        for step in range(0, num_steps, programs.steps_per_call):
          count = min(programs.steps_per_call, num_steps - step)
          sums = programs.evaluate(sums, self.state.train, next(fed), step, count)
      sums = parallel.fetch(sums)
    return float(sums.loss_sum) / float(sums.samples), float(sums.correct) / float(sums.samples)

  def end_epoch(self, size: int) -> dict[str, Any]:
    """Moves the position to the next epoch, writes the finished one's line, and returns it."""
    position, (test_loss, accuracy) = self.position, self.evaluate(self.run.fixed)
    validation_accuracy = None if self.validation is None else self.evaluate(self.validation)[1]
    meters, visits = parallel.fetch((self.state.meters, self.state.usage.visits))
    position.epoch += 1
    position.step = 0
    position.forward_visits += int(meters.forward_visits)
    position.backward_visits += int(meters.backward_visits)
    position.best_accuracy = max(position.best_accuracy, accuracy)
    metrics = {
      "epoch": position.epoch,
      "step": position.steps,
      "progress": position.epoch / self.config.epochs,
      "train_loss": float(meters.loss_sum) / max(int(meters.backward_visits), 1),
      "test_loss": test_loss,
      "test_accuracy": accuracy,
      "learning_rate": float(meters.learning_rate),
      "size": size,
      "realised_keep_fraction": int(meters.backward_visits) / visits.shape[0],
      "unique_seen": int(np.count_nonzero(visits)),
      "weight_sum": float(meters.weight_sum),
      "forward_visits": position.forward_visits,
      "backward_visits": position.backward_visits,
      "kept_by_class": meters.trained_by_class.tolist(),
      "selector": position.info,
      "seconds": self.timers.seconds(),
    }
    if validation_accuracy is not None:
      metrics["validation_accuracy"] = validation_accuracy
      if validation_accuracy > position.best_validation_accuracy:
        position.best_validation_accuracy, position.selected_test_accuracy = validation_accuracy, accuracy
    if (noisy := self.run.source.noisy) is not None:
      noisy_visits = int(visits[noisy].sum())
      metrics["noisy_share_kept"] = (noisy_visits - position.noisy_visits) / max(int(meters.backward_visits), 1)
      position.noisy_visits = noisy_visits
    if self.firings is not None:
      fired = coverage.count(self.firings.latents, visits, self.firings.frequency.size)
      of_epoch = fired - np.asarray(position.factor_firings or 0)
      metrics |= coverage.coverage(self.firings, of_epoch, int(meters.backward_visits))
      position.factor_firings = fired.tolist()
    if (corrupt := self.run.feed.corrupt()) is not None:
      position.corrupt = corrupt
      metrics["corrupt"] = sum(map(len, corrupt.values()))
    self.workdir.write_epoch(metrics, visits)
    return metrics

  def finish(self, accuracy: float) -> dict[str, Any]:
    """Saves the run, writes its last files, and returns the summary."""
    self.save()
    with self.timers.phase("checkpointing"):
      self.checkpoints.close()
    usage, position = parallel.fetch(self.state.usage), self.position
    self.workdir.write_usage(usage.visits, usage.last_loss)
    summary = {
      "final_test_accuracy": accuracy,
      "best_test_accuracy": position.best_accuracy,
      "epochs": position.epoch,
      "steps": position.steps,
      "forward_visits": position.forward_visits,
      "backward_visits": position.backward_visits,
      "realised_keep_fraction": position.backward_visits / (usage.visits.shape[0] * position.epoch),
      "seconds": self.timers.seconds(),
      "non_finite": {"scores": position.non_finite_scores, "steps": 0},
      "resumed_from": position.resumed_from,
    }
    if self.validation is not None:
      summary["best_validation_accuracy"] = position.best_validation_accuracy
      summary["test_accuracy_at_best_validation"] = position.selected_test_accuracy
    if self.run.source.noisy is not None:
      summary["noisy_share_kept"] = position.noisy_visits / position.backward_visits
    if (corrupt := self.run.feed.corrupt()) is not None:
      summary["corrupt"] = sum(map(len, corrupt.values()))
    self.workdir.write_summary(summary)
    return summary

  def _num_evaluations(self, fixed: Fixed) -> int:
    return -(-fixed.test.labels.shape[0] // self.config.eval_batch_size)

  def _no_evaluation(self) -> Evaluation:
    # Three arrays of their own, since a program takes them over.
    return self.run.devices.place(Evaluation(*(jnp.zeros((), dtype) for dtype in (jnp.float32, jnp.int32, jnp.int32))))

  def _running_loss(self) -> float:
    loss_sum, visits = parallel.fetch((self.state.meters.loss_sum, self.state.meters.backward_visits))
    return float(loss_sum) / max(int(visits), 1)

  def _last_good(self) -> str:
    self.checkpoints.close()
    step = self.checkpoints.latest_step()
    return "no checkpoint had been saved" if step is None else f"the checkpoint of step {step} is kept"


def train_and_evaluate(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str],
  devices: Sequence[Any] | None = None,
  *,
  prepare: Callable[..., data.Source] = data.prepare,
  stop: Callable[[], str] | None = None,
  after_epoch: AfterEpoch | None = None,
) -> Result:
  """Trains as `config` says, or continues what `workdir` holds; a finished run is returned as it is.

  Args:
    config: as `configs/base.py` makes it.
    workdir: the run's folder; see `training.workdir` for what is left in it.
    devices: the devices to train on, by default all of this process.
    prepare: `data.prepare`, or what remembers its results where one process makes many runs.
    stop: as `stop_requests` yields it, where the caller listens to signals; by default this function does.
    after_epoch: called when an epoch's steps are done with the run, its state and the epoch, counted from 0; returns
      the state to go on with. What it leaves in the selector's state is checkpointed with everything else.

  Raises:
    UserError: a value is wrong, or `workdir` belongs to another run or is being written; nothing has been written.
    Interrupted: SIGTERM or SIGINT came; the same call continues the run.
    NonFiniteError: a loss or a gradient was not finite.
  """
  check_writable(os.fspath(workdir))
  timers, folder = Timers(), Workdir(os.fspath(workdir), writes=parallel.is_first_process())
  with contextlib.closing(folder), contextlib.nullcontext(stop) if stop else stop_requests() as stop:
    with timers.phase("loading"), parallel.first_process_first():
      source = prepare(config.dataset.to_dict(), config.cache_dir)
    given, config = config.to_dict(), setup.matched(config)
    identity = {"config": given, "data_fingerprint": source.fingerprint}
    parallel.check_same_on_every_process(cache.digest(identity), "config or data")
    folder.check_same_run(identity)
    _lock(folder, make=False)  # before anything that takes long
    run = setup.build(config, source, timers, devices, folder.read_columns())
    columns = {name: np.asarray(column) for name, column in run.columns.items()}
    device, count = run.devices.local[0], run.devices.num_replicas
    made = provenance(given, source.fingerprint, cache.checksum(columns), device, count)
    _lock(folder, make=True)
    folder.check_same_run(made)  # under the lock, since a run may have begun there in the meantime
    begun = folder.begin(made | {"seconds": timers.seconds()}, columns, run.firings)
    if source.true_labels is not None:
      folder.write_noise(source.train.labels, source.true_labels)
    trainer = _Trainer(run, config, folder, timers)
    trainer.restore(begun)
    summary = folder.read_summary()
    if summary is not None and trainer.position.epoch == config.epochs:
      trainer.checkpoints.close()
      return Result(summary, trainer.state, trainer.run)
    return _train(trainer, stop, after_epoch)


def _lock(folder: Workdir, *, make: bool) -> None:
  """Locks the folder for the first process; raises `UserError` on every process if another run holds it."""
  if parallel.any_process(not folder.lock(make=make)):
    raise options.UserError(f"workdir={folder.path} is being written by {folder.holder()}")


def _train(trainer: _Trainer, stop: Callable[[], str], after_epoch: AfterEpoch | None) -> Result:
  """Takes the run from where it stands to its end."""
  epochs, position = trainer.config.epochs, trainer.position
  quiet = not parallel.is_first_process()
  if not quiet:
    print(setup.description(trainer.run, trainer.config, position.steps), flush=True)
  trainer.workdir.rewind(position.epoch)
  trainer.compile()
  with contextlib.closing(Console(epochs, position.epoch, quiet=quiet)) as console:
    accuracy = None
    while position.epoch < epochs:
      trainer.stop_if_asked(stop)
      if position.step == 0:
        trainer.plan_epoch()
      size = int(parallel.fetch(trainer.state.plan.size))
      trainer.train_epoch(console, stop)
      trainer.refresh_scores()
      if after_epoch is not None:
        with trainer.timers.phase("scoring"):
          trainer.state = after_epoch(trainer.run, trainer.state, position.epoch)
      metrics = trainer.end_epoch(size)
      accuracy = metrics["test_accuracy"]
      console.epoch(metrics)
      trainer.save_if_due()
    summary = trainer.finish(trainer.evaluate(trainer.run.fixed)[1] if accuracy is None else accuracy)
    return Result(summary, trainer.state, trainer.run)
