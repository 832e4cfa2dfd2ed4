"""What the adapters have in common: they are imported on use alone, and say in one line what is missing."""

import importlib
import subprocess
import sys

import pytest

import dynsel_jax
from dynsel_jax.adapters import trainers
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


def _selection(seed=0):
  return dynsel_jax.Sampler("infobatch", num_samples=20, epochs=4, batch_size=4, seed=seed)


def test_a_sampler_goes_on_from_the_file_beside_a_checkpoint(tmp_path):
  one, other, path = _selection(), _selection(), str(tmp_path / "checkpoint" / "sampler.json")
  for index, _ in [*one.current()][:3]:
    one.observe(index, index / 20)
  trainers.save(one, path)
  trainers.load(other, path)
  assert [i.tolist() for i, _ in other.current()] == [i.tolist() for i, _ in one.current()]


@pytest.mark.parametrize("content", [b"", b'{"seed": 0', b"[1]", b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_a_damaged_file_of_a_samplers_state_is_one_line(tmp_path, content):
  path = tmp_path / "sampler.json"
  path.write_bytes(content)
  with pytest.raises(UserError) as error:
    trainers.load(_selection(), str(path))
  assert "\n" not in str(error.value)
