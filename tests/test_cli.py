"""How a program ends: the line that is said, and the exit status."""

import os
import subprocess
import sys

import pytest
from absl import flags

from dynsel_jax import options
from dynsel_jax.runs import interruption
from experiments import cli
from tests.support import ROOT, run_folders

ANEW = interruption.Interrupted("stopped while a model was trained")
ANEW.add_note("the same command trains it anew")


def _status(main, monkeypatch):
  """The status with which a command ends in which `main` is called."""
  ended = []
  monkeypatch.setattr(sys, "argv", ["program", "--workdir=folder"])
  monkeypatch.setattr(cli.app, "run", lambda guarded, **_: ended.append(guarded(["program"])))
  monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # so that the changed one is put back
  monkeypatch.setattr(cli, "_end_now", lambda status: status)  # it ends this process
  cli.run(main)
  return ended[0]


@pytest.mark.parametrize(
  ("raised", "status", "line"),
  [
    (options.UserError("epochs=0 is wrong"), 2, "error: epochs=0 is wrong"),
    (interruption.NonFiniteError("step 3: the loss is not finite"), 1, "error: step 3: the loss is not finite"),
    (interruption.Interrupted("stopped by SIGTERM"), 0, "stopped by SIGTERM; the same command continues it"),
    (ANEW, 0, "stopped while a model was trained; the same command trains it anew"),
  ],
)
def test_what_ends_a_program_early_is_one_line_and_a_status(raised, status, line, monkeypatch, capsys):
  def main():
    raise raised

  assert _status(main, monkeypatch) == status
  assert capsys.readouterr() == ("", line + "\n")


@pytest.mark.parametrize("define", [flags.DEFINE_string, flags.DEFINE_multi_string])
def test_a_workdir_without_a_name_is_not_the_current_folder(define, monkeypatch, capsys):
  given = flags.FlagValues()
  define("workdir", "", "", flag_values=given)
  monkeypatch.setattr(cli.flags, "FLAGS", given)
  assert _status(lambda: None, monkeypatch) == 2
  assert capsys.readouterr() == ("", "error: workdir='' must name a folder\n")


@pytest.mark.parametrize(
  ("given", "used"),
  [
    (None, "--xla_gpu_enable_triton_gemm=false"),
    ("--xla_dump_to=x", "--xla_dump_to=x --xla_gpu_enable_triton_gemm=false"),
    ("--xla_gpu_enable_triton_gemm=true", "--xla_gpu_enable_triton_gemm=true"),
  ],
)
def test_what_xla_cannot_do_is_turned_off_unless_its_flags_say_otherwise(given, used, monkeypatch):
  monkeypatch.setattr(sys, "argv", ["program", "--workdir=folder"])
  monkeypatch.setattr(cli.app, "run", lambda guarded, **_: None)
  monkeypatch.setenv("XLA_FLAGS", given or "")
  if given is None:
    monkeypatch.delenv("XLA_FLAGS")
  cli.run(lambda: None)
  assert os.environ["XLA_FLAGS"] == used


@pytest.mark.parametrize(
  ("arguments", "line"),
  [
    (["--config=configs/digits.py", "--config.epoch=3"], "config.epoch is not a field; config has batch_size,"),
    (
      ["--config", "configs/digits.py:selector=random", "--config.selector.keep", "0.1"],
      "config.selector.keep is not a field; config.selector has keep_fraction, name",
    ),
    (["--config=configs/digits.py", "--config.seed.x=1"], "config.seed.x is not a field; config.seed has no fields"),
    (["--config=configs/digits.py", "--config.epochs=many"], "flag --config.epochs=many: "),
    (["--config=configs/digits.py:size=huge"], "size='huge' is not known; known: cpu, full, smoke"),
  ],
)
def test_a_wrong_field_is_named_with_what_its_section_has(arguments, line, tmp_path):
  command = [sys.executable, "-m", "experiments.train", *arguments, f"--workdir={tmp_path / 'run'}"]
  ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert ended.returncode == 2
  assert ended.stderr.startswith(f"error: {line}") and ended.stderr.count("\n") == 1
  assert "\\n" not in ended.stderr
  assert not (tmp_path / "run").exists()


def test_a_report_takes_folders_after_its_flag_and_a_run_refuses_what_is_no_flag(tmp_path):
  folders = [tmp_path / name for name in ("one", "two", "three")]
  for seed, folder in enumerate(folders):
    run_folders.write(folder / f"random-seed{seed}", seed=seed)
  command = [sys.executable, "-m", "experiments.report", f"--workdir={folders[0]}", *map(str, folders[1:])]
  ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  *verdicts, files = ended.stdout.splitlines()
  assert (ended.returncode, files.partition(":")[0]) == (0, "3 runs") and verdicts[0].startswith("random: ")
  assert (folders[0] / "report" / "report.md").exists()
  command = [sys.executable, "-m", "experiments.train", "--config=configs/digits.py", "--workdir=x", "epochs=3"]
  ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert (ended.returncode, ended.stderr) == (2, "error: unexpected argument 'epochs=3'\n")
