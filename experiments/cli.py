"""What every entry point shares: one clear line for a wrong flag or value, and exit status 2."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from dynsel_jax import options

__all__ = ["run"]


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
