"""`train_and_evaluate(config, workdir)`: a whole run, from a config to the files that it leaves behind. Host-side."""

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import logging

from dynsel_jax import cache, data, hashing, options
from dynsel_jax.data.inputs import scale_of
from dynsel_jax.runs import loggers, saved_model
from dynsel_jax.runs.console import Console, waiting
from dynsel_jax.runs.interruption import Interrupted, NonFiniteError, RunFailedError, ends_at_once, stop_requests
from dynsel_jax.runs.timing import Timers
from dynsel_jax.runs.workdir import Workdir, check_writable, identity, provenance
from dynsel_jax.training import parallel, setup
from dynsel_jax.training.checkpoint import Checkpoints, saved_identity
from dynsel_jax.training.state import RunState
from dynsel_jax.training.trainer import Trainer
from dynsel_jax.types import SampleTable

__all__ = ["AfterEpoch", "Build", "MakeColumns", "Result", "train_and_evaluate"]

_FULL = ("No space left", "Disk quota exceeded", "File too large", "RESOURCE_EXHAUSTED")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# (run, its state after an epoch's steps, the epoch) -> the state to continue with
AfterEpoch = Callable[[setup.Run, RunState, int], RunState]

# the parts of a run, and its sample table -> the run, with its programs
Build = Callable[[setup.Parts, SampleTable], setup.Run]

# (config, data set, timers) -> the columns of the `SampleTable`, and the arrays of `firings.npz`, or none
MakeColumns = Callable[[ml_collections.ConfigDict, data.Source, Timers], tuple[Mapping[str, Any], cache.Arrays]]


class Result(NamedTuple):
  """The result of a finished run."""

  summary: dict[str, Any]  # as `summary.json`
  state: RunState
  run: setup.Run


def no_columns(config: ml_collections.ConfigDict, source: data.Source, timers: Timers) -> tuple[dict[str, Any], Any]:
  """Makes the table of the data set alone."""
  del config, source, timers
  return {}, {}


def train_and_evaluate(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike[str],
  devices: Sequence[Any] | None = None,
  *,
  columns: MakeColumns = no_columns,
  prepare: Callable[..., data.Source] = data.prepare,
  build: Build = setup.build,
  stop: Callable[[], str] | None = None,
  after_epoch: AfterEpoch | None = None,
) -> Result:
  """Trains as `config` says, or continues the run in `workdir`; a finished run is returned as it is.

  Args:
    config: as `recipes.get_config` makes it.
    workdir: the run's folder; `runs.workdir` lists its files.
    devices: the devices to train on, by default all of this process.
    columns: makes the columns of the sample table, for example `offline.columns`. Called only once a new run is known
      to be right in everything else and its folder to be ours; a continued run reads them from the folder.
    prepare: `data.prepare`, or a function that remembers its results where one process makes many runs.
    build: `setup.build`, or a function that remembers its programs where one process makes many runs.
    stop: as `stop_requests` yields it, where the caller handles signals; by default this function does.
    after_epoch: called after an epoch's steps with the run, its state and the epoch, counted from 0; returns the state
      to continue with. Its changes of the selector's state are checkpointed with everything else.

  Raises:
    UserError: a value is wrong, or `workdir` belongs to another run or is being written; nothing has been written.
    Interrupted: SIGTERM or SIGINT came; the same call continues the run.
    NonFiniteError: a loss or a gradient was not finite.
    RunFailedError: something outside failed, such as a full disk; the message says which checkpoint is kept.
  """
  check_writable(os.fspath(workdir))
  config = ml_collections.ConfigDict(options.expand_homes(config.to_dict()))
  shown: Callable[[str], Any] = waiting if parallel.is_first_process() else contextlib.nullcontext
  timers, folder = Timers(shown), Workdir(os.fspath(workdir), writes=parallel.is_first_process())
  with contextlib.closing(folder), contextlib.nullcontext(stop) if stop else stop_requests() as stop:
    trainer = None
    try:
      with ends_at_once("before the first step"):
        trainer = _begun(config, folder, devices, timers, columns, prepare, build)
      return _finished(trainer) or _train(trainer, stop, after_epoch)
    except (options.UserError, Interrupted, NonFiniteError):
      raise
    except Exception as error:  # a full disk, a folder that was deleted: Orbax and TensorStore raise many kinds
      if trainer is None and not _is_full(error):
        raise
      raise RunFailedError(_failure(error, folder, trainer.last_good() if trainer else "nothing is lost")) from error


def _begun(
  config: ml_collections.ConfigDict,
  folder: Workdir,
  devices: Sequence[Any] | None,
  timers: Timers,
  columns: MakeColumns,
  prepare: Callable[..., data.Source],
  build: Build,
) -> Trainer:
  """Builds the run, writes the first files of its folder or checks those that it has, and restores its position."""
  with timers.phase("loading"), parallel.first_process_first():
    source = prepare(config.dataset.to_dict(), config.cache_dir)
  given = config.to_dict()
  known = {"config": given, "data_fingerprint": source.fingerprint}
  parallel.check_same_on_every_process(hashing.digest(known), "config or data")
  folder.check_same_run(known, _saved_identity(folder))
  _lock(folder, make=False)  # before anything that takes long
  parts = setup.parts(config, source, devices)
  with parallel.first_process_first():
    held, firings = folder.read_columns(), folder.read_firings()
    if held is None or firings is None:  # a new run, or one with a damaged file
      made, firings = columns(config, source, timers)
  run = build(parts, setup.table_of(source, made if held is None else held))
  arrays = {"columns": {name: np.asarray(column) for name, column in run.table.columns.items()}, "firings": firings}
  device, count = run.devices.local[0], run.devices.num_replicas
  about = provenance(given, source.fingerprint, hashing.checksum(arrays["columns"]), device, count)
  about |= _frozen(run)
  _lock(folder, make=True)
  # Under the lock, since a run may have begun there in the meantime.
  folder.check_same_run(about, _saved_identity(folder))
  begun = folder.begin(about | _use(run) | {"seconds": timers.seconds()}, arrays)
  if source.true_labels is not None:
    folder.write_noise(source.train["labels"], source.true_labels)
  if source.text is not None and source.text.tokenizer:
    folder.write_tokenizer(source.text.tokenizer)
  trainer = Trainer(run, parts.config, folder, timers, Checkpoints(folder.checkpoints, identity(about)))
  trainer.restore(begun)
  return trainer


