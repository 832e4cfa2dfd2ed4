"""The cache on disk: made once for a key, and again where a file is damaged."""

import hashlib
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


def test_the_digest_of_files_is_that_of_their_bytes_in_order(tmp_path):
  first, second = tmp_path / "first", tmp_path / "second"
  first.write_bytes(b"ab")
  second.write_bytes(b"c")
  assert cache.content_digest(first, second) == hashlib.sha256(b"abc").hexdigest()
  assert cache.content_digest(second, first) == hashlib.sha256(b"cab").hexdigest()


def test_a_sampled_digest_sees_the_size_and_every_byte_up_to_the_limit_and_blocks_of_more(tmp_path):
  block, path = cache._BLOCK, tmp_path / "file"

  def digest(content, limit):
    path.write_bytes(content)
    return cache.sampled_digest(str(path), limit)

  content = np.random.default_rng(0).bytes(3 * block + 17)
  for limit in (len(content), 10 * len(content)):
    whole = digest(content, limit)
    for place in (0, block - 1, block, 2 * block + 5, len(content) - 1):
      assert digest(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], limit) != whole
  sampled = digest(content, 2 * block)
  for place in (0, len(content) - 1):
    assert digest(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], 2 * block) != sampled
  assert digest(content + b"x", 2 * block) != sampled
  assert digest(b"", block) != digest(b"\0", block)


def test_a_cache_in_a_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  cache.cached("kind", {}, lambda: {"a": np.arange(3)}, "~/cache")
  assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_checksum_covers_names_types_shapes_and_values():
  arrays = [
    {"a": np.arange(4)},
    {"b": np.arange(4)},
    {"a": np.arange(4).reshape(2, 2)},
    {"a": np.arange(4, dtype=np.uint64)},
    {"a": np.array([0, 1, 2, 4])},
    {"a": np.zeros(0)},
    {"a": np.zeros((0, 2))},
    {"a": np.array(["x", "y"])},
  ]
  assert len({cache.checksum(one) for one in arrays}) == len(arrays)
  assert cache.checksum({"a": np.arange(8)[::2]}) == cache.checksum({"a": np.array([0, 2, 4, 6])})
