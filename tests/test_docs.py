"""The documents are true: rooms, version, code as printed, and the links, paths, modules and commands in them."""

import importlib
import importlib.util
import os
import pkgutil
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynsel_jax
from docs import pages
from dynsel_jax import options
from experiments.studies import picture
from tests.support import ROOT
from tests.test_rooms import ALLOWED, GROUND

WRITTEN = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
DOCUMENTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "experiments/results/README.md", *WRITTEN)
EXAMPLES = {"configs/NAME.py"}
SAMPLES = np.arange(300)


@pytest.fixture(scope="module")
def site():
  """Returns the text of each page of the site, those that are generated too, by its path from the top folder."""
  written = {name: pages.filled((ROOT / name).read_text()) for name in WRITTEN}
  return written | {f"docs/{name}": text for name, text in pages.generated().items()}


def test_the_table_of_rooms_is_the_one_that_the_imports_are_held_against():
  table = (ROOT / "docs" / "design.md").read_text().partition("| room |")[2].partition("\n\n")[0]
  rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
  found = {room.strip("`"): set(re.findall(r"`(\w+)`", allowed)) for room, _, allowed in rows}
  assert list(found) == list(ALLOWED)
  assert found == {room: allowed - GROUND for room, allowed in ALLOWED.items()}


def test_the_changelog_begins_with_this_version():
  versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
  assert versions["Unreleased" in versions] == dynsel_jax.__version__


def python_of(document):
  return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def step(x, y, weight=None):
  """A model whose losses are known; it learns nothing."""
  assert len(x) == len(y) <= 128 and (weight is None or len(weight) == len(x))
  return np.where(x % 2, 2.0, 1.0)


def test_the_loop_of_readme_runs_as_printed_and_stands_in_the_docs():
  (code,) = python_of("README.md")
  seen = []

  def train_step(x, y, weight):
    seen.extend(x)
    return step(x, y, weight)

  exec(code, {"x": SAMPLES, "y": SAMPLES, "train_step": train_step})
  assert 15 * 300 < len(seen) < 30 * 300 and set(seen) == set(range(300))
  assert code == python_of("docs/index.md")[0] == python_of("docs/quickstart.md")[0]


@pytest.mark.parametrize("number", range(1, len(python_of("docs/quickstart.md"))))
def test_the_code_of_the_quickstart_runs_as_printed(number):
  code = python_of("docs/quickstart.md")[number]
  method = "es" if "thin(" in code else "kakurenbo" if "to_refresh" in code else "infobatch"
  sampler = dynsel_jax.Sampler(method, num_samples=300, epochs=2, batch_size=128)
  names = {"dynsel_jax": dynsel_jax, "np": np, "x": SAMPLES, "y": SAMPLES, "train_step": step, "forward": step}
  if "epoch_keys" not in code:
    exec(code.replace("=...", "=np.ones(len(index))"), names | {"sampler": sampler, "epoch": next(sampler.epochs())})
    assert sampler.forward_visits > 0 or "for index" not in code
    return
  selector = dynsel_jax.create("infobatch", dynsel_jax.SampleTable(300), 2)

  def traced(key, state, epoch, losses):
    held = names | {"selector": selector, "step": 0, "batch_size": 128, "key": key, "state": state, "epoch": epoch}
    exec(code, held := held | {"losses": losses})
    return held["loss"], held["state"]

  state = jax.eval_shape(selector.init, jax.random.key(0))
  loss, observed = jax.eval_shape(traced, jax.random.key(1), state, jnp.int32(1), jnp.ones(128))
  assert loss.shape == () and observed == state


def slugs(text):
  """Returns the anchors of a page's headings, as Python-Markdown makes them, and of the modules it documents."""
  headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
  words = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
  return {re.sub(r"[-\s]+", "-", heading) for heading in words} | set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))


