"""Lists the commands: `python -m experiments`."""

import ast
import pathlib


def commands() -> dict[str, str]:
  """Returns the docstring of each entry point by its module's name."""
  folder = pathlib.Path(__file__).parent
  found = {}
  for path in [*folder.glob("*.py"), *folder.glob("studies/*.py"), *folder.glob("*/__main__.py")]:
    text, place = path.read_text(), path.relative_to(folder).with_suffix("").parts
    if 'if __name__ == "__main__":' in text and place != ("__main__",):
      found[".".join(place).removesuffix(".__main__")] = ast.get_docstring(ast.parse(text)) or ""
  return dict(sorted(found.items()))


def main() -> None:
  """Prints the commands."""
  print("Commands, each with its own --help:\n")
  width = max(map(len, commands()))
  for name, docstring in commands().items():
    print(f"  python -m experiments.{name:{width}}  {docstring.splitlines()[0]}")


if __name__ == "__main__":
  main()
