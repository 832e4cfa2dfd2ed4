"""The pages that are made from the registries and the docstrings, as Markdown. Nothing is written here.

`docs/hooks.py` hands them to MkDocs; none of them is committed.
"""

import ast
import functools
import inspect
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from dynsel_jax import options, selectors, tasks
from dynsel_jax.selectors import wrappers
from dynsel_jax.types import SampleTable, Selector
from experiments import __main__ as entry_points

__all__ = ["filled", "generated"]

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECTIONS = ("Args", "Returns", "Raises", "Yields")
READS = {
  "labels": "`labels=`, `[N]` int: a class, or a domain to balance over",
  "correct": "a signal of the task classification, `[B]` bool; in your own loop `observe(index, losses, correct=...)`",
  "confidence": "a signal of the task classification, `[B]` float32; in your own loop `observe(..., confidence=...)`",
  "nuclear_norm": "a signal of the task classification, `[B]` float32; see `tasks/logit_geometry.py`",
  "projection": "a signal of the task classification, `[B, 1024]` float32; see `tasks/logit_geometry.py`",
  "proxy_rank": "a column that a [small network](../gpu.md#a-small-network-that-chooses) makes, `[N, epochs]` float32",
  "representativeness": "a column that [`features=`](../factors.md) makes",
  "rarity": "a column that [`features=`](../factors.md) makes",
}


def generated() -> dict[str, str]:
  """Returns the text of each generated page by its place under docs/."""
  return {
    "methods/index.md": methods(),
    "methods/wrappers.md": wrapper_list(),
    "reference/types.md": types(),
    "commands.md": commands(),
    "configs.md": configs(),
    "examples.md": examples(),
    "contributing.md": included("CONTRIBUTING.md"),
    "changelog.md": included("CHANGELOG.md"),
    **{f"methods/{name}.md": method(name) for name in selectors.METHODS},
  }


def filled(markdown: str) -> str:
  """Fills in what a page includes: the registered tasks, or a section of a document from the top folder."""
  markdown = markdown.replace("<!-- generated: tasks -->", task_list())
  return re.sub(r"<!-- include (\S+) (\w+) -->", lambda found: included(*found.groups()), markdown)


def prose(docstring: str) -> str:
  """Returns a docstring without its sections as Markdown: indented blocks are formulas or code, set as they are."""
  kept = re.split(rf"\n(?:{'|'.join(SECTIONS)}):\n", docstring)[0]
  blocks = []
  for block in re.split(r"\n{2,}", kept.strip("\n")):
    lines = block.splitlines()
    if all(line.startswith("  ") for line in lines):
      # A backslash at a line's end in the source has joined two lines of a command.
      inside = re.sub(r"(?<=\S) {5,}(?=\[?--)", r" \\\n    ", inspect.cleandoc("\n" + block))
      block = f"```text\n{inside}\n```"
    blocks.append(block)
  return "\n\n".join(blocks)


def arguments(docstring: str) -> dict[str, str]:
  """Returns the section `Args` of a docstring as a dict of descriptions."""
  found = re.search(r"\nArgs:\n(.*?)(?:\n\n|\Z)", docstring, re.DOTALL)
  if not found:
    return {}
  entries = re.findall(r"^  (\*{0,2}\w+): (.*?)(?=^  \S|\Z)", found.group(1) + "\n", re.DOTALL | re.MULTILINE)
  return {name.lstrip("*"): " ".join(words.split()) for name, words in entries}


def option_table(factory: Callable[..., Any]) -> str:
  """Returns a table of a factory's options: name, default, meaning."""
  meanings, defaults = arguments(inspect.getdoc(factory) or ""), options.keyword_defaults(factory)
  if not defaults:
    return "No options."
  rows = [f"| `{name}` | `{value!r}` | {_cell(meanings.get(name, ''))} |" for name, value in defaults.items()]
  return "\n".join(["| option | default | |", "|---|---|---|", *rows])


def _cell(words: str) -> str:
  return words.replace("|", "\\|")


def _paper(entry: selectors.Method) -> str:
  return f"[arXiv {entry.arxiv}](https://arxiv.org/abs/{entry.arxiv})" if entry.arxiv != "-" else "-"


def _docstrings(factory: Callable[..., Any]) -> tuple[str, str]:
  module = inspect.getmodule(factory)
  return inspect.getdoc(module) or "", inspect.getdoc(factory) or ""


def differences(name: str, text: str) -> list[str]:
  """Returns the rows of docs/differences.md on a method, each as "here: ...; there: ..."."""
  rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")]
  return [f"here: {here}; there: {there}" for methods, here, there in rows if name in re.findall(r"`(\w+)`", methods)]


