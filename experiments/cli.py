"""What every entry point shares: one clear line for a wrong flag or value, and exit status 2."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from dynsel_jax import options

__all__ = ["check_config_file", "run"]


def _parse(arguments: Sequence[str]) -> list[str]:
  """Parses the command line; a wrong flag or field ends the program with one line."""
  try:
    return list(flags.FLAGS(list(arguments)))
  except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError, SyntaxError) as error:
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    raise SystemExit(_fail(" ".join(str(text).split()))) from None


def _fail(text: str) -> int:
  print(f"error: {text}", file=sys.stderr)
  return 2


def check_config_file(holder: flags.FlagHolder[Any]) -> None:
  """Raises `UserError` if the flag's config file is not there, which ml_collections would say in many lines."""
  filename, _, _ = config_flags.get_config_filename(flags.FLAGS[holder.name]).partition(":")
  if not os.path.isfile(filename):
    raise options.UserError(f"{holder.name}={filename} is not a file")


def run(main: Callable[[], Any]) -> None:
  """Calls `main` once the flags are parsed, and ends the program with its exit status."""

  def guarded(arguments: Sequence[str]) -> int:
    if len(arguments) > 1:
      return _fail(f"unexpected argument {arguments[1]!r}")
    logging.set_verbosity(logging.WARNING)
    try:
      return main() or 0
    except options.UserError as error:
      return _fail(str(error))

  app.run(guarded, flags_parser=_parse)
