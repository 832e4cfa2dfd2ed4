"""The host's side of a run: its position, its clock, and when it writes its files."""

import contextlib
import functools
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging

from dynsel_jax import batching, options
from dynsel_jax.runs import metrics_file
from dynsel_jax.runs.console import Console
from dynsel_jax.runs.interruption import Interrupted, NonFiniteError
from dynsel_jax.runs.timing import Timers
from dynsel_jax.runs.workdir import Workdir
from dynsel_jax.training import evaluation, monitors, nominal, parallel, setup
from dynsel_jax.training.checkpoint import Checkpoints, Position
from dynsel_jax.training.state import RunState

__all__ = ["Trainer"]


class Trainer:
  """The host's side of a run: its position, its clock, and when it writes its files."""

  def __init__(
    self,
    run: setup.Run,
    config: ml_collections.ConfigDict,
    workdir: Workdir,
    timers: Timers,
    checkpoints: Checkpoints,
  ):
    self.run, self.config, self.workdir, self.timers = run, config, workdir, timers
    self.metric = run.recipe.task.metric
    self.state: RunState = run.initial
    self.position = Position()
    self.checkpoints = checkpoints
    self._far_from_nominal = False  # whether that has been said
    self.saved = 0  # optimizer steps at the last checkpoint
    streamed = run.feed.corrupt() is not None
    firings = (workdir.read_firings() or {}) if workdir.writes else {}
    self.monitors = monitors.create(run.source, self.metric, streamed=streamed, firings=firings)
    self.position.monitors = {monitor.name: monitor.init() for monitor in self.monitors}

  def restore(self, begun: dict[str, float] | None) -> None:
    """Continues from the newest checkpoint, if there is one.

    Args:
      begun: seconds of an earlier part before its first step; without a checkpoint only these are known.
    """
    if self.checkpoints.latest_step() is None:
      if begun is not None:
        self.timers.add(begun)
      return
    begin = self.position.monitors
    self.state, self.position = self.checkpoints.restore(self.state, self.run.devices)
    self.position.monitors = {**begin, **self.position.monitors}
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
    run, programs, arrays = self.run, self.run.programs, self.run.arrays
    selector = run.recipe.selector
    with self.timers.phase("compiling"):
      state, _ = programs.plan(run.devices.copy(self.state), arrays, 0)
      nothing = run.devices.place(batching.empty_plan(state.usage.visits.shape[0]))
      state = programs.train(state._replace(plan=nothing), arrays, 0, 0, 1)
      if selector.thin is not None:
        state = programs.train_thinned(state, arrays, 0, 0, 1)
      if selector.refresh is not None:
        state = programs.refresh(programs.score(state, arrays, 0, 0, 1), arrays, 0)
      for split in run.feed.evaluated:
        with contextlib.closing(run.feed.evaluating(split)) as fed:
          beyond = self._num_evaluations(split)
          jax.block_until_ready(programs.evaluate(self._no_evaluation(split), self.state.train, next(fed), beyond, 1))

  def plan_epoch(self) -> None:
    """Selects the running epoch's samples."""
    with self.timers.phase("selecting"):
      self.state, info = self.run.programs.plan(self.state, self.run.arrays, self.position.epoch)
      values = {name: float(value) for name, value in parallel.fetch(info).items()}
      # JSON has no number for NaN and infinity.
      self.position.info = {name: value if math.isfinite(value) else None for name, value in values.items()}
    self.position.non_finite_scores += int(values.get("non_finite", 0))
    size = int(parallel.fetch(self.state.plan.size))
    if size < 1:
      name, epoch = self.config.selector.name, self.position.epoch + 1
      raise options.UserError(f"selector={name} selects no sample in epoch {epoch}")
    self._compare_with_nominal(size)

  def _compare_with_nominal(self, size: int) -> None:
    """Warns once if an epoch keeps a fraction far from `keep_fraction`, as with classes too small to be divided."""
    if not self._far_from_nominal:
      line = nominal.of_epoch(self.config, size, self.run.table.num_samples, self.position.epoch, self.position.info)
      self._far_from_nominal = bool(line)
      if line:
        logging.warning("%s", line)

  def train_epoch(self, console: Console, stop: Callable[[], str]) -> None:
    """Takes the rest of the running epoch's steps.

    Raises:
      Interrupted: a signal asked to stop.
      NonFiniteError: a loss or a gradient was not finite.
    """
    programs, position = self.run.programs, self.position
    size, thin = parallel.fetch((self.state.plan.size, self.state.thin))
    thinned = bool(thin) and self.run.recipe.selector.thin is not None
    num_steps = -(-int(size) // (self.run.recipe.meta_batch_size if thinned else self.config.batch_size))
    train = programs.train_thinned if thinned else programs.train
    every = self.config.checkpoint_every_steps or sys.maxsize
    with contextlib.closing(self.run.feed.training(self.state.plan, position.epoch, position.step)) as fed:
      while position.step < num_steps:
        count = min(programs.steps_per_call, num_steps - position.step, every - position.steps % every)
        with self.timers.phase("training"):
          self.state = train(self.state, next(fed), position.epoch, position.step, count)
          bad = int(parallel.fetch(self.state.meters.non_finite_step))
        if bad >= 0:
          raise NonFiniteError(f"step {bad}: the loss or a gradient is not finite; {self.last_good()}")
        position.step += count
        position.steps += count
        if console.due():
          console.step(position.epoch + position.step / num_steps, self._running_loss())
        # The last step of an epoch is saved with the epoch's end: a checkpoint is named by its step.
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
    """Scores the samples that the selector's `refresh` names after the epoch."""
    if self.run.recipe.selector.refresh is None:
      return
    programs, epoch = self.run.programs, self.position.epoch
    with self.timers.phase("scoring"):
      self.state = programs.refresh(self.state, self.run.arrays, epoch)
      num_steps = -(-int(parallel.fetch(self.state.plan.size)) // self.config.batch_size)
      with contextlib.closing(self.run.feed.scoring(self.state.plan)) as fed:
        for step in range(0, num_steps, programs.steps_per_call):
          count = min(programs.steps_per_call, num_steps - step)
          self.state = programs.score(self.state, next(fed), epoch, step, count)
      jax.block_until_ready(self.state.usage)

  def evaluate(self, split: str = "test") -> dict[str, float]:
    """Returns the task's metrics by name over one of the sets of `feed.evaluated`."""
    programs, num_steps = self.run.programs, self._num_evaluations(split)
    with self.timers.phase("evaluating"):
      done = self._no_evaluation(split)
      with contextlib.closing(self.run.feed.evaluating(split)) as fed:
        for step in range(0, num_steps, programs.steps_per_call):
          count = min(programs.steps_per_call, num_steps - step)
          done = programs.evaluate(done, self.state.train, next(fed), step, count)
      done = parallel.fetch(done)
    return evaluation.values(self.run.recipe.task, done)

  def end_epoch(self, size: int) -> dict[str, Any]:
    """Moves the position to the next epoch, writes the finished one's line, and returns it."""
    position, metrics = self.position, self.evaluate()
    metric = metrics[self.metric.name]
    meters, visits = parallel.fetch((self.state.meters, self.state.usage.visits))
    trained = int(meters.backward_visits)
    corrupt = self.run.feed.corrupt()
    position.corrupt = corrupt or {}
    end = monitors.EpochEnd(visits, trained, metric, self.evaluate, corrupt)
    position.monitors |= {m.name: m.update(position.monitors[m.name], end) for m in self.monitors}
    position.epoch += 1
    position.step = 0
    position.forward_visits += int(meters.forward_visits)
    position.backward_visits += trained
    before = [] if position.best_metric is None else [position.best_metric]
    position.best_metric = self.metric.best([*before, metric])
    line = {
      "epoch": position.epoch,
      "step": position.steps,
      "progress": position.epoch / self.config.epochs,
      "train_loss": float(meters.loss_sum) / max(trained, 1),
      **{f"test_{name}": value for name, value in metrics.items()},
      "metric": metric,
      "learning_rate": float(meters.learning_rate),
      "size": size,
      "realised_keep_fraction": trained / visits.shape[0],
      "unique_seen": int(np.count_nonzero(visits)),
      "weight_sum": float(meters.weight_sum),
      "forward_visits": position.forward_visits,
      "backward_visits": position.backward_visits,
      "selector": position.info,
    }
    for monitor in self.monitors:
      line |= monitor.metrics(position.monitors[monitor.name])
    line["seconds"] = self.timers.seconds()
    position.lines.append(metrics_file.line(line))
    self.workdir.write_epoch(line, visits)
    return line

  def finish(self, metric: float) -> dict[str, Any]:
    """Saves the run, writes its last files, and returns the summary; `metric` is the final one."""
    self.save()
    with self.timers.phase("checkpointing"):
      self.checkpoints.close()
    usage, position, name = parallel.fetch(self.state.usage), self.position, self.metric.name
    self.workdir.write_usage(usage.visits, usage.last_loss)
    summary = {
      "final_metric": metric,
      "best_metric": position.best_metric,
      f"final_test_{name}": metric,
      f"best_test_{name}": position.best_metric,
      "epochs": position.epoch,
      "steps": position.steps,
      "forward_visits": position.forward_visits,
      "backward_visits": position.backward_visits,
      "realised_keep_fraction": position.backward_visits / (usage.visits.shape[0] * position.epoch),
      "seconds": self.timers.seconds(),
      "ended": round(time.time(), 3),  # seconds since 1970, to see which runs were made side by side
      "non_finite": {"scores": position.non_finite_scores, "steps": 0},
      "resumed_from": position.resumed_from,
    }
    for monitor in self.monitors:
      summary |= monitor.summary(position.monitors[monitor.name], position.backward_visits)
    self.workdir.write_summary(summary)
    full_epochs = sum(bool(json.loads(line)["selector"].get("full_data")) for line in position.lines)
    if line := nominal.of_run(self.config, summary["realised_keep_fraction"], full_epochs):
      logging.warning("%s", line)
    return summary

  def restore_files(self) -> None:
    """Writes the files of a finished run again that are lost or damaged."""
    usage, position = parallel.fetch(self.state.usage), self.position
    self.workdir.restore_metrics(position.epoch, position.lines)
    self.workdir.restore_usage(usage.visits, usage.last_loss)

  def _num_evaluations(self, split: str) -> int:
    return -(-self.run.feed.evaluated[split] // self.config.eval_batch_size)

  @functools.cached_property
  def _evaluations(self) -> dict[str, evaluation.Evaluation]:
    """The shapes of the evaluation of each set, made once, since making them traces the model."""
    run, state = self.run, self.state.train
    return {name: evaluation.shapes(run.recipe, state, run.arrays, n) for name, n in run.feed.evaluated.items()}

  def _no_evaluation(self, split: str) -> evaluation.Evaluation:
    # New buffers each time: `evaluate` donates its first argument.
    return self.run.devices.place(evaluation.empty(self._evaluations[split]))

  def _running_loss(self) -> float:
    loss_sum, visits = parallel.fetch((self.state.meters.loss_sum, self.state.meters.backward_visits))
    return float(loss_sum) / max(int(visits), 1)

  def last_good(self) -> str:
    """Closes the checkpoints and says which one is kept."""
    if jax.process_count() == 1:  # closing waits for the other processes, which may be gone
      with contextlib.suppress(Exception):  # of a save that failed, and has been reported
        self.checkpoints.close()
    step = self.checkpoints.latest_step()
    return "no checkpoint had been saved" if step is None else f"the checkpoint of step {step} is kept"
