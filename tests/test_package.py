"""The package as somebody installs it: its dependencies, its version, and what importing it brings in."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib

import pytest

import dynsel_jax
from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HEAVY = ("flax", "optax", "orbax", "absl", "ml_collections", "scipy", "sklearn", "matplotlib", "tqdm", "tokenizers")
# Rooms with the extra that brings what they import.
ROOMS = ("data", "factors", "features", "models", "offline", "recipes", "runs", "tasks", "training")
EXTRAS = {f"dynsel_jax.{room}": "train" for room in ROOMS} | {"dynsel_jax.report": "report"}


def test_requirements_are_the_dependencies_and_the_extras_of_the_experiments():
  lines = (ROOT / "requirements.txt").read_text().splitlines()
  required = [line for line in lines if line and not line.startswith("#")]
  extras = PROJECT["optional-dependencies"]
  declared = [*PROJECT["dependencies"], *extras["train"], *extras["text"], *extras["report"]]
  assert sorted(required) == sorted(set(declared))


@pytest.fixture(scope="module")
def lean():
  """What an import of the package brings in, and what importing each room says if only jax and numpy are there."""
  program = f"""
import importlib, sys
import dynsel_jax
print(*(name for name in {HEAVY!r} if name in sys.modules))
sys.modules |= dict.fromkeys({HEAVY!r})
for room in {EXTRAS!r}:
  try:
    importlib.import_module(room)
  except ImportError as error:
    print(error)
"""
  found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
  return found.stdout.splitlines()


def test_the_core_needs_jax_and_numpy_alone(lean):
  assert [re.split(r"[<>=]", line)[0] for line in PROJECT["dependencies"]] == ["jax", "numpy"]
  assert lean[0] == ""


def test_a_room_whose_extra_is_missing_names_it_in_one_line(lean):
  for line, (room, extra) in zip(lean[1:], EXTRAS.items(), strict=True):
    assert re.fullmatch(rf"dynsel_jax\.\w+ needs \w+: pip install 'dynsel_jax\[{extra}\]'", line), (room, line)
    assert extra in PROJECT["optional-dependencies"]


def test_the_version_is_told_once():
  assert dynsel_jax.__version__ == PROJECT["version"]
  assert set(dynsel_jax.__all__) <= set(dir(dynsel_jax))


def test_the_licence_and_the_types_travel_with_it():
  assert "Apache License" in (ROOT / "LICENSE").read_text()
  assert (ROOT / "dynsel_jax" / "py.typed").exists()
  assert importlib.metadata.metadata("dynsel_jax")["License-Expression"] in (None, "Apache-2.0")