def method(name: str) -> str:
  """Returns the page of a method: what it does, its formula, options, what it reads, and how to call it."""
  entry = selectors.METHODS[name]
  of_module, of_factory = _docstrings(entry.factory)
  reads = _reads(name)
  module = entry.factory.__module__
  parts = [
    f"# `{name}`: {entry.title}",
    f"| source | signal | level | divisor of the loss |\n|---|---|---|---|\n| {_paper(entry)} | {entry.signal} |"
    f" {entry.level} | `{_built(name).loss_normalization}` |",
    prose(of_module),
    "## What it does",
    prose(of_factory),
    "## Options",
    option_table(entry.factory),
    "## What it reads beside the loss",
    "\n".join(f"- `{read}`: {_giver(name, read)}" for read in reads) or "Nothing.",
    "## Use",
    _use(name, reads),
  ]
  if rows := differences(name, (ROOT / "docs" / "differences.md").read_text()):
    listed = "\n".join(f"- {row}." for row in rows)
    parts += ["## Differences from the paper and published code", f"{listed}\n\n[All of them](../differences.md)."]
  others = {known.factory.__name__ for known in selectors.METHODS.values()} - {entry.factory.__name__}
  own = [public for public in inspect.getmodule(entry.factory).__all__ if public not in others]
  parts += ["## Functions", *(f"::: {module}.{public}\n    options: {{heading_level: 3}}" for public in own)]
  return "\n\n".join(parts) + "\n"


@functools.cache
def _built(name: str) -> Selector:
  columns = {column: jnp.arange(2.0) for column in selectors.columns(name)}
  return selectors.create(name, SampleTable(2, jnp.arange(2), 2, columns), 2)


def _reads(name: str) -> tuple[str, ...]:
  return _built(name).reads


def _giver(name: str, read: str) -> str:
  if read in READS:
    return READS[read]
  if read in selectors.columns(name):
    return "a column of [scores](../factors.md#static-scores-and-subsets)"
  return f"a signal of the task; in your own loop `observe(index, losses, {read}=...)`"


def _use(name: str, reads: tuple[str, ...]) -> str:
  columns = [read for read in reads if read in selectors.columns(name)]
  extras = [read for read in reads if read not in columns and read != "labels"]
  named = ", ".join(f'"{column}": {column}' for column in columns)
  given = (", labels=y" if "labels" in reads else "") + (f", columns={{{named}}}" if columns else "")
  shown = "".join(f", {extra}={extra}" for extra in extras)
  if selectors.METHODS[name].level == "batch":
    body = [
      f"positions, weight = sampler.thin(index, forward(x[index], y[index]){shown})",
      "train_step(x[index][positions], y[index][positions], weight)",
    ]
  else:
    body = ["losses = train_step(x[index], y[index], weight)", f"sampler.observe(index, losses{shown})"]
  lines = [
    f'sampler = dynsel_jax.Sampler("{name}", num_samples=len(x), epochs=30, batch_size=128{given})',
    "for epoch in sampler.epochs():",
    "  for index, weight in epoch:",
    *(f"    {line}" for line in body),
  ]
  command = f"python -m experiments.train --config=configs/digits.py:selector={name} --workdir=runs/{name}"
  if set(columns) - {"representativeness", "rarity", "proxy_rank"}:
    command += " \\\n    --config.scores.path=runs/digits_scores/scores.npz   # made by experiments.score_dataset"
  return "\n".join(["```python", *lines, "```", "", "```", command, "```"])


def methods() -> str:
  """Returns the table of all methods, with a link to the page of each."""
  rows = [
    f"| [`{name}`]({name}.md) | {entry.title} | {_paper(entry)} | {entry.signal} |"
    f" {', '.join(f'`{read}`' for read in _reads(name)) or '-'} | {entry.level} |"
    for name, entry in selectors.METHODS.items()
  ]
  return "\n".join(
    [
      "# Methods",
      "",
      "`level` says where a method chooses: it keeps a part of the training set for an *epoch*, or it scores each"
      " *batch* by a forward pass and trains on a part of it. Under `reads` is what it needs beside the loss, with its"
      " default options. `keep_fraction` is always the fraction *kept*.",
      "",
      "| method | what | paper | signal | reads | level |",
      "|---|---|---|---|---|---|",
      *rows,
      "",
      "[Wrappers](wrappers.md) change what any of them keeps; [differences](../differences.md) lists where code and"
      " papers differ. What the methods are worth is under [results](../results/README.md).",
      "",
    ]
  )


