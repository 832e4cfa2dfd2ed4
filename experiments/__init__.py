"""Entry points: `python -m experiments.NAME`."""

import os
import signal
import sys
from typing import Any

__all__ = ["listen"]


def _end(number: int, frame: Any) -> None:
  """Ends the program in the middle of its imports, some of which turn an exception into another one."""
  del frame
  print(f"stopped by {signal.Signals(number).name} before anything began", file=sys.stderr, flush=True)
  os._exit(130)


def listen() -> None:
  """From now on Ctrl-C raises `KeyboardInterrupt` again: the command itself says what became of its work."""
  if signal.getsignal(signal.SIGINT) is _end:
    signal.signal(signal.SIGINT, signal.default_int_handler)


if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
  signal.signal(signal.SIGINT, _end)  # a command, whose imports take seconds
