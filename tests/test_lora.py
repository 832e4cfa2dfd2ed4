"""Low-rank updates beside frozen weights: where they begin, what is trained, merged weights, and continued runs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs import sft
from dynsel_jax import models
from dynsel_jax.models import decoder_files
from dynsel_jax.options import UserError
from dynsel_jax.runs.interruption import Interrupted
from tests.support import language, small_runs


@pytest.fixture(autouse=True)
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A decoder of the vocabulary of bytes in Hugging Face's layout."""
  path = tmp_path_factory.mktemp("model")
  module = models.create("decoder", 257, width=16, layers=1, heads=2, groups=1, hidden=24)
  ids, valid = jnp.zeros((1, 4), jnp.int32), jnp.ones(1, bool)
  params = jax.jit(lambda: module.init(jax.random.key(3), ids, valid, train=False))()["params"]
  decoder_files.save(path, module.sizes, params)
  return path


@pytest.fixture
def config(folder, tmp_path):
  made = sft.get_config("size=cpu,selector=es")
  for seed, (split, count) in enumerate((("train", 32), ("test", 16))):
    made.dataset[split] = language.conversations(tmp_path / f"{split}.jsonl", count, seed)
  made.dataset.update(tokenizer="", max_length=40, length_buckets=1)
  made.model.update(weights=str(folder), lora_rank=2, lora_targets=("query", "down"))
  made.update(epochs=3, eval_batch_size=16, checkpoint_every_steps=0, learning_rate=0.01)
  return made


def test_updates_begin_at_nothing_and_equal_merged_weights(folder, tmp_path):
  plain = models.create("decoder_pretrained", 257, weights=str(folder))
  adapted = models.create("decoder_pretrained", 257, weights=str(folder), lora_rank=2, lora_targets=("query", "down"))
  ids, valid = jnp.arange(12, dtype=jnp.int32).reshape(2, 6), jnp.ones(2, bool)
  variables = jax.jit(lambda: adapted.init(jax.random.key(0), ids, valid, train=False))()
  frozen = models.pretrained_frozen(adapted, {"frozen": variables["frozen"]})
  params = models.pretrained(adapted, variables["params"])
  assert {path[-2:] for path in traverse_util.flatten_dict(params)} == {
    (target, factor) for target in ("query", "down") for factor in ("lora_a", "lora_b")
  }
  weights = models.pretrained(plain, frozen["frozen"])

  @jax.jit
  def states(params, frozen, weights):
    ours, _ = adapted.apply({"params": params, **frozen}, ids, valid, train=True)
    theirs, _ = plain.apply({"params": weights}, ids, valid, train=True)
    return ours["states"], theirs["states"]

  np.testing.assert_array_equal(*states(params, frozen, weights))
  changed = jax.tree.map(lambda leaf: leaf + 0.1, params)
  ours, theirs = states(changed, frozen, decoder_files.merged(frozen["frozen"], changed, adapted.lora))
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
  assert not np.allclose(ours, states(params, frozen, weights)[0], atol=1e-3)


def test_a_continued_run_is_the_same_and_needs_the_same_weights(config, folder, tmp_path, monkeypatch):
  _, once = small_runs.train(config, tmp_path / "once")
  assert sum(leaf.size for leaf in jax.tree.leaves(once.train.params)) == 2 * (16 + 16) + 2 * (24 + 16)
  with monkeypatch.context() as patch:
    small_runs.interrupted_at(5, patch)
    with pytest.raises(Interrupted):
      small_runs.train(config, tmp_path / "again")
  weights = folder / "model.safetensors"
  held = weights.read_bytes()
  try:
    weights.write_bytes(held[:-4] + bytes(4))
    with pytest.raises(UserError, match="belongs to a different run: frozen_fingerprint"):
      small_runs.train(config, tmp_path / "again")
  finally:
    weights.write_bytes(held)
  _, again = small_runs.train(config, tmp_path / "again")
  small_runs.same_state(once, again)
  assert small_runs.lines(tmp_path / "again") == small_runs.lines(tmp_path / "once")
  first, *_, last = small_runs.lines(tmp_path / "once")
  assert last["test_nats_per_token"] < first["test_nats_per_token"]
  assert "frozen_fingerprint" in json.loads((tmp_path / "once" / "config.json").read_text())
