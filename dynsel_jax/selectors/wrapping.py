"""The wrappers by name, and how they are put around a selector. Host-side."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from dynsel_jax import options
from dynsel_jax.options import UserError
from dynsel_jax.selectors import class_balanced, noise_guarded, rescaled, wrappers
from dynsel_jax.types import SampleTable, Selector

__all__ = ["WRAPPERS", "Wrapper", "defaults", "section", "weighting", "wrapped"]


class Wrapper(NamedTuple):
  """A registered wrapper."""

  factory: Callable[..., Selector]  # factory(selector, table, epochs, *, options) -> Selector
  title: str
  weighting: str = ""  # how a step uses the weights unless the config says otherwise; the method's way if empty


WRAPPERS: dict[str, Wrapper] = {
  "annealed": Wrapper(wrappers.annealed, "the full data in the first and last epochs"),
  "class_balanced": Wrapper(class_balanced.class_balanced, "the classes in the proportions of the training set"),
  "noise_guarded": Wrapper(noise_guarded.noise_guarded, "never the samples of each class that look mislabelled"),
  "rescaled": Wrapper(rescaled.rescaled, "loss weights: the inverse of how often a sample was chosen", "sum_to_n"),
  "warmed_up": Wrapper(wrappers.warmed_up, "the full data until each sample was seen once"),
}


def defaults(name: str) -> dict[str, Any]:
  """Returns the options of the wrapper `name`, registered or a user's own by its path, with their defaults."""
  return options.keyword_defaults(_factory(name))


def section(name: str) -> str:
  """Returns what a config calls the options of the wrapper `name`: the name, or the last part of a path."""
  return name.rpartition(":")[2]


def weighting(names: Collection[str]) -> str:
  """Returns how a step uses the weights by default with the wrappers `names`; empty if none of them makes weights."""
  own = [WRAPPERS[name].weighting for name in names if name in WRAPPERS and WRAPPERS[name].weighting]
  return own[-1] if own else ""


def wrapped(
  selector: Selector, table: SampleTable, epochs: int, wrapped_in: Mapping[str, Mapping[str, Any]]
) -> Selector:
  """Puts wrappers around a selector.

  Args:
    selector: the innermost.
    table: what is known of the training set.
    epochs: how many the run has.
    wrapped_in: the options by the wrapper's name, a registered one or the path of a user's own,
      `my_lab.my_module:my_wrapper`. The first is put around the selector, the second around that, and so on.

  Raises:
    UserError: a name, an option or a value is wrong.
  """
  for name, settings in wrapped_in.items():
    factory = _factory(name)
    options.check_settings("wrapper", name, settings, options.keyword_defaults(factory))
    selector = factory(selector, table, epochs, **settings)
    if not isinstance(selector, Selector):
      raise UserError(f"wrap={name!r} must return a Selector, not {type(selector).__name__}")
  return selector


def _factory(name: str) -> Callable[..., Selector]:
  return options.named_or_imported("wrap", name, {known: wrapper.factory for known, wrapper in WRAPPERS.items()})
