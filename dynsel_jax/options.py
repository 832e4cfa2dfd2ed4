"""Names and values that a user sets, and the one line they read when one is wrong. Host-side, no arrays."""

import inspect
import math
from collections.abc import Callable, Collection
from typing import Any

__all__ = ["UserError", "check_choice", "check_fraction", "check_options", "check_positive", "keyword_defaults"]


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


def keyword_defaults(function: Callable[..., Any]) -> dict[str, Any]:
  """Returns the keyword-only parameters of `function` with their defaults: the options that a config offers."""
  parameters = inspect.signature(function).parameters.values()
  return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def check_options(owner: str, options: Collection[str], known: Collection[str]) -> None:
  """Raises `UserError`, with the right options listed, if `owner` has no option of one of the names."""
  for name in options:
    if name not in known:
      raise UserError(f"{owner} has no option {name!r}; its options: {', '.join(sorted(known)) or 'none'}")
