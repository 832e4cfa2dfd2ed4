"""Learning tasks: per-sample losses, named signals and named metrics of a model's outputs.

The training step knows nothing of labels, logits or metrics: it calls the task. `task.Task` describes a task.
"""

from collections.abc import Callable, Collection
from typing import Any

from dynsel_jax import options
from dynsel_jax.options import needs

with needs(__name__, "dynsel_jax[train]"):
  from dynsel_jax.data.gather import View
  from dynsel_jax.data.source import Source
  from dynsel_jax.tasks import classification, language_model, masked_image, regression
  from dynsel_jax.tasks.task import Metric, Task

__all__ = ["TASKS", "Metric", "Task", "check_headline", "create", "defaults", "giving"]

TASKS: dict[str, Callable[..., Task]] = {
  "classification": classification.classification,
  "language_model": language_model.language_model,
  "masked_image": masked_image.masked_image,
  "regression": regression.regression,
}

_SIGNALS = {
  "classification": classification.SIGNALS,
  "language_model": language_model.SIGNALS + language_model.GEOMETRY,
  "masked_image": (),
  "regression": (),
}


def defaults(name: str) -> dict[str, Any]:
  """Returns the options of the task `name`, registered or a user's own by its path, with their defaults."""
  return options.keyword_defaults(_factory(name))


def create(name: str, source: Source, view: View, /, **settings: Any) -> Task:
  """Builds a task.

  Args:
    name: a registered task, or the path of a user's own factory: `my_lab.my_task:task`.
    source: the data set.
    view: its augmentation and normalisation.
    **settings: the task's options, see `defaults`.

  Raises:
    UserError: the name, an option or a value is wrong, the data set lacks an array that the task reads, or the factory
      does not return a task.
  """
  factory = _factory(name)
  options.check_settings("task", name, settings, options.keyword_defaults(factory))
  task = options.called("task.name", name, factory, source, view, **settings)
  _check(name, task)
  return task


def giving(signal: str) -> list[str]:
  """Returns the names of the registered tasks that give the extra `signal`."""
  return sorted(name for name, signals in _SIGNALS.items() if signal in signals)


def check_headline(where: str, task: Task, names: Collection[str]) -> None:
  """Raises `UserError`, with `where` in front, unless the task's headline is among the metrics that it gives."""
  if task.metric.name not in names:
    raise options.UserError(
      f"{where}: metric names {task.metric.name!r}, and the task gives {', '.join(sorted(names)) or 'no metric'}"
    )


def _check(name: str, task: Any) -> None:
  """Raises `UserError` unless a factory's result is a task whose fields have the right types."""
  if not isinstance(task, Task):
    raise options.UserError(f"task.name={name!r} must return a dynsel_jax.tasks.Task, not {type(task).__name__}")
  if not isinstance(task.metric, Metric):
    raise options.UserError(f"task.name={name!r}: metric={task.metric!r} must be a dynsel_jax.tasks.Metric")
  if not isinstance(task.signals, tuple) or not all(isinstance(signal, str) for signal in task.signals):
    raise options.UserError(f"task.name={name!r}: signals={task.signals!r} must be a tuple of names")
  if not isinstance(task.num_outputs, int) or task.num_outputs < 1:
    raise options.UserError(f"task.name={name!r}: num_outputs={task.num_outputs!r} must be an integer of at least 1")
  if (task.rows is None) != (task.summarize is None):
    given, lacking = ("summarize", "rows") if task.rows is None else ("rows", "summarize")
    raise options.UserError(f"task.name={name!r} has {given} and no {lacking}: give both, or neither")


def _factory(name: str) -> Callable[..., Task]:
  return options.named_or_imported("task.name", name, TASKS)
