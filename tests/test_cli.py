"""How a program ends: the line that is said, and the exit status."""

import pytest

from dynsel_jax import options
from dynsel_jax.training import loop
from experiments import cli

ANEW = loop.Interrupted("stopped while a model was trained")
ANEW.add_note("the same command trains it anew")


@pytest.mark.parametrize(
  ("raised", "status", "line"),
  [
    (options.UserError("epochs=0 is wrong"), 2, "error: epochs=0 is wrong"),
    (loop.NonFiniteError("step 3: the loss is not finite"), 1, "error: step 3: the loss is not finite"),
    (loop.Interrupted("stopped by SIGTERM"), 0, "stopped by SIGTERM; the same command continues it"),
    (ANEW, 0, "stopped while a model was trained; the same command trains it anew"),
  ],
)
def test_what_ends_a_program_early_is_one_line_and_a_status(raised, status, line, monkeypatch, capsys):
  ended = []
  monkeypatch.setattr(cli.app, "run", lambda guarded, **_: ended.append(guarded(["program"])))

  def main():
    raise raised

  cli.run(main)
  assert ended == [status]
  assert capsys.readouterr() == ("", line + "\n")
