"""MkDocs' side of the documentation: adds the pages that are generated, and those that lie outside of docs/."""

import pathlib
import sys
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import pages  # noqa: E402

from dynsel_jax import selectors  # noqa: E402

RESULTS = ROOT / "experiments" / "results"
SHOWN = {".md", ".svg", ".csv"}  # of the results


def on_config(config: Any) -> Any:
  """Lists the page of each method under Methods."""
  (listed,) = (part["Methods"] for part in config.nav if "Methods" in part)
  listed += [{name: f"methods/{name}.md"} for name in selectors.METHODS]
  return config


def on_files(files: Files, config: Any) -> Files:
  """Adds the generated pages and the results."""
  for name, text in pages.generated().items():
    files.append(File.generated(config, name, content=text))
  for path in RESULTS.rglob("*"):
    inside = path.relative_to(RESULTS)
    if path.suffix in SHOWN and inside.parts[0] != "runs":
      files.append(File.generated(config, f"results/{inside.as_posix()}", abs_src_path=str(path)))
  return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
  """Fills in what a page includes."""
  return pages.filled(markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
  """Replaces a script of another host, without which the theme's search does not work from the disk."""
  above = "../" * page.url.count("/")
  return output.replace("https://unpkg.com/iframe-worker/shim", f"{above}search_from_disk.js")