def _finished(trainer: Trainer) -> Result | None:
  """Returns the result of a run that is finished; None if there is something left to do."""
  summary, done = trainer.workdir.read_summary(), trainer.position.epoch
  if summary is None:
    return None
  if done < trainer.config.epochs:
    where = trainer.workdir.path
    logging.warning("%s was finished, and its last checkpoint is lost: it goes on after epoch %d", where, done)
    return None
  trainer.restore_files()
  trainer.checkpoints.close()
  return Result(summary, trainer.state, trainer.run)


def _failure(error: Exception, folder: Workdir, kept: str) -> str:
  """Returns one line on a failure outside the program: what failed, what is kept, and what to do."""
  text = " ".join(str(error).split()) or "no message"
  if _is_full(error):
    return f"no space left for workdir={folder.path}; {kept}; once there is space the same command continues the run"
  if not folder.exists():
    return f"workdir={folder.path} was deleted or moved while the run was writing it ({type(error).__name__})"
  if jax.process_count() > 1:  # when one has ended, the others fail at their next exchange with it
    text = f"process {jax.process_index()} failed, perhaps because another one had ended: {text}"
  return f"{type(error).__name__}: {text[:240]}; {kept}; the same command continues the run"


def _is_full(error: Exception) -> bool:
  """Whether an error says that a disk or a quota is full."""
  return any(word in str(error) for word in _FULL) or getattr(error, "errno", 0) in _NO_SPACE


def _saved_identity(folder: Workdir) -> dict[str, Any] | None:
  """Returns the identity of the run that the folder's checkpoints belong to; None without a readable one."""
  return saved_identity(folder.checkpoints) if os.path.isdir(folder.checkpoints) else None


def _frozen(run: setup.Run) -> dict[str, str]:
  """Returns the field of `config.json` on weights that checkpoints do not hold, or {}."""
  if run.arrays.frozen is None:
    return {}
  return {"frozen_fingerprint": saved_model.digest(parallel.fetch(run.arrays.frozen))}


def _use(run: setup.Run) -> dict[str, Any]:
  """Returns the part of `config.json` that is needed to use the trained model, and to speak of its metric."""
  task, source = run.recipe.task, run.source
  inputs = source.train["inputs"]
  text = source.text.tokenizer if source.text is not None else ""
  tokenizer = {"tokenizer": hashing.text_digest(text)} if text else {}
  return {
    "task": {"name": task.name, "metric": task.metric._asdict(), "signals": list(task.signals)},
    "model": {
      "num_outputs": task.num_outputs,
      "input_shape": list(inputs.shape[1:]),
      "input_dtype": str(inputs.dtype),
      "input_scale": list(scale_of(inputs)),
      **tokenizer,
    },
    "normalisation": {"mean": list(source.mean), "std": list(source.std)},
    "class_names": list(source.class_names),
  }


def _lock(folder: Workdir, *, make: bool) -> None:
  """Locks the folder for the first process; raises `UserError` on every process if another run holds it."""
  if parallel.any_process(not folder.lock(make=make)):
    raise options.UserError(f"workdir={folder.path} is being written by {folder.holder()}")


def _train(trainer: Trainer, stop: Callable[[], str], after_epoch: AfterEpoch | None) -> Result:
  """Takes the run from its position to its end."""
  epochs, position, metric = trainer.config.epochs, trainer.position, trainer.metric
  quiet = not parallel.is_first_process()
  if not quiet:
    print(setup.description(trainer.run, trainer.config, position.steps), flush=True)
  trainer.workdir.rewind(position.epoch, position.lines)
  with ends_at_once(f"before step {position.steps + 1}"):
    trainer.compile()
  names = () if quiet else trainer.config.get("loggers", ())
  sent = loggers.create(names, trainer.workdir.path, trainer.config.to_dict())
  with contextlib.ExitStack() as stack:
    stack.enter_context(trainer.timers.phase("recording"))  # whatever is not in a phase of its own
    console = stack.enter_context(contextlib.closing(Console(metric, epochs, position.epoch, quiet=quiet)))
    for logger in sent:
      stack.callback(logger.close)
    final = None
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
      line = trainer.end_epoch(size)
      final = line["metric"]
      console.epoch(line)
      for logger in sent:
        logger.epoch(line)
      trainer.save_if_due()
    summary = trainer.finish(trainer.evaluate()[metric.name] if final is None else final)
    for logger in sent:
      logger.finish(summary)
    return Result(summary, trainer.state, trainer.run)
