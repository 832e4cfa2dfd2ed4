"""Learning tasks: per-sample losses, named signals and named metrics of a model's outputs.

The training step knows no labels, logits or metrics: it calls the task. `task.Task` says what a task is.
"""

from collections.abc import Callable
from typing import Any

from dynsel_jax import options
from dynsel_jax.data.gather import View
from dynsel_jax.data.source import Source
from dynsel_jax.tasks import classification, regression
from dynsel_jax.tasks.task import Metric, Task

__all__ = ["TASKS", "Metric", "Task", "create", "defaults", "giving"]

TASKS: dict[str, Callable[..., Task]] = {
  "classification": classification.classification,
  "regression": regression.regression,
}

_SIGNALS = {"classification": classification.SIGNALS, "regression": ()}


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
    UserError: the name, an option or a value is wrong, or the set lacks what the task needs.
  """
  factory = _factory(name)
  options.check_settings("task", name, settings, options.keyword_defaults(factory))
  task = options.called("task.name", name, factory, source, view, **settings)
  if not isinstance(task, Task):
    raise options.UserError(f"task.name={name!r} must return a Task, not {type(task).__name__}")
  return task


def giving(signal: str) -> list[str]:
  """Returns the names of the registered tasks that give the extra `signal`."""
  return sorted(name for name, signals in _SIGNALS.items() if signal in signals)


def _factory(name: str) -> Callable[..., Task]:
  return options.named_or_imported("task.name", name, TASKS)
