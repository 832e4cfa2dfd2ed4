"""Checks of the values that a user sets. Each failure is a `UserError` of one line. Host-side, no arrays."""

import contextlib
import importlib
import inspect
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

__all__ = [
  "MissingLibrary",
  "UserError",
  "called",
  "check_at_least",
  "check_choice",
  "check_fraction",
  "check_positive",
  "check_present",
  "check_range",
  "check_seed",
  "check_settings",
  "expand_home",
  "expand_homes",
  "flatten",
  "keyword_defaults",
  "named_or_imported",
  "needs",
  "optional_library",
  "printable",
]

_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+://")
_LONGEST = 2000  # characters of a message


class UserError(ValueError):
  """A value that a user set or supplied is wrong; the message is one line that names the field and the value."""

  def __init__(self, message: object = ""):
    """Makes the message one line that a terminal can show, whatever names and values it quotes."""
    super().__init__(printable(str(message), _LONGEST))


class MissingLibrary(UserError, ImportError):
  """A library that the package does not depend on is not installed; the message says how to install it."""


def printable(text: str, longest: int = 0) -> str:
  """Escapes what is not a visible character, so that a name from outside cannot change a terminal or a page.

  Line breaks, control and terminal codes, characters of zero width, marks that reverse the direction of the text and
  bytes that are not UTF-8 become escapes such as `\\x1b` and `\\u202e`.

  Args:
    text: any text.
    longest: number of characters from which on the middle is cut out; 0 keeps all.
  """
  if not text.isprintable():
    text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
  if longest and len(text) > longest:
    half = (longest - 1) // 2
    return f"{text[:half]}…{text[len(text) - (longest - 1 - half) :]}"
  return text


def check_at_least(field: str, value: float, minimum: float) -> None:
  """Raises `UserError` unless `value >= minimum`."""
  if not value >= minimum:  # also refuses NaN
    raise UserError(f"{field}={value} must be at least {minimum}")


def check_choice(field: str, value: str, known: Collection[str]) -> None:
  """Raises `UserError`, which lists the known names, unless `value` is one of `known`."""
  if value not in known:
    raise UserError(f"{field}={value!r} is not known; known: {', '.join(sorted(known))}")


def check_fraction(field: str, value: float, *, zero: bool = False, one: bool = True) -> None:
  """Raises `UserError` unless `value` lies between 0 and 1; `zero` and `one` say whether the ends are allowed.

  The default is (0, 1]. `zero=True` allows [0, 1], `zero=True, one=False` [0, 1), and `one=False` (0, 1).
  """
  if not (0 < value < 1 or (zero and value == 0) or (one and value == 1)):
    raise UserError(f"{field}={value} must lie in {'[' if zero else '('}0, 1{']' if one else ')'}")


def check_positive(field: str, value: float, *, zero: bool = False) -> None:
  """Raises `UserError` unless `value` is finite and greater than 0; `zero` allows 0 as well."""
  if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
    raise UserError(f"{field}={value} must be {'at least' if zero else 'greater than'} 0")


def check_range(field: str, value: float, low: float, high: float) -> None:
  """Raises `UserError` unless `low <= value <= high`."""
  if not low <= value <= high:  # also refuses NaN
    raise UserError(f"{field}={value} must lie in [{low}, {high}]")


def check_seed(field: str, value: int) -> None:
  """Raises `UserError` unless a seed lies in [0, 2**32): keys would be the same for seeds that differ by 2**32."""
  if not 0 <= value < 2**32:
    raise UserError(f"{field}={value} must lie in [0, {2**32 - 1}]")


def check_present(section: str, settings: Mapping[str, Any], names: Collection[str]) -> None:
  """Raises `UserError` unless a section of the config has all `names`.

  The flag `--config.SECTION={}` replaces the whole section without an error of its own.
  """
  for name in names:
    if name not in settings:
      raise UserError(f"{section}={dict(settings)} has no {name}")


def expand_home(field: str, path: str) -> str:
  """Replaces a leading `~` or `~user`, which a shell leaves as it is behind `=`, by the home folder.

  Raises:
    UserError: there is no such user, so that a folder of that name would be made; the path is a URL, of which a folder
      would be made, too; or it is not UTF-8, which checkpoints cannot be written below.
  """
  try:
    path.encode()
  except UnicodeEncodeError:
    raise UserError(f"{field}={printable(path)} has bytes that are not UTF-8; give another name") from None
  if _URL.match(path):
    raise UserError(f"{field}={path} is a URL; only paths of this machine are read and written")
  expanded = os.path.expanduser(path)
  if path.startswith("~") and expanded == path:
    raise UserError(f"{field}={path}: there is no home folder of {path.partition('/')[0]}; write ./{path} for the name")
  return expanded


