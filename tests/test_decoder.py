"""Decoders against transformers' outputs on tiny models with random weights, and reading and writing their files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from dynsel_jax import models
from dynsel_jax.data import source
from dynsel_jax.models import decoder, decoder_files
from dynsel_jax.models.weights import Weights
from dynsel_jax.options import UserError
from dynsel_jax.tasks import language_model
from tests.support import language

CLOSE = {"rtol": 1e-4, "atol": 2e-5}


class Loaded:
  """A tiny decoder with its weights and its reference arrays."""

  def __init__(self, name, path):
    self.path = language.folder(name, path)
    self.held, self.ids = language.padded_ids(name)
    self.module = models.create("decoder_pretrained", 96, weights=str(self.path))
    self.params = loaded(self.module, self.ids)
    self.real = self.held["attention_mask"] == 1

  def outputs(self, params, ids):
    return self.module.apply({"params": params}, ids, jnp.ones(len(ids), bool), train=True)


def loaded(module, ids):
  like = jax.eval_shape(lambda: module.init(jax.random.key(0), ids, jnp.ones(len(ids), bool), train=False))
  return jax.tree.map(jnp.asarray, models.pretrained(module, like["params"]))


@pytest.fixture(scope="module", params=language.DECODERS)
def tiny(request, tmp_path_factory):
  return Loaded(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
  return Loaded("tiny_qwen2", tmp_path_factory.mktemp("qwen2"))


def task_on(vocabulary, **settings):
  """The task on a data set of that vocabulary."""
  text = source.Text((), decoder.PAD, vocabulary, (8,))
  dataset = source.Dataset(inputs=np.zeros((1, 8), np.int32), targets=np.ones((1, 8), bool))
  made = source.Source("x", dataset, dataset, "0", "0", text=text)
  return language_model.language_model(made, lambda key, index, batch: batch, **settings)


def test_states_and_logits_are_those_of_transformers(tiny):
  outputs, stages = jax.jit(tiny.outputs)(tiny.params, tiny.ids)
  for number in range(tiny.module.sizes.layers + 1):
    ours = stages[f"layer_{number}" if number else "embeddings"]
    np.testing.assert_allclose(ours[tiny.real], tiny.held[f"hidden_{number}"][tiny.real], **CLOSE)
  logits = outputs["states"] @ outputs["head"].T
  np.testing.assert_allclose(logits[tiny.real], tiny.held["logits"][tiny.real], **CLOSE)
  mean = [states[real].mean(axis=0) for states, real in zip(outputs["states"], tiny.real, strict=True)]
  np.testing.assert_allclose(stages["features"], mean, **CLOSE)


@pytest.mark.parametrize("kind", ["lm", "sft"])
def test_losses_of_sequences_are_those_of_transformers(tiny, kind):
  targets = np.pad(tiny.held[f"{kind}_token_mask"].astype(bool), ((0, 0), (1, 0)))
  batch, task = {"inputs": jnp.asarray(tiny.ids), "targets": jnp.asarray(targets)}, task_on(96)

  @jax.jit
  def measured(params, batch):
    reduced = task.reduced(tiny.outputs(params, batch["inputs"])[0], batch)
    return task.losses(reduced, batch), task.metrics(reduced, batch, jnp.ones(len(targets), bool))

  (loss, extras), metrics = measured(tiny.params, batch)
  np.testing.assert_allclose(loss, tiny.held[f"{kind}_sequence_loss"], atol=1e-5)
  np.testing.assert_array_equal(extras["tokens"], tiny.held[f"{kind}_token_mask"].sum(axis=1))
  nats, count = metrics["nats_per_token"]
  np.testing.assert_allclose(nats / count, tiny.held[f"{kind}_token_mean_loss"], atol=1e-5)
  best = tiny.held["logits"][:, :-1].argmax(axis=-1) == tiny.held["input_ids"][:, 1:]
  counted = tiny.held[f"{kind}_token_mask"] == 1
  np.testing.assert_array_equal(extras["correct"], (best | ~counted).all(axis=1))
  assert float(metrics["token_accuracy"][0]) == best[counted].sum()


def test_gradients_are_those_of_transformers(tiny):
  targets = np.pad(tiny.held["sft_token_mask"].astype(bool), ((0, 0), (1, 0)))
  batch, task = {"inputs": jnp.asarray(tiny.ids), "targets": jnp.asarray(targets)}, task_on(96)

  def loss(params):
    return task.losses(task.reduced(tiny.outputs(params, batch["inputs"])[0], batch), batch)[0].mean()

  grads = jax.jit(jax.grad(loss))(tiny.params)
  for path, grad in traverse_util.flatten_dict(grads).items():
    name = "lm_head.weight" if path == ("head",) else f"model.{decoder_files._stem(path)}"
    theirs = tiny.held[f"grad.{name}"]
    np.testing.assert_allclose(grad, theirs.T if path[-1] == "kernel" else theirs, rtol=1e-3, atol=1e-5, err_msg=name)


def test_greedy_tokens_are_those_of_transformers(qwen2):
  tiny = qwen2
  ids = tiny.held["greedy_prefix_and_continuation"].astype(np.int32)
  padded = jnp.asarray(np.where(np.arange(16) < 5, np.resize(ids, 16), decoder.PAD)[None], jnp.int32)

  @jax.jit
  def extended(ids, place):
    outputs = tiny.outputs(tiny.params, ids)[0]
    state = jax.lax.dynamic_index_in_dim(outputs["states"][0], place - 1, keepdims=False)
    return ids.at[0, place].set(jnp.argmax(outputs["head"] @ state).astype(jnp.int32))

  for place in range(5, 13):
    padded = extended(padded, place)
  np.testing.assert_array_equal(padded[0, :13], ids)


def test_what_is_written_is_read_again(tiny, tmp_path):
  decoder_files.save(tmp_path, tiny.module.sizes, tiny.params, eos_token_id=2)
  again = models.create("decoder_pretrained", 96, weights=str(tmp_path))
  assert again.sizes == tiny.module.sizes
  jax.tree.map(np.testing.assert_array_equal, loaded(again, tiny.ids), tiny.params)
  assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == 2


def test_bfloat16_is_near_float32(qwen2):
  tiny, half = qwen2, qwen2.module.clone(dtype=jnp.bfloat16)
  with jax.numpy_dtype_promotion("standard"):  # JAX's attention mixes its type with float32
    outputs, _ = jax.jit(lambda p, x: half.apply({"params": p}, x, jnp.ones(len(x), bool), train=False))(
      tiny.params, tiny.ids
    )
  assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype(jnp.bfloat16)}
  logits = (outputs["states"] @ outputs["head"].T).astype(jnp.float32)[tiny.real]
  reference = tiny.held["logits"][tiny.real]
  assert np.abs(logits - reference).mean() < 0.02 * np.abs(reference).mean()


def test_later_tokens_and_padding_change_nothing_before_them(qwen2):
  tiny = qwen2
  short, other = tiny.ids[:1, :6], tiny.ids[:1].copy()
  other[:, 6:] = np.roll(other[:, 6:], 1)
  states = jax.jit(tiny.outputs)(tiny.params, tiny.ids[:1])[0]["states"]
  for ids in (short, other):
    np.testing.assert_allclose(jax.jit(tiny.outputs)(tiny.params, ids)[0]["states"][:, :6], states[:, :6], **CLOSE)


def test_a_decoder_from_random_weights_has_the_sizes_of_its_options():
  def count(module):
    ids, valid = jnp.zeros((1, 4), jnp.int32), jnp.ones(1, bool)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), ids, valid, train=False))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))

  layer = 2 * 256**2 + 2 * 256 * 128 + 3 * 256 * 704 + 2 * 256
  assert count(models.create("decoder", 4096)) == 4096 * 256 + 4 * layer + 256
  assert count(models.create("decoder_pretrained", 3)) == 134_515_008  # as the published SmolLM2-135M


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"model_type": "gpt2"}, "describes a 'gpt2'; supported are llama and qwen2"),
    ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported, only 'silu'"),
    ({"attention_bias": True}, "attention_bias=True is not supported, only False"),
    ({"num_key_value_heads": 3}, "num_key_value_heads=3 must divide num_attention_heads=4"),
    ({"rope_parameters": {"rope_type": "llama3"}}, "rope_type='llama3' is not supported, only 'default'"),
    ({"rope_parameters": ["default"]}, "rope_parameters or rope_scaling, ['default'], must be an object"),
    ({"vocab_size": 50}, "has a vocabulary of 50 tokens, and the data set's tokenizer one of 96"),
    ({"hidden_size": "32"}, "hidden_size='32' must be an integer from 1 to 100000"),
    ({"rms_norm_eps": None}, "rms_norm_eps=None must be a positive number"),
    (None, "is not the config.json of a language model"),
  ],
)
def test_a_config_that_the_model_does_not_compute_is_refused(tmp_path, changes, line):
  path = language.folder("tiny_llama_tied", tmp_path) / "config.json"
  path.write_text("[" if changes is None else json.dumps(json.loads(path.read_text()) | changes))
  with pytest.raises(UserError) as error:
    models.create("decoder_pretrained", 96, weights=str(tmp_path))
  assert line in str(error.value) and str(tmp_path) in str(error.value)


def test_weights_of_another_shape_are_refused(tmp_path):
  path = language.folder("tiny_llama_tied", tmp_path) / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 48}))
  module = models.create("decoder_pretrained", 96, weights=str(tmp_path))
  with pytest.raises(UserError, match=r"'model.layers.0.mlp.\w+.weight' has shape"):
    loaded(module, jnp.zeros((1, 4), jnp.int32))


@pytest.mark.parametrize(
  ("name", "settings", "line"),
  [
    ("decoder", {"width": 36, "heads": 4}, "model.width=36 must be a multiple of 2 * model.heads=8"),
    ("decoder", {"groups": 3}, "model.groups=3 must be a divisor of model.heads=4"),
    ("decoder", {"layers": 0}, "model.layers=0 must be greater than 0"),
    ("decoder_pretrained", {"lora_rank": 2, "lora_targets": ("q_proj",)}, "'q_proj' is not known; known: query, key"),
    ("decoder_pretrained", {"lora_rank": 2, "lora_targets": ()}, "leaves nothing to train"),
    ("decoder_pretrained", {"weights": "absent"}, "model.weights='absent' is not a folder of a pretrained model"),
  ],
)
def test_a_wrong_option_is_named(name, settings, line):
  with pytest.raises(UserError) as error:
    models.create(name, 8, **settings)
  assert line in str(error.value)


def test_a_text_longer_than_the_model_is_refused():
  module = models.create("decoder", 8, positions=4)
  with pytest.raises(UserError, match="texts of 5 tokens exceed the model's 4"):
    jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 5), jnp.int32), jnp.ones(1), train=False))


def test_names_of_arrays_are_those_of_the_file(tiny):
  weights = Weights("model.weights", tiny.path)
  decoder_files.decoder_params(tiny.params, weights)
  assert len(jax.tree.leaves(tiny.params)) == len(weights.names)
