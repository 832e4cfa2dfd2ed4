"""The plan of the house: which room may import which, held against the imports, also those inside functions."""

import ast
import functools
import pathlib

import pytest

from tests.support import ROOT

GROUND = {
  "cache",
  "hashing",
  "metric",
  "options",
  "types",
}  # modules that belong to no room; they import one another alone
PURE = GROUND | {"selectors", "batching"}

# Each room with the rooms that it may import, the ground floor first: an arrow points only to a room further up here.
ALLOWED = {
  "selectors": GROUND,
  "batching": GROUND | {"selectors"},
  "sampler": GROUND | {"selectors", "batching"},
  "adapters": GROUND | {"sampler"},
  "factors": GROUND,
  "coresets": GROUND,
  "models": GROUND,
  "data": GROUND | {"models"},
  "features": GROUND | {"data", "models"},
  "tasks": GROUND | {"data", "models"},
  "runs": GROUND | {"data", "models"},
  "training": PURE | {"data", "factors", "models", "runs", "tasks"},
  "offline": PURE | {"coresets", "data", "factors", "features", "models", "runs", "tasks", "training"},
  "recipes": PURE | {"data", "factors", "features", "models", "offline", "runs", "tasks", "training"},
  "report": GROUND | {"runs"},
}


def _modules():
  """Maps the name of each module of the package to its file."""
  files = (path.relative_to(ROOT) for path in (ROOT / "dynsel_jax").rglob("*.py"))
  return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): ROOT / path for path in files}


MODULES = _modules()


@functools.cache
def _imports(module):
  """Returns the modules of the package that a module imports, at its top or inside a function."""
  found = set()
  for node in ast.walk(ast.parse(MODULES[module].read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      assert node.level == 0, f"{module} has a relative import"
      named = {f"{node.module}.{alias.name}" for alias in node.names}
      found |= {name if name in MODULES else node.module for name in named}
  return found & set(MODULES) - {module}


def _room(module):
  _, *parts = module.split(".")
  return parts[0] if parts else "front door"


@pytest.mark.parametrize("room", [*ALLOWED, "ground"])
def test_a_room_imports_only_rooms_below_it(room):
  allowed = GROUND if room == "ground" else ALLOWED[room] | {room}
  inside = [module for module in MODULES if _room(module) in (GROUND if room == "ground" else {room})]
  assert inside
  wrong = {(module, imported) for module in inside for imported in _imports(module) if _room(imported) not in allowed}
  assert not wrong


def test_the_table_is_ordered_and_complete():
  names = [*GROUND, *ALLOWED]
  for number, (_, below) in enumerate(ALLOWED.items()):
    assert below <= set(names[: len(GROUND) + number])
  assert {_room(module) for module in MODULES} <= {*names, "front door"}
  assert {_room(imported) for imported in _imports("dynsel_jax")} <= PURE | {"sampler"}


def test_no_module_imports_itself_in_a_circle():
  done, under_way = set(), []

  def visit(module):
    assert module not in under_way, " -> ".join([*under_way[under_way.index(module) :], module])
    if module not in done:
      under_way.append(module)
      for imported in sorted(_imports(module)):
        visit(imported)
      under_way.pop()
      done.add(module)

  for module in sorted(MODULES):
    visit(module)


def test_imports_inside_functions_are_of_other_libraries():
  for module, path in MODULES.items():
    tree = ast.parse(path.read_text())
    inside = [n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)]
    ours = [
      node for node in inside if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dynsel_jax")
    ]
    assert not ours, f"{module}, line {ours[0].lineno}"


@pytest.mark.parametrize("word", ["num_classes", "accuracy", "logits"])
def test_training_knows_no_classification(word):
  for path in (ROOT / "dynsel_jax" / "training").rglob("*.py"):
    lines = [line for line in path.read_text().splitlines() if word in line]
    # A data set's labels and their number are the table's, and so the selectors'.
    assert all("source.num_classes" in line for line in lines), (path.name, lines)


def _functions(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.FunctionDef):
      yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("folder", ["configs", "docs", "dynsel_jax", "examples", "experiments", "tests"])
def test_files_and_functions_are_short(folder):
  for path in sorted(pathlib.Path(ROOT / folder).rglob("*.py")):
    assert len(path.read_text().splitlines()) <= 400, path
    if folder != "tests":
      long = [(name, length) for name, length in _functions(path) if length > 60]
      assert not long, (path, long)
