"""Wrappers: each takes a selector, with or without `thin` and `refresh`, and returns one. Host-side.

Several are put around a selector one after the other, the first innermost. A wrapper changes which samples an epoch
keeps; it passes its key on to the wrapped selector, whose choice is the same with the wrapper and without it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dynsel_jax import options
from dynsel_jax.options import UserError
from dynsel_jax.selectors.wrappers.annealed import annealed
from dynsel_jax.selectors.wrappers.class_balanced import class_balanced
from dynsel_jax.selectors.wrappers.noise_guarded import noise_guarded
from dynsel_jax.selectors.wrappers.pods import pods
from dynsel_jax.selectors.wrappers.ranked_by_class import ranked_by_class
from dynsel_jax.selectors.wrappers.rescaled import rescaled
from dynsel_jax.selectors.wrappers.warmed_up import warmed_up
from dynsel_jax.types import SampleTable, Selector

__all__ = [
  "WRAPPERS",
  "Wrapper",
  "annealed",
  "class_balanced",
  "defaults",
  "noise_guarded",
  "pods",
  "ranked_by_class",
  "rescaled",
  "section",
  "warmed_up",
  "wrap",
]


class Wrapper(NamedTuple):
  """A registered wrapper."""

  factory: Callable[..., Selector]  # factory(selector, table, epochs, *, options) -> Selector
  title: str


WRAPPERS: dict[str, Wrapper] = {
  "annealed": Wrapper(annealed, "the full data in the first and last epochs"),
  "class_balanced": Wrapper(class_balanced, "the classes in the proportions of the training set"),
  "noise_guarded": Wrapper(noise_guarded, "never the samples of each class that look mislabelled"),
  "pods": Wrapper(pods, "low and high keep fractions in turn, at the same budget"),
  "ranked_by_class": Wrapper(ranked_by_class, "ranks within the class in place of losses, where it reads them"),
  "rescaled": Wrapper(rescaled, "loss weights: the inverse of how often a sample was chosen"),
  "warmed_up": Wrapper(warmed_up, "the full data until each sample was seen once"),
}


def defaults(name: str) -> dict[str, Any]:
  """Returns the options of the wrapper `name`, registered or a user's own by its path, with their defaults."""
  return options.keyword_defaults(_factory(name))


def section(name: str) -> str:
  """Returns the config's name for the options of the wrapper `name`: the name itself, or the last part of a path."""
  return name.rpartition(":")[2]


def wrap(selector: Selector, table: SampleTable, epochs: int, wrappers: Mapping[str, Mapping[str, Any]]) -> Selector:
  """Puts wrappers around a selector.

  Args:
    selector: the innermost.
    table: the training set.
    epochs: of the run.
    wrappers: the options by the wrapper's name, a registered one or the path of a user's own,
      `my_lab.my_module:my_wrapper`. The first is put around the selector, the second around that, and so on.

  Raises:
    UserError: a name, an option or a value is wrong.
  """
  for name, settings in wrappers.items():
    factory = _factory(name)
    options.check_settings("wrapper", name, settings, options.keyword_defaults(factory))
    selector = options.called("wrap", name, factory, selector, table, epochs, **settings)
    if not isinstance(selector, Selector):
      raise UserError(f"wrap={name!r} must return a Selector, not {type(selector).__name__}")
    selector = selector._replace(volume=None)  # what the wrapper keeps is not what the bare method would keep
  return selector


def _factory(name: str) -> Callable[..., Selector]:
  return options.named_or_imported("wrap", name, {known: wrapper.factory for known, wrapper in WRAPPERS.items()})
