"""README's table of methods is the registry, and the selector in the documentation runs as printed."""

import re
import sys

import pytest

from configs import digits
from dynsel_jax import selectors
from tests.support import ROOT, simulation, small_runs

README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs" / "selectors.md").read_text()


@pytest.fixture
def no_other_my_lab():
  """Other tests have a `my_lab` of their own."""

  def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
      del sys.modules[name]

  forget()
  yield
  forget()


def test_the_custom_selector_runs_as_printed(tmp_path, monkeypatch, no_other_my_lab):
  (code,) = re.findall(r"```python\n# my_lab/mistakes.py\n(.*?)```", GUIDE, re.DOTALL)
  (tmp_path / "my_lab").mkdir()
  (tmp_path / "my_lab" / "mistakes.py").write_text(code)
  monkeypatch.syspath_prepend(tmp_path)
  name = re.search(r"selector=(my_lab\S+) ", GUIDE).group(1)
  made = digits.get_config(f"size=smoke,selector={name}")
  assert made.selector.keep_fraction == 0.5
  summary, _ = small_runs.train(made, tmp_path / "run")
  assert summary["realised_keep_fraction"] == 721 / 1442
  wrong = [line["selector"]["wrong"] for line in small_runs.lines(tmp_path / "run")]
  assert wrong[0] == 1442
  assert wrong[1] < 1442
  assert "my_lab.mistakes" in sys.modules
  selector = selectors.create(name, simulation.table(), 8)
  assert selector.reads == ("correct",)
  for epoch in simulation.run(simulation.compiled(selector)):
    simulation.assert_epoch(epoch)
  factory = code.partition("\n\n")[2]
  assert len(factory.splitlines()) <= 10 and len(code.splitlines()) <= 16


def test_the_table_of_methods_is_the_registry():
  table = re.search(r"<!-- methods.*?-->\n(.*?)<!-- end of methods", README, re.DOTALL).group(1)
  rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
  expected = []
  for name, method in selectors.METHODS.items():
    arxiv = method.arxiv if method.arxiv == "-" else f"[{method.arxiv}](https://arxiv.org/abs/{method.arxiv})"
    module = method.factory.__module__.removeprefix("dynsel_jax.selectors.")
    reads = ", ".join(f"`{read}`" for read in selectors.create(name, simulation.table(), 8).reads) or "-"
    expected.append([f"`{name}`", method.title, arxiv, method.signal, reads, method.level, f"`{module}`"])
  assert rows == expected


def test_it_is_one_page():
  assert len(README.splitlines()) < 150
