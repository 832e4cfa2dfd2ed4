"""`make demo`, `make check` and `make test` pass whatever ran before them and left its files."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.support import ROOT

UNTRACKED = ("*.egg-info", "__pycache__", ".*_cache", ".git", ".hypothesis", ".venv", "build", "runs")
DEMO = ("demo", "DEMO=:seeds=1,epochs=1")
CHECK = ("check",)
TEST = ("test", "TESTS=tests/test_memory.py")
TEST_AGAIN = ("test", "TESTS=tests/test_memory.py -n0")  # without the workers, which take as long as the rest


def _copy(folder):
  """Copies the tracked files, or all but what `.gitignore` names where git does not tell them."""
  listed = None
  if (ROOT / ".git").exists() and shutil.which("git"):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
  if listed is None or listed.returncode:
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*UNTRACKED))
    return
  for name in filter(None, listed.stdout.split("\0")):
    if (ROOT / name).is_file():
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(ROOT / name, folder / name)


def _lend_environment(folder):
  """Makes a `.venv` of links to this Python's environment; it counts as installed, so `make` writes nothing to it."""
  environment = pathlib.Path(sys.prefix)
  needed = [environment / "pyvenv.cfg", *(environment / "bin" / name for name in ("python", "ruff", "mypy"))]
  if importlib.util.find_spec("jinja2") is None:
    pytest.skip("this Python's environment lacks the extra `report`")
  if lacking := [str(path.relative_to(environment)) for path in needed if not path.exists()]:
    pytest.skip(f"this Python's environment lacks {', '.join(lacking)}")
  (folder / ".venv").mkdir()
  for path in environment.iterdir():
    if path.name != ".installed":
      (folder / ".venv" / path.name).symlink_to(path)
  (folder / ".venv" / ".installed").touch()
  if (ROOT / ".mypy_cache").exists():  # it knows files by their content, so that the types are checked faster
    shutil.copytree(ROOT / ".mypy_cache", folder / ".mypy_cache")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not there")
def test_demo_check_and_test_pass_in_any_order_and_twice(tmp_path):
  root = tmp_path / "copy"
  _copy(root)
  _lend_environment(root)
  # An outer `make test` hands its own variables down, and so does pytest.
  environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "PYTEST"))}
  for number, command in enumerate((DEMO, CHECK, TEST, TEST_AGAIN, CHECK, DEMO)):  # each pair in both orders
    done = subprocess.run(["make", *command], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"command {number}, make {' '.join(command)}:\n{done.stdout}\n{done.stderr}"
  assert done.stdout.splitlines()[-1].startswith("4 runs: runs/demo/report/report.html")  # and a verdict a method
  assert all(f"\n{method}: " in done.stdout for method in ("full", "random", "infobatch", "rrd"))
  assert (root / "runs" / "demo" / "report" / "report.html").exists()
