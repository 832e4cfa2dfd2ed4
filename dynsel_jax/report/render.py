"""Renders the report's templates. Host-side; reads `templates/` and writes nothing.

Whatever a template prints is escaped for its medium by `escape`: names from outside, such as those of classes, data
sets and folders, cannot become markup. Only text marked as safe here is printed as it is.
"""

import functools
from typing import Any

from dynsel_jax import options
from dynsel_jax.report import escape

__all__ = ["html", "markdown"]


class _Safe(str):
  """Text that is Markdown already, such as a table."""


def _jinja2() -> Any:
  """Imports Jinja, which the extra `report` brings.

  Raises:
    UserError: it is not installed.
  """
  try:
    import jinja2
  except ModuleNotFoundError:
    raise options.UserError("a report needs Jinja; install it: pip install 'dynsel_jax[report]'") from None
  return jinja2


@functools.cache
def _environment(medium: str) -> Any:
  jinja2 = _jinja2()
  settings = {
    "loader": jinja2.PackageLoader("dynsel_jax.report"),
    "undefined": jinja2.StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
  }
  if medium == "html":  # Jinja escapes; what it would let through, such as marks that turn the text, is shown before
    return jinja2.Environment(autoescape=True, finalize=_printable, **settings)
  environment = jinja2.Environment(autoescape=False, finalize=_markdown, **settings)
  environment.filters["ready"] = _Safe
  return environment


def _printable(value: Any) -> Any:
  return options.printable(value) if type(value) is str else value


def _markdown(value: Any) -> Any:
  return escape.markdown(value) if isinstance(value, str) and not isinstance(value, _Safe) else value


def html(name: str, **values: Any) -> str:
  """Returns the page made from the template `name`, escaped for HTML."""
  return _environment("html").get_template(name).render(**values)


def markdown(name: str, **values: Any) -> str:
  """Returns the text made from the template `name`, escaped for Markdown."""
  return _environment("markdown").get_template(name).render(**values)
