"""What a person sees while a run is silent: what is being waited for, once it takes long."""

import io
import sys
import time

import pytest

from dynsel_jax.runs import console, timing


class Terminal(io.StringIO):
  def isatty(self):
    return True


def _waits_until(said, stream):
  begin = time.monotonic()
  while said not in stream.getvalue() and time.monotonic() - begin < 30:
    time.sleep(0.01)


@pytest.mark.parametrize(
  ("stream", "left"), [(io.StringIO, "compiling ...\n"), (Terminal, "compiling ...\r\x1b[K")], ids=["file", "terminal"]
)
def test_a_long_phase_is_told_while_it_lasts_and_leaves_a_terminal(stream, left, monkeypatch):
  monkeypatch.setattr(sys, "stderr", shown := stream())
  monkeypatch.setattr(console, "SECONDS_BEFORE", {True: 0.01, False: 0.01})
  with timing.Timers(console.waiting).phase("compiling"):
    _waits_until("compiling ...", shown)
    assert shown.getvalue().strip() == "compiling ..."
  assert shown.getvalue() == left


@pytest.mark.parametrize("phase", ["compiling", "training"])
def test_neither_a_short_phase_nor_training_is_told(phase, monkeypatch):
  monkeypatch.setattr(sys, "stderr", shown := Terminal())
  monkeypatch.setattr(console, "SECONDS_BEFORE", {True: 3600, False: 3600})
  with console.waiting(phase):
    pass
  assert shown.getvalue() == ""
