"""Signals that ask a run to stop, and the exceptions that end one early. Host-side.

While a run trains, a signal is noted and the run saves itself before it ends. Before its first step there is nothing to
save, and data may be decoded, features extracted or programs compiled for minutes: there, within `ends_at_once`, a
signal ends the program in seconds, even in the middle of a long call into compiled code.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Interrupted", "NonFiniteError", "RunFailedError", "ends_at_once", "stop_requests"]

GRACE = 3.0  # seconds that Python has to end by itself before the process is ended

_at_once: list[str] = []  # descriptions of the blocks of `ends_at_once` that are running


class Interrupted(BaseException):
  """A signal asked the run to stop, and everything has been saved.

  As KeyboardInterrupt it is not an `Exception`: it may be raised anywhere within `ends_at_once`, also where any
  exception counts as a damaged file or as a mistake in a user's function.
  """


class NonFiniteError(ArithmeticError):
  """A loss or a gradient was not finite. The last good checkpoint is kept."""


class RunFailedError(RuntimeError):
  """Something outside the program failed, such as a full disk; the message says what is kept."""


@contextlib.contextmanager
def ends_at_once(what: str) -> Iterator[None]:
  """In this block a signal raises `Interrupted` at once, or ends the process where Python cannot.

  It does so only within `stop_requests`.

  Args:
    what: for people, for example "before the first step".
  """
  _at_once.append(what)
  try:
    yield
  finally:
    _at_once.pop()


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], str]]:
  """Yields a function that returns the name of the signal that asked to stop, or ""; a second signal acts as usual."""
  asked: list[str] = []
  before: dict[int, Any] = {}

  def note(number: int, frame: Any) -> None:
    del frame
    asked.append(signal.Signals(number).name)
    signal.signal(number, before[number])
    if _at_once:
      raise Interrupted(_words(asked[0], _at_once[-1]))

  with contextlib.ExitStack() as stack:
    for number in (signal.SIGTERM, signal.SIGINT):
      with contextlib.suppress(ValueError):  # only the main thread may
        before[number] = signal.signal(number, note)
        stack.callback(signal.signal, number, before[number])
    if before:
      stack.enter_context(_watched())
    yield lambda: asked[0] if asked else ""


def _words(name: str, what: str) -> str:
  return f"stopped by {name} {what}"


@contextlib.contextmanager
def _watched() -> Iterator[None]:
  """Watches for signals from a thread: Python runs a handler only when compiled code returns to it."""
  read, write = os.pipe()
  os.set_blocking(write, False)
  unwound = threading.Event()

  def watch() -> None:
    while number := os.read(read, 1):
      if number[0] in (signal.SIGTERM, signal.SIGINT) and _at_once:
        what = _at_once[-1]
        if not unwound.wait(GRACE) and _at_once:
          print(f"{_words(signal.Signals(number[0]).name, what)}; the same command starts again", file=sys.stderr)
          sys.stderr.flush()
          os._exit(0)

  thread = threading.Thread(target=watch, name="signals", daemon=True)
  thread.start()
  previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
  try:
    yield
  finally:
    signal.set_wakeup_fd(previous)
    unwound.set()
    os.close(write)  # ends the thread
    thread.join()
    os.close(read)
