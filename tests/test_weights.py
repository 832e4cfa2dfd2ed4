"""Safetensors files: whole and in parts, and the line for a key or a shape that is not right."""

import json

import numpy as np
import pytest
import safetensors.numpy

from dynsel_jax.models import bert_weights
from dynsel_jax.models.weights import Weights
from dynsel_jax.options import UserError

ARRAYS = {"a.x": np.arange(6, dtype=np.float16).reshape(2, 3), "a.y": np.ones(2, np.float32), "b": np.zeros(1)}


def _sharded(folder):
  parts = {"model-00001-of-00002.safetensors": ("a.x",), "model-00002-of-00002.safetensors": ("a.y", "b")}
  for file, names in parts.items():
    safetensors.numpy.save_file({name: ARRAYS[name] for name in names}, folder / file)
  index = {"weight_map": {name: file for file, names in parts.items() for name in names}}
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture(params=["whole", "sharded"])
def weights(request, tmp_path):
  if request.param == "sharded":
    _sharded(tmp_path)
  else:
    safetensors.numpy.save_file(ARRAYS, tmp_path / "model.safetensors")
  return Weights("features.path", tmp_path)


def test_arrays_come_as_float32_from_one_file_or_several(weights):
  assert weights.names == set(ARRAYS)
  for name, array in ARRAYS.items():
    taken = weights.take(name, array.shape)
    assert taken.dtype == np.float32
    np.testing.assert_array_equal(taken, array)
  weights.check_all_taken("")


def test_a_wrong_key_or_shape_is_named(weights):
  with pytest.raises(UserError, match="features.path=.* has no array 'a.z'; the first of its 3 arrays is 'a.x'"):
    weights.take("a.z", (1,))
  with pytest.raises(UserError, match=r"features.path=.*: 'a.x' has shape \(2, 3\), the model needs \(3, 2\)"):
    weights.take("a.x", (3, 2))
  weights.take("a.x", (2, 3))
  with pytest.raises(UserError, match=r"has 1 array\(s\) that the model does not use, such as 'a.y'"):
    weights.check_all_taken("a.")
  weights.check_all_taken("a.", idle=("a.y",))


def test_the_digest_is_of_the_content_alone(tmp_path):
  digests = set()
  for name, arrays in (("one", ARRAYS), ("same", ARRAYS), ("other", {**ARRAYS, "b": np.ones(1)})):
    safetensors.numpy.save_file(arrays, tmp_path / name)
    digests.add(Weights("", tmp_path / name).digest())
  assert len(digests) == 2


def test_files_that_are_none_are_named(tmp_path):
  _sharded(tmp_path)
  (tmp_path / "model-00002-of-00002.safetensors").unlink()
  with pytest.raises(UserError, match=r"index.json: model-00002-of-00002.safetensors is not a safetensors file"):
    Weights("features.path", tmp_path)
  (tmp_path / "model.safetensors.index.json").write_text("[]")
  with pytest.raises(UserError, match="is not an index of safetensors files"):
    Weights("features.path", tmp_path)


def _written(path, header, content=b"", length=None):
  """Writes a safetensors file with whatever its header claims."""
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + content)
  return path


