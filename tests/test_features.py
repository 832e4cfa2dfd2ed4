"""Feature spaces, and where their features are kept."""

import numpy as np
import pytest

from dynsel_jax import data, features, options


@pytest.fixture(scope="module")
def digits():
  return data.load("digits")


def test_pixels_are_uncorrelated_and_ordered_by_variance(digits):
  found = features.create("pixels", components=8).extract(digits)
  assert found.shape == (1442, 8)
  assert found.dtype == np.float32
  covariance = np.cov(found.T)
  np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3)
  assert np.all(np.diff(np.diag(covariance)) < 0)


def test_pixels_take_no_more_components_than_there_are(digits):
  assert features.create("pixels", components=1000).extract(digits).shape == (1442, 64)


def test_a_file_gives_its_rows_in_their_order(digits, tmp_path):
  rows = np.random.default_rng(0).normal(size=(1442, 5)).astype(np.float32)
  np.save(tmp_path / "rows.npy", rows)
  np.savez(tmp_path / "rows.npz", train=(rows * 10).astype(np.int8), scale=np.full(5, 0.1, np.float32), other=rows)
  plain = features.create("file", path=str(tmp_path / "rows.npy")).extract(digits)
  np.testing.assert_array_equal(plain, rows)
  scaled = features.create("file", path=str(tmp_path / "rows.npz")).extract(digits)
  np.testing.assert_allclose(scaled, rows, atol=0.1)
  other = features.create("file", path=str(tmp_path / "rows.npz"), key="other")
  np.testing.assert_allclose(other.extract(digits), rows * np.float32(0.1), rtol=1e-6)


@pytest.mark.parametrize(
  ("content", "line"),
  [
    (np.zeros((3, 2), np.float32), "has shape (3, 2); it must have one row for each of the 1442 training samples"),
    (np.full((1442, 2), np.nan, np.float32), "row 0 contains a value that is not finite"),
  ],
)
def test_a_wrong_array_is_named(digits, tmp_path, content, line):
  np.save(tmp_path / "wrong.npy", content)
  with pytest.raises(options.UserError) as error:
    features.create("file", path=str(tmp_path / "wrong.npy")).extract(digits)
  assert line in str(error.value)


def test_wrong_names_and_files_are_named(tmp_path, digits):
  with pytest.raises(options.UserError, match="features.name='pixel' is not known; known: .*file, pixels"):
    features.create("pixel")
  with pytest.raises(options.UserError, match="features.path='absent.npy' is not a file"):
    features.create("file", path="absent.npy")
  (tmp_path / "text.npy").write_text("no array")
  with pytest.raises(options.UserError, match=r"text.npy is not a readable .npz or .npy file"):
    features.create("file", path=str(tmp_path / "text.npy")).extract(digits)
  np.savez(tmp_path / "a.npz", a=np.zeros(3))
  with pytest.raises(options.UserError, match=r"features.key='train' is not in .*; its arrays: a"):
    features.create("file", path=str(tmp_path / "a.npz")).extract(digits)


def test_features_change_place_with_data_and_settings(digits, tmp_path):
  space = features.create("pixels", components=4)
  once = features.extract("pixels", space, digits, str(tmp_path))
  np.testing.assert_array_equal(once, features.extract("pixels", space, digits, str(tmp_path)))
  assert len(list(tmp_path.iterdir())) == 1
  features.extract("pixels", features.create("pixels", components=5), digits, str(tmp_path))
  features.extract("pixels", space, digits._replace(inputs_fingerprint="other"), str(tmp_path))
  assert len(list(tmp_path.iterdir())) == 3
