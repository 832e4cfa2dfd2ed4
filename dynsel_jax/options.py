"""Names and values that a user sets, and the one line they read when one is wrong. Host-side, no arrays."""

import importlib
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

__all__ = [
  "UserError",
  "check_choice",
  "check_fraction",
  "check_positive",
  "check_present",
  "check_settings",
  "flatten",
  "keyword_defaults",
  "named_or_imported",
]


class UserError(ValueError):
  """Something a user set or supplied is wrong; the message is one line that names the field and the value."""


def check_choice(field: str, value: str, known: Collection[str]) -> None:
  """Raises `UserError`, with the known names listed, unless `value` is one of `known`."""
  if value not in known:
    raise UserError(f"{field}={value!r} is not known; known: {', '.join(sorted(known))}")


def check_fraction(field: str, value: float, *, zero: bool = False) -> None:
  """Raises `UserError` unless `value` lies in (0, 1], or in [0, 1] with `zero`."""
  if not (0 < value <= 1 or (zero and value == 0)):
    raise UserError(f"{field}={value} must lie in {'[' if zero else '('}0, 1]")


def check_positive(field: str, value: float, *, zero: bool = False) -> None:
  """Raises `UserError` unless `value` is finite and above 0, or at least 0 with `zero`."""
  if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
    raise UserError(f"{field}={value} must be {'at least' if zero else 'greater than'} 0")


def check_present(section: str, settings: Mapping[str, Any], names: Collection[str]) -> None:
  """Raises `UserError` unless a config's section has all of `names`: a flag `--config.SECTION={}` wipes it silently."""
  for name in names:
    if name not in settings:
      raise UserError(f"{section}={dict(settings)} has no {name}")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Turns nested dicts into one with dotted names; lists and values are leaves."""
  flat: dict[str, Any] = {}
  for name, value in tree.items():
    flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
  return flat


def keyword_defaults(function: Callable[..., Any]) -> dict[str, Any]:
  """Returns the keyword-only parameters of `function` with their defaults: the options that a config offers."""
  parameters = inspect.signature(function).parameters.values()
  return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def named_or_imported(field: str, name: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
  """Returns what is known as `name` or, if that is a path `my_lab.my_module:attribute`, the attribute.

  Raises:
    UserError: the name is not known, or there is no such module or attribute.
  """
  module_name, colon, attribute = name.partition(":")
  if not colon:
    check_choice(field, name, known)
    return known[name]
  try:
    return getattr(importlib.import_module(module_name), attribute)
  except ModuleNotFoundError as error:
    if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
      raise  # the user's module was found, but not what it imports
    raise UserError(f"{field}={name!r}: there is no module {error.name!r}") from error
  except AttributeError as error:
    raise UserError(f"{field}={name!r}: module {module_name!r} has no {attribute!r}") from error


def check_settings(section: str, name: str, settings: Mapping[str, Any], known: Mapping[str, Any]) -> None:
  """Checks the options that a config's section gives to what it names.

  Args:
    section: of the config, for example "selector".
    name: what the section names, for example "infobatch".
    settings: the options.
    known: the options that there are, with their defaults.

  Raises:
    UserError: there is no such option, with the right ones listed, or a value is not of its default's type.
  """
  for option, value in settings.items():
    if option not in known:
      raise UserError(f"{section} {name!r} has no option {option!r}; its options: {', '.join(sorted(known)) or 'none'}")
    _check_type(f"{section}.{option}", value, known[option])


def _check_type(field: str, value: Any, default: Any) -> None:
  """Raises `UserError` unless the value is of the default's type; an int will do for a float, a list for a tuple."""
  if default is None:
    return
  kinds: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool, np.bool_), "True or False"),
    int: ((int, np.integer), "a whole number"),
    float: ((int, float, np.integer, np.floating), "a number"),
    tuple: ((tuple, list), "a tuple"),
  }
  wanted, words = kinds.get(type(default), ((type(default),), f"a {type(default).__name__}"))
  if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
    raise UserError(f"{field}={value!r} must be {words}")
  if isinstance(default, tuple) and isinstance(value, tuple | list) and default:
    for element in value:
      _check_type(field, element, default[0])
