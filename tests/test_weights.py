"""Safetensors files: whole and in parts, and the line for a key or a shape that is not right."""

import json

import numpy as np
import pytest
import safetensors.numpy

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