def wrapper_list() -> str:
  """Returns the page of the wrappers."""
  parts = [
    "# Wrappers",
    "A wrapper takes any selector, with or without `thin` and `refresh`, and returns one. In a loop of your own:"
    ' `Sampler(..., wrap=["annealed"])` or `wrap={"annealed": {"last": 0.1}}`. In a config:'
    " `wrap=class_balanced+annealed` after the colon, the first innermost, and `--config.wrappers.annealed.last=0.1`.",
  ]
  for name, entry in wrappers.WRAPPERS.items():
    of_module, of_factory = _docstrings(entry.factory)
    parts += [f"## `{name}`", f"The selector's plan with {entry.title}.", prose(of_module), prose(of_factory)]
    parts.append(option_table(entry.factory))
  return "\n\n".join(parts) + "\n"


def task_list() -> str:
  """Returns the registered tasks, a section of the page on tasks."""
  parts = []
  for name, factory in tasks.TASKS.items():
    of_module, of_factory = _docstrings(factory)
    parts += [f"## `task={name}`", prose(of_module).split("\n\n")[0], prose(of_factory), option_table(factory)]
  return "\n\n".join(parts)


def types() -> str:
  """Returns the page of the types: what each field and each function of a selector is."""
  module = inspect.getmodule(Selector)
  parts = ["# Types", prose(inspect.getdoc(module) or "")]
  classes = [(name, held) for name, held in vars(module).items() if getattr(held, "__module__", "") == module.__name__]
  for name, held in classes:
    parts += [f"## `{name}`", prose(inspect.getdoc(held) or "")]
    source = inspect.getsource(held)
    if called := re.search(r"def __call__\(self, (.*)\) -> (.*): \.\.\.", source):
      given, returned = called.groups()
      parts.append(f"```python\n({given}) -> {returned}\n```")
    else:
      parts.append(_fields(source))
  return "\n\n".join(parts) + "\n"


def _fields(source: str) -> str:
  """Returns a table of a NamedTuple's fields, whose meaning stands in the comment behind each."""
  found = re.findall(r"^  (\w+): (.+?)(?: = (.+?))?(?:  # type: .*?)?(?:  # (.*))?$", source, re.MULTILINE)
  rows = [f"| `{name}` | {f'`{value}`' if value else ''} | {_cell(meaning)} |" for name, _, value, meaning in found]
  return "\n".join(["| field | default | |", "|---|---|---|", *rows])


def _scripts(folder: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
  found = sorted(path for path in folder.glob("*.py") if not path.name.startswith("_"))
  return [(path, ast.get_docstring(ast.parse(path.read_text())) or "") for path in found]


def commands() -> str:
  """Returns the page of the commands: the docstring of each entry point."""
  parts = ["# Commands", "Each has its own `--help`; `python -m experiments` lists them."]
  for name, docstring in entry_points.commands().items():
    parts += [f"## `experiments.{name}`", prose(docstring)]
  return "\n\n".join(parts) + "\n"


def configs() -> str:
  """Returns the page of the benchmarks: the docstring of each config."""
  parts = [
    "# Benchmarks",
    "A file each in `configs/`; [Training by configs](training.md) says how to use them, and `--print_config` lists the"
    " fields of each.",
  ]
  for path, docstring in _scripts(ROOT / "configs"):
    parts += [f"## `configs/{path.name}`", prose(docstring)]
  return "\n\n".join(parts) + "\n"


def examples() -> str:
  """Returns the page of the examples, each in full."""
  parts = ["# Examples", "Each runs by itself, and a test runs each of them. They lie in `examples/`."]
  for path, _ in _scripts(ROOT / "examples"):
    code = re.sub(r"^ *# --8<--.*\n", "", path.read_text(), flags=re.MULTILINE)
    parts += [f"## {path.name}", f"```python\n{code}```"]
  parts += ["## what_is_selected.ipynb", "A notebook: which images a method asks for most often, and which least."]
  return "\n\n".join(parts) + "\n"


def included(file: str, section: str = "") -> str:
  """Returns a document from the top folder, or a marked section of it, with links as they are seen from docs/."""
  text = (ROOT / file).read_text()
  if section:
    (text,) = re.findall(rf"<!-- --8<-- \[start:{section}\] -->\n(.*?)<!-- --8<-- \[end:{section}\]", text, re.DOTALL)
  text = text.replace("](experiments/results/", "](results/")
  return re.sub(r'(\]\(|src=")docs/', r"\1", text)
