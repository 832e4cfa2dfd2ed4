"""Lists the commands: `python -m experiments`."""

import ast
import pathlib


def commands() -> dict[str, str]:
  """Returns the first line of each entry point's docstring by its module's name."""
  folder = pathlib.Path(__file__).parent
  found = {}
  for path in sorted([*folder.glob("*.py"), *(folder / "studies").glob("*.py")]):
    text = path.read_text()
    if 'if __name__ == "__main__":' in text and path.name != "__main__.py":
      name = ".".join(path.relative_to(folder).with_suffix("").parts)
      found[name] = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
  return found


def main() -> None:
  """Prints the commands."""
  print("Commands, each with its own --help:\n")
  width = max(map(len, commands()))
  for name, line in commands().items():
    print(f"  python -m experiments.{name:{width}}  {line}")


if __name__ == "__main__":
  main()
