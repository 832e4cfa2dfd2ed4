"""Escapes names from outside, such as those of classes, data sets and folders, for each medium. Pure functions.

Every one begins with `options.printable`, which is also what a terminal needs: line breaks, control characters and
marks that reverse the direction of the text are shown as escapes. HTML is escaped by Jinja, see `render`.
"""

import re
from typing import Any

from dynsel_jax.options import printable

__all__ = ["csv", "file_name", "markdown", "markdown_code", "plot"]

# Characters that Markdown, or GitHub's dialect with its formulas, reads as more than themselves; "_" only at the edge
# of a word.
_MARKDOWN = re.compile(r"[\\`*<>|$~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[])|&(?=#?\w+;)|(?<=:)//")
_FORMULA = re.compile(r"\s*[=+@-]")  # the beginning of what a spreadsheet evaluates


def markdown(text: str) -> str:
  """Escapes text within a line of Markdown, also in a table's cell."""
  return _MARKDOWN.sub(lambda found: f"\\{found.group()}", printable(text))


def markdown_code(text: str) -> str:
  """Returns text as code within a line of Markdown, between more backticks than it has in a row itself."""
  text = printable(text)
  if not text.strip():
    return text
  ticks = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
  space = " " if len(ticks) > 1 else ""
  return f"{ticks}{space}{text}{space}{ticks}"


def csv(value: Any) -> Any:
  """Escapes a text for a table of a spreadsheet, where it could be a formula; numbers stay as they are."""
  if not isinstance(value, str):
    return value
  text = printable(value)
  return f"'{text}" if text != "-" and _FORMULA.match(text) else text


def plot(text: str, longest: int = 60) -> str:
  """Escapes text for a plot, where matplotlib would take what is between dollars for a formula; cuts it off."""
  text = printable(text)
  text = text if len(text) <= longest else f"{text[: longest - 1]}…"
  return text.replace("$", r"\$")


def file_name(name: str, longest: int = 80) -> str:
  """Returns a name of letters, digits and underscores for a file."""
  return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:longest] or "unnamed"
