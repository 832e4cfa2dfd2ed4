"""The cache on disk: made once for a key, and again where a file is damaged."""

import logging

import numpy as np
import pytest

from dynsel_jax import cache


def test_the_cache_builds_once_for_a_key_and_again_for_another(tmp_path):
  built = []

  def build():
    built.append(None)
    return {"a": np.arange(3)}

  for key in ({"x": 1}, {"x": 1}, {"x": 2}):
    np.testing.assert_array_equal(cache.cached("kind", key, build, str(tmp_path))["a"], [0, 1, 2])
  assert len(built) == 2


@pytest.mark.parametrize("damage", ["cut", "altered", "emptied"])
def test_a_damaged_file_is_noticed_and_made_again(tmp_path, damage, caplog):
  def build():
    return {"a": np.arange(1000)}

  cache.cached("kind", {}, build, str(tmp_path))
  (path,) = tmp_path.iterdir()
  content = path.read_bytes()
  if damage == "altered":
    with np.load(path) as whole:
      checksum = whole["checksum"]
    np.savez(path, a=np.arange(1000) + 1, checksum=checksum)
  else:
    path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
  with caplog.at_level(logging.WARNING, logger="absl"):
    np.testing.assert_array_equal(cache.cached("kind", {}, build, str(tmp_path))["a"], np.arange(1000))
  assert "is damaged" in caplog.text
  assert content == path.read_bytes()


def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path, caplog):
  (tmp_path / "file").write_text("")
  with caplog.at_level(logging.WARNING, logger="absl"):
    made = cache.cached("kind", {}, lambda: {"a": np.arange(3)}, str(tmp_path / "file"))
  np.testing.assert_array_equal(made["a"], [0, 1, 2])
  assert "cannot be written" in caplog.text


def test_a_cache_in_a_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  cache.cached("kind", {}, lambda: {"a": np.arange(3)}, "~/cache")
  assert len(list((tmp_path / "cache").iterdir())) == 1
