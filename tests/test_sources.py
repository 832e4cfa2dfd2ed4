import logging
import shutil

import numpy as np
import pytest
import sklearn.datasets
import tensorflow_datasets as tfds

from dynsel_jax import data
from dynsel_jax.data import source as source_lib
from dynsel_jax.data import tfds_images
from dynsel_jax.options import UserError
from tests.support.image_sets import prepare as _prepare


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
  """What is decoded here is not kept."""
  monkeypatch.setenv("DYNSEL_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache"


def _images(count, shape=(4, 5, 3), seed=0):
  return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def test_digits_are_all_there_and_every_fifth_of_a_class_is_test():
  source = data.load("digits")
  raw = sklearn.datasets.load_digits()
  assert source.num_classes == 10
  assert source.class_names == tuple("0123456789")
  assert source.train["inputs"].shape == (1442, 8, 8, 1) and source.test["inputs"].shape == (355, 8, 8, 1)
  assert source.train["inputs"].dtype == np.uint8 and source.train["labels"].dtype == np.int32
  assert source.train["inputs"].min() == 0 and source.train["inputs"].max() == 255
  for label in range(10):
    of_class = np.rint(raw.images[raw.target == label] / 16 * 255)[..., None]
    test = source.test["inputs"][source.test["labels"] == label]
    train = source.train["inputs"][source.train["labels"] == label]
    np.testing.assert_array_equal(test, of_class[4::5])
    np.testing.assert_array_equal(train, np.delete(of_class, np.s_[4::5], axis=0))


def test_channel_statistics_are_those_of_the_scaled_pixels():
  images = _images(5000, (3, 4, 2))
  images[..., 1] = 7
  mean, std = source_lib.channel_statistics(images)
  np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
  np.testing.assert_allclose(std, [(images[..., 0] / 255).std(), 1.0], rtol=1e-12)  # a constant channel divides by 1


@pytest.mark.parametrize("channels", [1, 3])
def test_prepared_set_is_read_bit_for_bit(tmp_path, channels):
  train, test = _images(7, (4, 5, channels)), _images(3, (4, 5, channels), seed=1)
  splits = {"train": (train, [0, 1, 0, 1, 1, 0, 1]), "validation": (test, [1, 0, 1])}
  _prepare(tmp_path, "tiny_shapes", splits, channels=channels)
  source = data.load("tiny_shapes", data_dir=str(tmp_path))
  np.testing.assert_array_equal(source.train["inputs"], train)
  np.testing.assert_array_equal(source.train["labels"], [0, 1, 0, 1, 1, 0, 1])
  np.testing.assert_array_equal(source.test["inputs"], test)  # there is no split "test"
  assert source.num_classes == 2 and source.train["labels"].dtype == np.int32
  assert source.class_names == ("0", "1")
  np.testing.assert_allclose(source.mean, (train / 255).mean(axis=(0, 1, 2)), rtol=1e-12)

  moved = tmp_path / "moved"
  changed = train.copy()
  changed[6, 0, 0, 0] ^= 1
  _prepare(moved, "tiny_shapes", {**splits, "train": (changed, splits["train"][1])}, channels=channels)
  assert source.fingerprint == data.load("tiny_shapes", data_dir=str(tmp_path)).fingerprint
  assert source.fingerprint != data.load("tiny_shapes", data_dir=str(moved)).fingerprint


def test_a_prepared_set_is_decoded_once_and_again_when_it_changes(tmp_path, cache_folder, monkeypatch):
  decoded, decode = [], tfds_images._decode
  monkeypatch.setattr(
    tfds_images, "_decode", lambda name, split, *rest: decoded.append(split) or decode(name, split, *rest)
  )
  splits = {"train": (_images(5), [0, 1, 0, 1, 1]), "test": (_images(3, seed=1), [1, 0, 1])}
  _prepare(tmp_path, "tiny_kept", splits)
  first, again = (data.load("tiny_kept", data_dir=str(tmp_path)) for _ in range(2))
  assert decoded == ["train", "test"]
  for dataset, other in ((first.train, again.train), (first.test, again.test)):
    assert dataset.keys() == other.keys() == {"inputs", "labels"}
    for field, array in dataset.items():
      np.testing.assert_array_equal(array, other[field])
      assert array.dtype == other[field].dtype
  assert first.fingerprint == again.fingerprint

  (kept,) = cache_folder.iterdir()
  kept.write_bytes(kept.read_bytes()[:-100])
  assert data.load("tiny_kept", data_dir=str(tmp_path)).fingerprint == first.fingerprint
  assert len(decoded) == 4

  shutil.rmtree(tmp_path / "tiny_kept")
  _prepare(tmp_path, "tiny_kept", {**splits, "train": (_images(5, seed=2), [0, 1, 0, 1, 1])})
  np.testing.assert_array_equal(data.load("tiny_kept", data_dir=str(tmp_path)).train["inputs"], _images(5, seed=2))
  assert len(decoded) == 6


def test_many_records_are_read_in_order(tmp_path):
  labels = np.arange(1203) % 3
  images = np.broadcast_to((np.arange(1203) % 251).astype(np.uint8)[:, None, None, None], (1203, 2, 2, 1))
  _prepare(
    tmp_path, "tiny_long", {"train": (images, labels), "test": (images[:4], labels[:4])}, channels=1, num_classes=3
  )
  source = data.load("tiny_long", data_dir=str(tmp_path))
  np.testing.assert_array_equal(source.train["inputs"], images)
  np.testing.assert_array_equal(source.train["labels"], labels)


_SIZES = [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)]
_ROWS = np.zeros((2, 3), np.uint8)
_ROW_FEATURES = {
  "image": tfds.features.Tensor(shape=(3,), dtype=np.uint8),
  "label": tfds.features.ClassLabel(num_classes=2),
}


