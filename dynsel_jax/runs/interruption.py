"""Signals that ask a run to stop, and the exceptions that end one early. Host-side."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Interrupted", "NonFiniteError", "stop_requests"]


class Interrupted(Exception):  # noqa: N818 - not an error: the run can be continued
  """A signal asked the run to stop, and everything has been saved."""


class NonFiniteError(ArithmeticError):
  """A loss or a gradient was not finite. The last good checkpoint is kept."""


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], str]]:
  """Yields a function that returns the name of the signal that asked to stop, or ""; a second signal acts as usual."""
  asked: list[str] = []
  before: dict[int, Any] = {}

  def note(number: int, frame: Any) -> None:
    del frame
    asked.append(signal.Signals(number).name)
    signal.signal(number, before[number])

  with contextlib.ExitStack() as stack:
    for number in (signal.SIGTERM, signal.SIGINT):
      with contextlib.suppress(ValueError):  # only the main thread may
        before[number] = signal.signal(number, note)
        stack.callback(signal.signal, number, before[number])
    yield lambda: asked[0] if asked else ""