def _one(kind, shape, size):
  return {"a": {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}


HEADERS = {
  "no file": (b"", b"", 0),
  "an empty header": (b"", b"", None),
  "a header cut off": (b'{"a":{"dtype":"F32","shape":[2],"data_offs', b"", None),
  "a header longer than the file": (b"{}", b"", 10**12),
  "a header of 64 bits": (b"{}", b"", 2**63),
  "a terabyte": (_one("F32", [2**38], 2**40), b"\0" * 8, None),
  "more than 64 bits": (_one("F32", [2**40, 2**40], 8), b"\0" * 8, None),
  "a negative side": (_one("F32", [-2], 8), b"\0" * 8, None),
  "too few bytes": (_one("F32", [2], 8), b"\0" * 4, None),
  "too many bytes": (_one("F32", [2], 8), b"\0" * 12, None),
  "an unknown type": (_one("F7", [2], 8), b"\0" * 8, None),
  "no object": (b"[]", b"", None),
  "no UTF-8": (b"\xff\xfe{}", b"", None),
  "nested a thousand times": (b'{"a":' * 1000, b"", None),
  "an array twice": (
    b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
    b"\0" * 8,
    None,
  ),
  "the bytes of two arrays": (_one("F32", [2], 8) | {"b": _one("F32", [2], 8)["a"]}, b"\0" * 8, None),
}


@pytest.mark.parametrize(("header", "content", "length"), HEADERS.values(), ids=HEADERS)
def test_a_damaged_header_costs_one_line(header, content, length, tmp_path):
  path = _written(tmp_path / "model.safetensors", header, content, length)
  with pytest.raises(UserError) as refused:
    Weights("features.path", tmp_path)
  assert str(refused.value).startswith(f"features.path={path} is not a safetensors file: ")
  assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize(
  ("kind", "size"), [("F8_E4M3", 1), ("F8_E5M2", 1), ("I64", 8), ("I8", 1), ("U8", 1), ("BOOL", 1), ("C64", 8)]
)
def test_weights_that_are_no_floats_are_refused(kind, size, tmp_path):
  path = _written(tmp_path / "model.safetensors", _one(kind, [2], 2 * size), bytes(2 * size))
  with pytest.raises(UserError, match=f"features.path={path}: 'a' has type {kind}; weights are read from BF16, F16"):
    Weights("features.path", tmp_path).take("a", (2,))


def test_bfloat16_is_read_as_its_numbers(tmp_path):
  _written(tmp_path / "model.safetensors", _one("BF16", [3], 6), np.array([0x3F80, 0xC020, 0x7F80], "<u2").tobytes())
  np.testing.assert_array_equal(Weights("", tmp_path).take("a", (3,)), [1.0, -2.5, np.inf])


def test_an_empty_array_and_one_of_other_dimensions_are_refused(tmp_path):
  _written(tmp_path / "model.safetensors", _one("F32", [0, 4], 0))
  with pytest.raises(UserError, match=r"'a' has shape \(0, 4\)"):
    Weights("features.path", tmp_path).take("a", (0, 4))
  _written(tmp_path / "model.safetensors", _one("F32", [4], 16), bytes(16))
  with pytest.raises(UserError, match=r"'a' has shape \(4,\), the model needs 2 dimensions"):
    Weights("features.path", tmp_path).shape("a", 2)


def _index(folder, **changes):
  path = folder / "model.safetensors.index.json"
  held = json.loads(path.read_text())["weight_map"] | changes
  path.write_text(json.dumps({"weight_map": {name: file for name, file in held.items() if file is not None}}))


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", "a/b", "C:\\a", "..\\a"])
def test_an_index_does_not_lead_out_of_its_folder(name, tmp_path):
  inside = tmp_path / "inside"
  inside.mkdir()
  _sharded(inside)
  safetensors.numpy.save_file({"b": np.ones(1)}, tmp_path / "model.safetensors")
  _index(inside, b=name)
  with pytest.raises(UserError, match="index.json names a file outside its own folder: "):
    Weights("features.path", inside)


def test_an_array_that_an_index_has_elsewhere_or_nowhere_is_named(tmp_path):
  _sharded(tmp_path)
  first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
  _index(tmp_path, c=second)
  with pytest.raises(UserError, match=f"index.json: {second} has no array 'c', which the index has there"):
    Weights("features.path", tmp_path)
  _index(tmp_path, c=None, b=first)
  with pytest.raises(UserError, match=f"index.json: {second} holds an array 'b' that the index has in {first}"):
    Weights("features.path", tmp_path)
  _index(tmp_path, b=None)
  assert Weights("features.path", tmp_path).names == {"a.x", "a.y", "b"}


@pytest.mark.parametrize("content", ["", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}', "[" * 100000, "\xff"])
def test_an_index_that_is_none_is_named(content, tmp_path):
  (tmp_path / "model.safetensors.index.json").write_bytes(content.encode("latin-1"))
  with pytest.raises(UserError, match="is not an index of safetensors files: ") as refused:
    Weights("features.path", tmp_path)
  assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("vocab_size", "10"),
    ("hidden_size", 0),
    ("hidden_size", True),
    ("num_hidden_layers", 10**12),
    ("num_attention_heads", 5),
    ("intermediate_size", 3.5),
    ("type_vocab_size", None),
    ("max_position_embeddings", [1]),
  ],
)
def test_sizes_of_a_model_that_cannot_be_are_named(field, value, tmp_path):
  held = {"vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "model_type": "bert"}
  held |= {"intermediate_size": 16, "max_position_embeddings": 8, "type_vocab_size": 2}
  (tmp_path / "config.json").write_text(json.dumps(held))
  assert bert_weights.sizes("features.path", tmp_path).heads == 2
  (tmp_path / "config.json").write_text(json.dumps(held | {field: value}))
  with pytest.raises(UserError, match="features.path=.*config.json: .*" + ("multiple" if value == 5 else field)):
    bert_weights.sizes("features.path", tmp_path)
