"""The help of the commands: what a person sees who types no flag, or asks."""

import signal
import subprocess
import sys

import pytest

from experiments import benchmark
from tests.support import ROOT

ON_CONFIG = ("train", "estimate", "fit_factors", "score_dataset")


def said(*arguments):
  found = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
  return found.returncode, found.stdout, found.stderr


def test_the_commands_are_listed_with_what_they_do():
  status, out, _ = said("experiments")
  assert status == 0
  assert all(f"python -m experiments.{name} " in out for name in (*ON_CONFIG, "sweep", "report", "benchmark", "faults"))


@pytest.mark.parametrize(
  ("name", "example"),
  [
    ("train", "python -m experiments.train --config=configs/digits.py"),
    ("check_selector", "python -m experiments.check_selector examples.new_selector:forgotten"),
  ],
)
def test_without_an_argument_an_example_is_shown(name, example):
  status, out, err = said(f"experiments.{name}")
  assert status == 2 and not out
  assert f"\n    {example}" in err and err.endswith("\n\nerror: nothing is given; --help says more\n")


def test_ctrl_c_lets_a_benchmark_clean_up():
  command = [sys.executable, "-u", "-m", "experiments.benchmark", "sampler", "1000"]
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  # Tests that a shell runs in the background ignore Ctrl-C, and their children would too.
  heard = signal.signal(signal.SIGINT, signal.SIG_DFL)
  try:
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
  finally:
    signal.signal(signal.SIGINT, heard)
  with process:
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
  assert process.returncode == 130 and err == "stopped\n"


def test_help_on_the_benchmarks_lists_them(capsys):
  assert benchmark.main(["--help"]) == 0
  out = capsys.readouterr().out
  assert all(f"python -m experiments.benchmark {name} " in out for name in benchmark.BENCHMARKS)


@pytest.mark.parametrize("flag", ["--help", "--helpshort"])
def test_help_names_flags_variants_and_an_example(flag):
  status, out, _ = said("experiments.train", flag)
  assert status == 0
  for words in ("--config", "--workdir", "selector=NAME", "python -m experiments.train --config="):
    assert words in out


def test_help_on_a_config_lists_its_fields_with_the_values_given():
  _, out, _ = said("experiments.train", "--config=configs/digits.py:selector=infobatch", "--config.epochs=7", "--help")
  assert "  epochs = 7\n" in out and "  selector.prune_probability = 0.5\n" in out


def test_a_config_is_printed_and_nothing_is_written(tmp_path):
  status, out, _ = said(
    "experiments.train", "--config=configs/digits.py", f"--workdir={tmp_path / 'run'}", "--print_config"
  )
  assert status == 0 and "  seed = 0\n" in out and not (tmp_path / "run").exists()
