"""A run's model is used as it was trained: the same decoding, tokens and normalisation, or one line that refuses."""

import csv
import json
import shutil

import numpy as np
import PIL.Image
import pytest

from configs import rsd15k
from dynsel_jax import data, hashing, runs
from dynsel_jax.data import inputs
from dynsel_jax.options import UserError
from experiments import predict
from tests.support import small_runs


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("digits")
  small_runs.train(small_runs.config(), workdir)
  return runs.load(workdir)


@pytest.fixture(scope="module")
def test_set():
  return data.load("digits").test


def test_the_test_set_is_predicted_as_the_run_evaluated_it(digits, test_set):
  probabilities = digits.predict(test_set["inputs"])
  assert probabilities.shape == (355, 10)
  np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
  assert np.mean(probabilities.argmax(axis=1) == test_set["labels"]) == pytest.approx(digits.summary["final_metric"])
  # A type that holds the same numbers is no other input; neither does the size of the batch matter.
  np.testing.assert_allclose(digits.predict(test_set["inputs"][:3].astype(np.int64)), probabilities[:3], rtol=1e-5)
  assert digits.predict(test_set["inputs"][:0]).shape == (0, 10)


def test_what_a_run_left_is_told(digits):
  assert digits.config["dataset"]["name"] == "digits" and len(digits.metrics) == 2
  assert digits.usage["visits"].sum() == digits.summary["backward_visits"]
  assert digits.class_names == tuple("0123456789") and digits.metric.name == "accuracy" and not digits.missing


def test_a_folder_of_classes_gives_rows_and_figures_by_class(digits, test_set, tmp_path, capsys):
  chosen = [np.flatnonzero(test_set["labels"] == label)[:2] for label in range(10)]
  for label, samples in enumerate(chosen):
    (tmp_path / "images" / str(label)).mkdir(parents=True)
    for sample in samples:
      PIL.Image.fromarray(test_set["inputs"][sample, ..., 0]).save(tmp_path / "images" / str(label) / f"{sample}.png")
  predict.main(str(digits.path), str(tmp_path / "images"), str(tmp_path / "out.csv"))
  with open(tmp_path / "out.csv", newline="") as file:
    header, *rows = csv.reader(file)
  assert header == ["input", "predicted", "probability", "label"] and len(rows) == 20
  for name, predicted, probability, label in rows:
    folder, sample = name.removesuffix(".png").split("/")
    wanted = digits.predict(test_set["inputs"][int(sample)][None])[0]
    assert (predicted, label) == (str(wanted.argmax()), folder)
    assert float(probability) == pytest.approx(wanted.max(), rel=1e-4)
  right = np.mean([row[1] == row[3] for row in rows])
  table = capsys.readouterr().out.splitlines()
  assert table[-1] == f"accuracy {right:.2%} on 20 samples" and len(table) == 12
  predict.main(str(digits.path), str(tmp_path / "images" / "3"), str(tmp_path / "out.csv"))
  assert (tmp_path / "out.csv").read_text().splitlines()[0] == "input,predicted,probability"


def test_figures_by_class_count_rows_and_columns_of_the_confusion():
  table = predict.by_class(("cat", "dog", "owl"), np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
  assert [line.split() for line in table.splitlines()[1:]] == [
    ["cat", "3", "66.7%", "100.0%"],
    ["dog", "1", "100.0%", "50.0%"],
  ]


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda x: x / 255, "type float64; the model was trained on uint8 from 0 to 255"),
    (lambda x: x[..., 0], r"shape \(355, 8, 8\); the model was trained on \[n, 8, 8, 1\]"),
    (lambda x: x.astype(np.int32) * 2, "hold 0 to 510; the model was trained on 0 to 255"),
    (lambda x: x // 15, "another scale: .* magnitude of 15 to 17, of each training sample 223 to 255"),  # sklearn's own
  ],
)
def test_what_the_model_was_not_trained_on_is_refused(digits, test_set, change, words):
  with pytest.raises(UserError, match=words):
    digits.predict(change(test_set["inputs"]))


@pytest.mark.parametrize("factor", [1 / 255, 1 / 16, 1 / 2.2, 2.2, 16, 255, -16])
def test_inputs_of_another_scale_are_refused(factor):
  trained = np.random.default_rng(0).random((50, 40))
  trained[::5] = 0
  with pytest.raises(UserError, match="inputs are of another scale"):
    inputs.check_scale(trained[:2] * factor, inputs.scale_of(trained))


def test_inputs_of_the_training_distribution_are_not_refused():
  rng = np.random.default_rng(0)
  for draw in (rng.standard_normal, rng.random, rng.standard_cauchy, lambda shape: rng.pareto(0.5, shape)):
    scale, further = inputs.scale_of(draw((1000, 5))), draw((1000, 5))
    further[::3] = np.nan
    for number in range(0, 1000, 2):
      inputs.check_scale(further[number : number + 2], scale)
  images = data.load("digits")
  for image in images.test["inputs"]:
    inputs.check_scale(image[None], inputs.scale_of(images.train["inputs"][:100]))
  inputs.check_scale(np.zeros((3, 8, 8, 1), np.uint8), (223, 255))  # black has no scale
  assert inputs.scale_of(np.arange(6, dtype=np.int32)[None]) == ()  # nor have token ids