@pytest.mark.parametrize(
  ("splits", "options", "message"),
  [
    ({"train": (_SIZES, [0, 1]), "test": (_images(1), [0])}, {}, r"different sizes: sample 1 .*\(4, 6, 3\)"),
    (
      {"train": (_images(2), [0, 1]), "test": (_images(1, (8, 5, 3)), [0])},
      {},
      r"split 'test' has 'inputs' of shape \(8, 5, 3\) a sample, and split 'train' \(4, 5, 3\)",
    ),
    ({"train": (_images(2), [0, 0]), "test": (_images(1), [1])}, {}, "no training sample of class 1"),
    ({"train": (_images(2), [0, 1])}, {}, "must have a split train and a split test or validation"),
    ({"train": (_images(2), [0, -1]), "test": (_images(1), [1])}, {}, "label -1 at sample 1"),
    (
      {"train": (_ROWS, [0, 1]), "test": (_ROWS, [1, 0])},
      {"features": _ROW_FEATURES},
      "is not an image classification set",
    ),
  ],
)
def test_unsuitable_sets_are_refused(tmp_path, splits, options, message):
  _prepare(tmp_path, "tiny_wrong", splits, **options)
  with pytest.raises(UserError, match=message) as caught:
    data.load("tiny_wrong", data_dir=str(tmp_path))
  assert "tiny_wrong" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("no_such_set", "is not known; known: diabetes, digits, folder, any image classification set"),
    ("mnist", "tfds build mnist --file_format=array_record"),
    ("cifar10:9.9.9", "cannot be opened"),
    ("cifar10/nothing", "cannot be opened"),
    ("emnist/balanced:9.*.*", "cannot be opened"),
    ("two words", "cannot be opened"),
  ],
)
def test_sets_that_are_not_here_are_refused_in_one_line(tmp_path, name, message, caplog):
  with caplog.at_level(logging.WARNING, logger="absl"), pytest.raises(UserError, match=message) as caught:
    data.load(name, data_dir=str(tmp_path))
  assert name in str(caught.value) and "\n" not in str(caught.value)
  assert not caplog.text  # the error is all that is said
