"""Compiled programs in the user's cache folder: where they are kept, and how much of them."""

import os

import jax
import pytest

from experiments import programs


@pytest.fixture
def of_jax():
  before = jax.config.jax_compilation_cache_dir
  yield lambda value: jax.config.update("jax_compilation_cache_dir", value)
  jax.config.update("jax_compilation_cache_dir", before)


def test_programs_are_kept_in_the_cache_folder_unless_a_place_is_chosen(tmp_path, monkeypatch, of_jax):
  monkeypatch.setenv("DYNSEL_CACHE", str(tmp_path))
  of_jax(str(tmp_path / "chosen"))
  programs.keep()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / "chosen")
  of_jax(None)
  programs.keep()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / "programs")


def test_those_not_read_for_longest_are_deleted(tmp_path):
  for number, name in enumerate(("b", "d", "a", "c")):
    path = tmp_path / f"{name}-cache"
    path.write_bytes(bytes(100))
    os.utime(path, (1000 + number, 900))
  (tmp_path / "other").write_bytes(bytes(1000))
  programs.prune(tmp_path, 250)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["a-cache", "c-cache", "other"]
  programs.prune(tmp_path, 250)
  programs.prune(tmp_path / "none", 250)
  assert (tmp_path / "a-cache").exists()