@pytest.mark.parametrize(
  ("name", "size", "words"),
  [
    ("x.png", 9, "has 9x9 pixels and mode L; the model was trained on 8x8 and L"),
    ("7/x.png", 8, "holds the folder cat, which is no class of the run"),
    ("x.txt", 8, "contains no image file"),
  ],
)
def test_images_of_another_kind_are_refused(digits, name, size, words, tmp_path):
  (tmp_path / name).parent.mkdir(exist_ok=True)
  PIL.Image.fromarray(np.zeros((size, size), np.uint8)).save(tmp_path / name, "PNG")
  if "/" in name:
    (tmp_path / "cat").mkdir()
  with pytest.raises(UserError, match=words):
    digits.read(str(tmp_path))


def test_images_with_transparency_are_read_for_a_model_of_four_channels(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (6, 6, 4)).astype(np.uint8)
  PIL.Image.fromarray(image).save(tmp_path / "x.png")
  found = inputs.read(str(tmp_path / "x.png"), inputs.Form((6, 6, 4), "uint8", {}, ("a", "b"), True, ""))
  np.testing.assert_array_equal(found.inputs, image[None])


def test_arrays_with_labels_are_read_and_wrong_ones_refused(digits, test_set, tmp_path):
  images, labels = test_set["inputs"][:5], test_set["labels"][:5]
  np.savez(tmp_path / "right.npz", inputs=images, labels=labels)
  found = digits.read(str(tmp_path / "right.npz"))
  np.testing.assert_array_equal(found.known, labels)
  np.savez(tmp_path / "wrong.npz", inputs=images, labels=labels + 10)
  with pytest.raises(UserError, match="labels must be integers from 0 to 9"):
    digits.read(str(tmp_path / "wrong.npz"))
  np.savez(tmp_path / "none.npz", images=images)
  with pytest.raises(UserError, match="has the arrays images; it must have 'inputs'"):
    digits.read(str(tmp_path / "none.npz"))


def test_a_checkpoint_whose_model_is_not_the_one_that_was_saved_is_refused(digits, tmp_path):
  shutil.copytree(digits.path, tmp_path / "copy")
  newest = max((tmp_path / "copy" / "checkpoints").iterdir(), key=lambda path: int(path.name))
  seal = json.loads((newest / "seal" / "metadata").read_text())
  seal = {name: value for name, value in seal.items() if name != "seal"} | {"model": "0" * 64}
  (newest / "seal" / "metadata").write_text(json.dumps(seal | {"seal": hashing.digest(seal)}))
  with pytest.raises(UserError, match="the checkpoint of step .* is damaged .the model does not match its digest"):
    runs.load(tmp_path / "copy").predict(np.zeros((1, 8, 8, 1), np.uint8))


def test_what_is_no_run_of_ours_is_refused(digits, tmp_path):
  with pytest.raises(UserError, match="holds no run"):
    runs.load(tmp_path)
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(UserError, match="damaged, or was not written by dynsel_jax"):
    runs.load(tmp_path)
  # It calls itself "classification" too, but what it does to a batch is its own.
  own = runs.Trained(digits._run._replace(config={**digits.config, "task": {"name": "my_lab.task:task"}}))
  with pytest.raises(UserError, match="task.name=my_lab.task:task is none of classification, regression"):
    own.predict(np.zeros((1, 8, 8, 1), np.uint8))


def test_texts_are_tokenised_as_in_training(tmp_path):
  config = rsd15k.get_config("size=smoke")
  small_runs.planted_texts(config, tmp_path)
  config.dataset.update(max_length=6, split_test=False)  # so that some are cut
  source = data.prepare(config.dataset.to_dict())
  shape = source.train["inputs"].shape[1:]
  form = inputs.Form(shape, "int32", config.dataset.to_dict(), source.class_names, False, source.text.tokenizer)
  np.testing.assert_array_equal(inputs.encoded(source.text.train, form), source.train["inputs"])
  found = inputs.read(config.dataset.train, form)
  np.testing.assert_array_equal(found.inputs, source.train["inputs"])
  np.testing.assert_array_equal(found.known, source.labels)
  (tmp_path / "new.csv").write_text("id;text\n1;stone yes\n2;text\n")  # without labels, and with another separator
  found = inputs.read(str(tmp_path / "new.csv"), form)
  assert found.known is None and found.names == ("line 2", "line 3")
  (tmp_path / "other.csv").write_text("text,label\nstone yes,1.0\nstone no,1.5\n")
  with pytest.raises(UserError, match="line 3 has the label '1.5', which does not occur in dataset.train"):
    inputs.read(str(tmp_path / "other.csv"), form)
  with pytest.raises(UserError, match="must be a list of texts, not int"):
    inputs.as_trained([3], form)
