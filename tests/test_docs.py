"""The documents are true: rooms, version, the loop of the front door, and the paths and modules that they name."""

import importlib.util
import re

import numpy as np
import pytest

import dynsel_jax
from tests.support import ROOT
from tests.test_rooms import ALLOWED, GROUND

DOCUMENTS = ("README.md", "CHANGELOG.md", "docs/design.md", "docs/differences.md", "experiments/results/README.md")
EXAMPLES = {"configs/NAME.py"}


def test_the_table_of_rooms_is_the_one_that_the_imports_are_held_against():
  table = (ROOT / "docs" / "design.md").read_text().partition("| room |")[2].partition("\n\n")[0]
  rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
  found = {room.strip("`"): set(re.findall(r"`(\w+)`", allowed)) for room, _, allowed in rows}
  assert list(found) == list(ALLOWED)
  assert found == {room: allowed - GROUND for room, allowed in ALLOWED.items()}


def test_the_changelog_begins_with_this_version():
  newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE).group(1)
  assert newest == dynsel_jax.__version__


def test_the_loop_in_readme_runs_as_printed():
  text = (ROOT / "README.md").read_text()
  (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Sampler(" in block]
  x = y = np.arange(300)
  seen = []

  def train_step(x, y, weight):
    assert len(x) == len(y) == len(weight) <= 128
    seen.extend(x)
    return np.where(x % 2, 2.0, 1.0)

  exec(code, {"x": x, "y": y, "train_step": train_step})
  assert 15 * 300 < len(seen) < 30 * 300 and set(seen) == set(range(300))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_modules_that_a_document_names_are_there(document):
  text = (ROOT / document).read_text()
  where = (ROOT / document).parent
  for link in re.findall(r"\]\((?!http|#)([^)\s]+)\)", text):
    assert (where / link).exists(), link
  for path in re.findall(r"(?<![\w/.])((?:configs|docs|dynsel_jax|experiments|tests)/[\w/]+\.(?:py|md))", text):
    assert (ROOT / path).is_file() or path in EXAMPLES, path
  for module in re.findall(r"python -m (experiments[\w.]*\w)", text):
    assert importlib.util.find_spec(module) is not None, module
