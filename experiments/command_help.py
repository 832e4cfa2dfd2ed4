"""The help of an entry point: its docstring, its flags, the variants of a config, and the fields of the one named."""

import inspect
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from dynsel_jax import options, recipes

__all__ = ["asks_for_help", "example", "help_text", "fields_text"]

_HELP = ("--help", "-h", "-help", "--helpshort", "-helpshort")


def asks_for_help(arguments: Sequence[str]) -> bool:
  """Whether the command line asks for help."""
  return any(argument in _HELP for argument in arguments)


def example() -> str:
  """Returns the usage of the running program: the first indented block of its docstring, with its first line."""
  lines = _docstring().splitlines()
  first = next((n for n, line in enumerate(lines) if line.startswith("    ")), len(lines))
  last = next((n for n in range(first, len(lines)) if not lines[n].strip()), len(lines))
  return "\n".join([lines[0], "", *lines[first:last]]) if lines else ""


def help_text(config: Any | None) -> str:
  """Returns the help of the running program; with `config` also its fields and their values."""
  parts = [_docstring(), _flags()]
  if "config" in flags.FLAGS:
    parts.append(inspect.getdoc(recipes) or "")
  if config is not None:
    parts.append("Fields of this config, each a flag --config.FIELD=VALUE:\n\n" + fields_text(config))
  return "\n\n".join(filter(None, parts))


def fields_text(config: Any) -> str:
  """Returns every field of a config with its value, a line each."""
  fields = options.flatten(config.to_dict())
  return "\n".join(f"  {name} = {value!r}" for name, value in fields.items())


def _docstring() -> str:
  return (sys.modules["__main__"].__doc__ or "").strip()


def _flags() -> str:
  """Returns the flags of this program; those of absl and JAX are left out."""
  ours = ("__main__", "experiments.")
  by_module = flags.FLAGS.flags_by_module_dict()
  found = [flag for module, held in by_module.items() if module.startswith((*ours, sys.argv[0])) for flag in held]
  lines = [f"  --{flag.name}: {flag.help}" for flag in found if not flag.name.startswith("config.")]
  return "\n".join(["Flags:", "", *sorted(lines)])
