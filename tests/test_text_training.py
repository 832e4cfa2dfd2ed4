"""Text classifiers in whole runs: they learn, dropout and devices agree, a run continues, validation chooses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import rsd15k
from dynsel_jax import models
from dynsel_jax.models import bert
from dynsel_jax.options import UserError
from dynsel_jax.runs.interruption import Interrupted
from tests.support import ROOT, small_runs


@pytest.fixture(autouse=True)
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture
def config(tmp_path):
  """The smoke config of RSD-15K on planted texts, with dropout and half of the test set for validation."""
  made = rsd15k.get_config("size=smoke,selector=infobatch")
  small_runs.planted_texts(made, tmp_path)
  made.update(batch_size=16, eval_batch_size=24, epochs=2, checkpoint_every_steps=0)
  made.model.update(vocabulary=20, layers=1)
  made.dataset.length_buckets = 2  # a branch of the step's program each
  return made


def test_a_run_learns_and_its_validation_set_chooses_the_epoch(config, tmp_path):
  config.update(epochs=10, learning_rate=4e-3)
  summary, _ = small_runs.train(config, tmp_path / "run")
  lines = small_runs.lines(tmp_path / "run")
  assert summary["final_test_accuracy"] > 0.9
  best = max(lines, key=lambda line: line["validation_accuracy"])  # the first of equals
  assert summary["best_validation_accuracy"] == best["validation_accuracy"] > 0.9
  assert summary["test_accuracy_at_best_validation"] == best["test_accuracy"]
  assert lines[0]["validation_accuracy"] < 0.9


def test_devices_and_interruptions_change_nothing(config, tmp_path, monkeypatch):
  summary, once = small_runs.train(config, tmp_path / "once")
  _, shared = small_runs.train(config, tmp_path / "shared", 2)
  for one, two in zip(small_runs.lines(tmp_path / "once"), small_runs.lines(tmp_path / "shared"), strict=True):
    for field in ("train_loss", "test_loss"):
      np.testing.assert_allclose(one[field], two[field], rtol=1e-4)
  with monkeypatch.context() as patch:
    small_runs.interrupted_at(8, patch)
    with pytest.raises(Interrupted):
      small_runs.train(config, tmp_path / "again")
  continued, again = small_runs.train(config, tmp_path / "again")
  small_runs.same_state(once, again)
  assert small_runs.lines(tmp_path / "again") == small_runs.lines(tmp_path / "once")
  assert all("validation_accuracy" in line for line in small_runs.lines(tmp_path / "again"))
  for field in ("best_validation_accuracy", "test_accuracy_at_best_validation"):
    assert continued[field] == summary[field]


def test_training_starts_from_the_weights_and_a_new_head(config, tmp_path, monkeypatch):
  def stored(num_outputs, dtype, axis_name, *, dropout=0.1, weights=""):
    sizes = bert.Sizes(24, 16, 2, 4, 24, 10)
    return bert.Bert(num_outputs, sizes, dropout, dtype, axis_name, weights)

  monkeypatch.setitem(models.MODELS, "minilm_l6", stored)
  (tmp_path / "model").mkdir()
  (tmp_path / "model" / "model.safetensors").symlink_to(ROOT / "tests" / "data" / "tiny_bert.safetensors")
  config.model = {"name": "minilm_l6", "dtype": "float32", "dropout": 0.1, "weights": str(tmp_path / "model")}
  params = small_runs.build(config).initial.train.params
  config.model.weights = ""
  fresh = small_runs.build(config).initial.train.params
  spread, fresh_spread = (float(p["encoder"]["word_embeddings"]["embedding"].std()) for p in (params, fresh))
  assert spread > 0.2 > 0.05 > fresh_spread
  jax.tree.map(np.testing.assert_array_equal, params["head"], fresh["head"])
  assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    (
      {"model.vocabulary": 10},
      "dataset.tokenizer='' does not fit model.name=bert_tiny: its vocabulary is 17, the model's 10",
    ),
    ({"dataset.augmentations": ("flip",)}, "dataset.augmentations=('flip',) are for images, not for texts"),
    ({"dataset.train": "absent.csv"}, "dataset.train='absent.csv' is not a file"),
    (
      {"model": {"name": "mlp"}},
      "model.name=mlp takes numbers, such as images, and dataset.name=rsd15k holds texts",
    ),
    ({"model": {"name": "roberta_base"}}, "its padding id is 0, the model's 1"),
  ],
)
def test_what_does_not_fit_together_is_named(config, tmp_path, changes, line):
  for field, value in changes.items():
    if field == "model":
      config.model = value
    else:
      config.update_from_flattened_dict({field: value})
  with pytest.raises(UserError) as error:
    small_runs.train(config, tmp_path / "run")
  assert line in str(error.value)
  assert not (tmp_path / "run").exists()


def test_images_are_not_for_text_models_and_texts_not_for_pixels(config, tmp_path):
  with pytest.raises(
    UserError, match="model.name=bert_tiny takes token ids of texts, and dataset.name=digits holds no texts"
  ):
    small_runs.train(small_runs.config(model="bert_tiny"), tmp_path / "run")
  config.features = {"name": "pixels", "components": 4}
  config.factors = rsd15k.get_config("selector=rrd").factors
  with pytest.raises(UserError, match="features.name=pixels is for images, dataset.name=rsd15k is of texts"):
    small_runs.train(config, tmp_path / "run")
