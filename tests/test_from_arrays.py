"""A data set from arrays: what it holds of them, and one line for arrays that are none."""

import jax
import numpy as np
import pytest

from dynsel_jax import data, options

GOOD = {"inputs": np.zeros((6, 2), np.float32), "labels": np.array([0, 1, 2, 0, 1, 2], np.int64)}


LABELS = GOOD["labels"]
UNLABELLED = {"inputs": GOOD["inputs"]}


def test_arrays_are_held_in_at_most_32_bits_and_labels_are_counted():
  train = {**GOOD, "inputs": np.arange(12.0).reshape(6, 2), "group": np.arange(6, dtype=np.uint8)}
  source = data.from_arrays("six", train, train, validation=train)
  for dataset in (source.train, source.test, source.validation):
    assert {name: array.dtype.name for name, array in dataset.items()} == {
      "inputs": "float32",
      "labels": "int32",
      "group": "uint8",
    }
    np.testing.assert_array_equal(dataset["inputs"], train["inputs"])
  assert (source.num_samples, source.num_classes, source.class_names) == (6, 3, ())
  assert source.mean == source.std == () and source.noisy is None
  named = data.from_arrays("six", train, train, class_names=("a", "b", "c"))
  assert (named.num_classes, named.class_names) == (3, ("a", "b", "c"))


def test_images_get_the_statistics_of_their_channels():
  images = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 2), np.uint8)
  source = data.from_arrays("six", {"inputs": images}, {"inputs": images})
  np.testing.assert_allclose(source.mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
  np.testing.assert_allclose(source.std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-12)
  assert source.labels is None and source.num_classes == 0


def test_the_fingerprint_covers_every_array_of_every_split_and_that_of_the_inputs_the_training_inputs_alone():
  def changed(array):
    return np.concatenate([array[:-1], array[-1:] + 1]) if array.dtype.kind == "f" else array[[1, 0, 2, 3, 4, 5]]

  plain = data.from_arrays("six", GOOD, GOOD, validation=GOOD)
  prints = {plain.fingerprint}
  for split in ("train", "test", "validation"):
    for name in GOOD:
      splits = {"train": GOOD, "test": GOOD, "validation": GOOD, split: {**GOOD, name: changed(GOOD[name])}}
      other = data.from_arrays("six", **splits)
      prints.add(other.fingerprint)
      assert (other.inputs_fingerprint == plain.inputs_fingerprint) == ((split, name) != ("train", "inputs"))
  assert len(prints) == 7
  assert data.from_arrays("another", GOOD, GOOD, validation=GOOD).fingerprint == plain.fingerprint


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"test": UNLABELLED}, "split 'test' has the arrays ['inputs']; it must have 'inputs' and those of"),
    ({"train": {"labels": LABELS}, "test": {"labels": LABELS}}, "split 'train' has the arrays ['labels']"),
    ({"test": {k: v[:0] for k, v in GOOD.items()}}, "split 'test' has no sample"),
    ({"validation": {**GOOD, "labels": LABELS[:4]}}, "split 'validation' has 6 samples in 'inputs' and 4 in"),
    (
      {"test": {**GOOD, "inputs": np.zeros((6, 3))}},
      "split 'test' has 'inputs' of shape (3,) a sample, and split 'train'",
    ),
    ({"train": {**GOOD, "inputs": np.array(["a"] * 6)}}, "'inputs' of its split 'train' has shape (6,) and type <U1"),
    (
      {"train": {**GOOD, "scale": 3.0}},
      "'scale' of its split 'train' has shape () and type float64; it must be an array",
    ),
    ({"train": {**GOOD, "labels": LABELS + 2**33}}, "'labels' of its split 'train' has numbers beyond 32 bits"),
    ({"train": {**GOOD, "labels": LABELS / 2}}, "has labels of shape (6,) and type float32; they must be [N]"),
    ({"train": {**GOOD, "labels": LABELS * 2}}, "has no training sample of class 1, one of 5 classes; number the"),
    ({"test": {**GOOD, "labels": LABELS + 1}}, "split 'test' has label 3 at sample 2, outside [0, num_classes=3)"),
    ({"num_classes": 2}, "split 'train' has label 2 at sample 2, outside [0, num_classes=2)"),
    ({"class_names": ("a", "b")}, "split 'train' has label 2 at sample 2, outside [0, num_classes=2)"),
    ({"train": UNLABELLED, "test": UNLABELLED, "num_classes": 3}, "has 3 classes and no"),
  ],
)
def test_arrays_that_are_no_data_set_are_named(changes, line):
  splits = {"train": GOOD, "test": GOOD, **changes}
  with pytest.raises(options.UserError) as error:
    data.from_arrays("six", splits.pop("train"), splits.pop("test"), **splits)
  assert str(error.value).startswith("dataset.name='six'")
  assert line in str(error.value) and "\n" not in str(error.value)


def test_class_names_are_as_many_as_the_classes():
  with pytest.raises(options.UserError, match="dataset.name='six' has 2 class names for 3 classes"):
    data.from_arrays("six", GOOD, GOOD, num_classes=3, class_names=("a", "b"))


def test_a_data_set_gives_its_arrays_as_attributes_and_is_a_pytree():
  inputs, targets = np.arange(6.0, dtype=np.float32).reshape(3, 2), np.ones(3, np.float32)
  arrays = {"inputs": inputs, "targets": targets}
  dataset = data.from_arrays("mine", arrays, arrays).train
  np.testing.assert_array_equal(dataset.inputs, dataset["inputs"])
  doubled = jax.jit(lambda tree: jax.tree.map(lambda array: 2 * array, tree))(dataset)
  np.testing.assert_array_equal(doubled.targets, 2 * targets)
  assert jax.tree_util.keystr(jax.tree_util.tree_leaves_with_path(dataset)[0][0]) == "['inputs']"
  with pytest.raises(AttributeError, match="no array 'labels'; it has inputs, targets"):
    _ = dataset.labels
