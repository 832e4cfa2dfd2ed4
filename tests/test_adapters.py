"""What the adapters have in common: they are imported on use alone, and say in one line what is missing."""

import importlib
import subprocess
import sys

import pytest

from dynsel_jax.options import UserError
from tests.support import ROOT

NEEDED = {"grain": "grain", "torch": "torch", "transformers": "torch", "tunix": "tunix.sft"}


@pytest.mark.parametrize("name", NEEDED)
def test_a_library_that_is_missing_is_named_in_one_line(monkeypatch, name):
  for loaded in [module for module in sys.modules if module.startswith("dynsel_jax.adapters.")]:
    monkeypatch.delitem(sys.modules, loaded)
  monkeypatch.setitem(sys.modules, NEEDED[name], None)
  with pytest.raises(UserError, match="dynsel_jax.adapters.* needs .*: pip install ") as error:
    importlib.import_module(f"dynsel_jax.adapters.{name}")
  assert "\n" not in str(error.value)


def test_no_framework_is_imported_with_the_library():
  code = (
    "import sys, dynsel_jax, dynsel_jax.adapters; print(*{'grain', 'torch', 'transformers', 'tunix'} & {*sys.modules})"
  )
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  assert done.stdout.split() == []