def test_the_navigation_lists_each_page_once(site):
  listed = re.findall(r"([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2], re.MULTILINE)
  listed += [f"methods/{name}.md" for name in dynsel_jax.METHODS]
  assert sorted(listed) == sorted({"results/README.md", *(name.removeprefix("docs/") for name in site)})


def test_every_link_of_the_site_leads_somewhere(site):
  for name, text in site.items():
    for link in re.findall(r"\]\((?!http)([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
      path, _, anchor = link.partition("#")
      target = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
      if target.startswith("docs/results/"):
        assert (ROOT / "experiments" / target.removeprefix("docs/")).exists(), (name, link)
        continue
      assert target in site, (name, link)
      assert not anchor or anchor in slugs(site[target]), (name, link)


def test_every_name_of_the_package_in_the_site_is_there(site):
  for name, text in site.items():
    found = set(re.findall(r"(?<![\w.])dynsel_jax(?:\.\w+)+", text)) | set(
      re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    )
    for dotted in found:
      if dotted.startswith("dynsel_jax.adapters."):  # which need their framework
        dotted = ".".join(dotted.split(".")[:3])
        assert importlib.util.find_spec(dotted) is not None, (name, dotted)
        continue
      pkgutil.resolve_name(dotted)


def test_every_config_and_field_in_a_command_is_there(site):
  commands = set()
  for text in site.values():
    joined = re.sub(r" *\\\n *", " ", text)
    commands |= {line.strip() for line in joined.splitlines() if "--config=configs/" in line and "my_lab" not in line}
  assert len(commands) > 20
  for command in commands:
    path, variants, rest = re.search(r"--config=configs/(\w+)\.py:?(\S*)(.*)", command).groups()
    if (path, variants) == ("NAME", "") or "..." in variants or "NAME" in variants:
      continue
    config = importlib.import_module(f"configs.{path}").get_config(variants)
    for field in re.findall(r"--config\.((?!FIELD)[\w.]+)=", rest):
      assert options.flatten(config.to_dict()).keys() >= {field}, command


def test_a_docstring_becomes_markdown():
  text = "First line.\n\n  w = a + b,\n  c\n\nMore.\n\n"
  text += "Args:\n  one: the first,\n    in [0, 1].\n  two: 2 | 3.\n\nRaises:\n  X: no."
  assert pages.prose(text) == "First line.\n\n```text\nw = a + b,\nc\n```\n\nMore."
  assert pages.arguments(text) == {"one": "the first, in [0, 1].", "two": "2 | 3."}
  page = pages.method("es")
  assert "w = beta1 s + (1 - beta1) l" in page and "| `beta1` | `0.2` |" in page and "sampler.thin(" in page
  assert "Nothing." in page and "arxiv.org/abs/2509.23461" in page
  assert "columns={" in pages.method("rrd") and "Algorithm 1 takes the best of all" in pages.method("rrd")


def test_the_picture_is_that_of_the_results_on_record():
  assert (ROOT / "docs" / "images" / "tradeoff.svg").read_text() == picture.drawn()


def test_costs_and_losses_of_the_picture():
  rows = [
    {
      "label": "full",
      "n": "3",
      "metric_mean": "0.8",
      "metric_sd": "0.01",
      "backward_visits_mean": "100",
      "forward_visits_mean": "100",
    },
    {
      "label": "es",
      "n": "1",
      "metric_mean": "0.79",
      "metric_sd": "",
      "backward_visits_mean": "30",
      "forward_visits_mean": "120",
    },
  ]
  full, es = picture.points(rows)
  assert (full.cost, full.loss) == (1, 0)
  assert (es.cost, es.deviation, es.runs) == (180 / 300, 0, 1) and es.loss == pytest.approx(-1)
  assert picture.spread([1, 2, 30], 14) == [1, 15, 30]
  assert picture.name_of("rs2_keep0.3") == "rs2 30 %"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_modules_that_a_document_names_are_there(document):
  text = (ROOT / document).read_text()
  if not document.startswith("docs/"):
    where = (ROOT / document).parent
    for link in re.findall(r"\]\((?!http|#)([^)\s]+)\)", text):
      path, _, anchor = link.partition("#")
      assert (where / path).exists(), link
      assert not anchor or anchor in slugs((where / path).read_text()), link
  for path in re.findall(
    r"(?<![\w/.])((?:configs|docs|dynsel_jax|examples|experiments|tests)/[\w/]+\.(?:py|md))", text
  ):
    assert (ROOT / path).is_file() or path in EXAMPLES, path
  for module in re.findall(r"python -m (experiments[\w.]*\w)", text):
    assert importlib.util.find_spec(module) is not None, module
