"""Sentence embeddings against Hugging Face's on stored weights and, where it is installed, all-MiniLM-L6-v2."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from dynsel_jax import data, features
from dynsel_jax.data import tokens
from dynsel_jax.features.sentence import buckets
from dynsel_jax.models.weights import MINILM, folder
from dynsel_jax.options import UserError
from tests.support import ROOT

TINY = ROOT / "tests" / "data" / "tiny_bert.safetensors"
CONFIG = {
  "model_type": "bert",
  "vocab_size": 24,
  "hidden_size": 16,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "intermediate_size": 24,
  "max_position_embeddings": 10,
  "type_vocab_size": 2,
}


@pytest.fixture
def encoder_folder(tmp_path):
  """A pretrained model as Hugging Face lays it out, with the stored weights and words for tokens."""
  shutil.copy(TINY, tmp_path / "model.safetensors")
  (tmp_path / "config.json").write_text(json.dumps(CONFIG))
  tokens.words_of(["a b c d e f g h i j k l m n o p q r s t"]).save(str(tmp_path / "tokenizer.json"))
  return tmp_path


def test_an_embedding_is_the_normalised_mean_over_the_texts_own_tokens(encoder_folder):
  arrays = safetensors.numpy.load_file(TINY)
  ids, hidden = arrays["expected.input_ids"], arrays["expected.hidden"]
  # The tokenizer puts its own first and last token, so the stored ids are handed over as they are.
  space = features.create("sentence", path=str(encoder_folder), batch_size=3)
  rows = [row[row != 0].tolist() for row in ids]
  space._tokenizer = None
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tokens, "encode", lambda tokenizer, texts, max_length: (rows, 0))
    found = space.embed(["", "", "", ""])
  for row, states, mine in zip(rows, hidden, found, strict=True):
    mean = states[: len(row)].mean(axis=0)
    np.testing.assert_allclose(mine, mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-5)


def test_embeddings_depend_on_the_text_alone(encoder_folder):
  texts = ["a b c", "t", "d e f g h i", "a b c", "q r s t m n o p"]
  whole = features.create("sentence", path=str(encoder_folder), batch_size=4).embed(texts)
  np.testing.assert_allclose(whole[0], whole[3], rtol=1e-5)
  alone = features.create("sentence", path=str(encoder_folder), batch_size=1)
  for row, words in zip(whole, texts, strict=True):
    np.testing.assert_allclose(alone.embed([words])[0], row, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)


def test_buckets_hold_every_text_once_below_its_bound():
  lengths = np.random.default_rng(0).integers(1, 300, 500)
  seen = []
  for bound, places in buckets(lengths, 32):
    assert len(places) <= 32 and lengths[places].max() <= bound
    assert bound == 16 or lengths[places].min() > bound / 2
    seen.extend(places)
  assert sorted(seen) == list(range(500))


def test_settings_are_the_files_content_wherever_they_lie(encoder_folder, tmp_path_factory):
  one = features.create("sentence", path=str(encoder_folder)).settings()
  other = tmp_path_factory.mktemp("moved") / "model"
  shutil.copytree(encoder_folder, other)
  assert features.create("sentence", path=str(other), batch_size=3).settings() == one
  assert features.create("sentence", path=str(other), max_length=5).settings() != one
  arrays = safetensors.numpy.load_file(TINY)
  safetensors.numpy.save_file(
    {**arrays, "bert.pooler.dense.bias": np.ones(16, np.float32)}, other / "model.safetensors"
  )
  assert features.create("sentence", path=str(other)).settings() != one


def test_images_wrong_folders_and_values_are_named(encoder_folder):
  space = features.create("sentence", path=str(encoder_folder))
  with pytest.raises(UserError, match="features.name=sentence is for texts, dataset.name=digits is of images"):
    space.extract(data.load("digits"))
  with pytest.raises(UserError, match="features.batch_size=0"):
    features.create("sentence", path=str(encoder_folder), batch_size=0)
  with pytest.raises(UserError, match="features.max_length=2"):
    features.create("sentence", path=str(encoder_folder), max_length=2)
  (encoder_folder / "tokenizer.json").unlink()
  with pytest.raises(UserError, match="has no tokenizer.json"):
    features.create("sentence", path=str(encoder_folder))


def test_all_minilm_gives_the_published_embeddings():
  try:
    folder("features.path", MINILM)
  except UserError as error:
    pytest.skip(str(error))
  texts = ["I am still waiting on my card?", "What can I do if my card still hasn't arrived after 2 weeks?"]
  texts += ["naïve café: 12,5 €!", "A " * 300]
  found = features.create("sentence", batch_size=2).embed(texts)
  # Hugging Face's implementation with PyTorch on the same weights.
  np.testing.assert_allclose(found[0] @ found.T, [1.0, 0.709714, 0.139607, -0.009496], atol=1e-5)
  np.testing.assert_allclose(found[:, 0], [-0.035352, 0.022594, 0.033777, -0.014423], atol=1e-5)
