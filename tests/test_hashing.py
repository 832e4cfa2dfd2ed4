"""Hashes of files and arrays, which tell whether two of them are the same."""

import hashlib

import numpy as np

from dynsel_jax import hashing


def test_the_digest_of_files_is_that_of_their_bytes_in_order(tmp_path):
  first, second = tmp_path / "first", tmp_path / "second"
  first.write_bytes(b"ab")
  second.write_bytes(b"c")
  assert hashing.content_digest(first, second) == hashlib.sha256(b"abc").hexdigest()
  assert hashing.content_digest(second, first) == hashlib.sha256(b"cab").hexdigest()


def test_a_sampled_digest_sees_the_size_and_every_byte_up_to_the_limit_and_blocks_of_more(tmp_path):
  block, path = hashing._BLOCK, tmp_path / "file"

  def digest(content, limit):
    path.write_bytes(content)
    return hashing.sampled_digest(str(path), limit)

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
  assert len({hashing.checksum(one) for one in arrays}) == len(arrays)
  assert hashing.checksum({"a": np.arange(8)[::2]}) == hashing.checksum({"a": np.array([0, 2, 4, 6])})


def test_the_digest_of_a_text_is_that_of_its_utf_8():
  assert hashing.text_digest("é") == hashlib.sha256("é".encode()).hexdigest()
  assert hashing.digest({"b": 1, "a": "é"}) == hashing.text_digest('{"a": "\\u00e9", "b": 1}')