def expand_homes(settings: Any, field: str = "config") -> Any:
  """Applies `expand_home` to every string of a nested config that begins with `~`."""
  if isinstance(settings, Mapping):
    return {name: expand_homes(value, f"{field}.{name}") for name, value in settings.items()}
  if isinstance(settings, str) and settings.startswith("~"):
    return expand_home(field, settings)
  return settings


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Flattens nested dicts to one dict with dotted names; lists and values are leaves."""
  flat: dict[str, Any] = {}
  for name, value in tree.items():
    flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
  return flat


def keyword_defaults(function: Callable[..., Any]) -> dict[str, Any]:
  """Returns the keyword-only parameters of `function` with their defaults: the options that a config offers.

  Raises:
    UserError: one has no default.
  """
  parameters = inspect.signature(function).parameters.values()
  keywords = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
  for name, default in keywords.items():
    if default is inspect.Parameter.empty:
      where = f"{function.__module__}:{function.__qualname__}"
      raise UserError(f"{where} has an option {name!r} without a default; a config needs one")
  return keywords


def called(field: str, name: str, factory: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
  """Returns `factory(*arguments, **settings)`, of a user's own factory.

  Raises:
    UserError: its parameters do not take them.
  """
  try:
    inspect.signature(factory).bind(*arguments, **settings)
  except TypeError as error:
    kinds = ", ".join([*(type(argument).__name__ for argument in arguments), "*", "options"])
    raise UserError(f"{field}={name!r} must be callable with ({kinds}): {error}") from None
  return factory(*arguments, **settings)


@contextlib.contextmanager
def needs(module: str, packages: str) -> Iterator[None]:
  """Stands around the imports of a module that the package's own dependencies do not bring.

  Args:
    module: the dotted name of the module that imports.
    packages: what brings the imports, as pip takes it: "torch", or an extra as "dynsel_jax[train]".

  Raises:
    MissingLibrary: one of them is not installed; the message says how to install it.
  """
  try:
    yield
  except ModuleNotFoundError as error:
    missing = error.name or str(error)
    if missing.startswith("dynsel_jax"):
      raise  # a mistake of ours
    quoted = f"'{packages}'" if "[" in packages else packages  # brackets are the shell's
    raise MissingLibrary(f"{module} needs {missing}: pip install {quoted}") from error


def optional_library(module: str, extra: str) -> Any:
  """Imports a library that only one of the package's extras brings.

  Raises:
    MissingLibrary: it is not installed; the message says how to install it.
  """
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    if error.name != module.partition(".")[0]:
      raise  # the library is there, but not what it imports
    raise MissingLibrary(f"the library {error.name!r} is not installed: pip install 'dynsel_jax[{extra}]'") from None


def named_or_imported(field: str, name: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
  """Finds a function by its registered name, or imports it by its dotted path `my_lab.my_module:function`.

  Args:
    field: of the config, for the message.
    name: a key of `known` or a dotted path.
    known: the registered functions by name.

  Raises:
    UserError: the name is unknown, the module or the attribute does not exist, or the attribute is not callable.
  """
  module_name, colon, attribute = name.partition(":")
  if not colon:
    check_choice(field, name, known)
    return known[name]
  try:
    function = getattr(importlib.import_module(module_name), attribute)
  except ModuleNotFoundError as error:
    if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
      raise  # the user's module exists; one of its own imports does not
    raise UserError(f"{field}={name!r}: there is no module {error.name!r}") from error
  except AttributeError as error:
    raise UserError(f"{field}={name!r}: module {module_name!r} has no {attribute!r}") from error
  if not callable(function):
    raise UserError(f"{field}={name!r} must be a function, not {type(function).__name__}")
  return function


def check_settings(section: str, name: str, settings: Mapping[str, Any], known: Mapping[str, Any]) -> None:
  """Checks the options that a section of the config sets against those that exist.

  Args:
    section: of the config, for example "selector".
    name: the section's name of a method, model or data set, for example "infobatch".
    settings: the options that are set.
    known: the options that exist, with their defaults.

  Raises:
    UserError: an option does not exist, or its value is not of the default's type.
  """
  for option, value in settings.items():
    if option not in known:
      raise UserError(f"{section} {name!r} has no option {option!r}; its options: {', '.join(sorted(known)) or 'none'}")
    _check_type(f"{section}.{option}", value, known[option])


def _check_type(field: str, value: Any, default: Any) -> None:
  """Raises `UserError` unless `value` has the default's type.

  An integer passes for a float and a list for a tuple; a default of None allows any type.
  """
  if default is None:
    return
  kinds: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool, np.bool_), "True or False"),
    int: ((int, np.integer), "an integer"),
    float: ((int, float, np.integer, np.floating), "a number"),
    str: ((str,), "a string"),
    tuple: ((tuple, list), "a tuple"),
  }
  wanted, words = kinds.get(type(default), ((type(default),), f"a {type(default).__name__}"))
  if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
    raise UserError(f"{field}={value!r} must be {words}")
  if isinstance(default, tuple) and isinstance(value, tuple | list) and default:
    for element in value:
      _check_type(field, element, default[0])
