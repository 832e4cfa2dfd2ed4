"""Texts that a run's model writes: what a plain loop writes, where they end, and what cannot be continued."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import sft
from dynsel_jax import data, models
from dynsel_jax.offline import feature_registry
from dynsel_jax.options import UserError
from dynsel_jax.runs import files, generation
from tests.support import language, small_runs


@pytest.fixture(autouse=True)
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run that learnt to say yes."""
  folder = tmp_path_factory.mktemp("run")
  made = sft.get_config("size=smoke,schedule=constant")
  rows = [{"prompt": "abcdefgh"[number % 8], "response": "yes", "source": number % 2} for number in range(48)]
  made.dataset.update(dict.fromkeys(("train", "test"), language.write_rows(folder / "rows.jsonl", rows)))
  made.dataset.update(max_length=40, length_buckets=1)
  made.update(epochs=10, batch_size=8, learning_rate=1e-2, checkpoint_every_steps=0)
  with jax.numpy_dtype_promotion("standard"):
    small_runs.train(made, folder / "run")
  return made, folder / "run"


def test_a_model_answers_as_it_learnt(run):
  _, workdir = run
  assert small_runs.lines(workdir)[-1]["test_exact_match"] > 0.9
  assert generation.generate(workdir, ["c", "h"], max_tokens=8) == ["yes", "yes"]


def test_a_row_is_continued_by_the_largest_logit_until_it_ends():
  module = models.create("decoder", 12, width=16, layers=1, heads=2, groups=1, hidden=16)
  rows = jnp.array([[3, 1, 4, -1, -1, -1], [5, -1, -1, -1, -1, -1]], jnp.int32)
  valid = jnp.ones(2, bool)
  variables = jax.jit(lambda: module.init(jax.random.key(1), rows, valid, train=False))()
  variables = jax.tree.map(lambda leaf: 8 * leaf, variables)
  step = jax.jit(lambda ids: module.apply(variables, ids, valid, train=False)[0])
  expected = np.array(rows)
  for place in range(1, 6):
    outputs = step(jnp.asarray(expected))
    best = np.asarray(outputs["states"] @ outputs["head"].T).argmax(axis=-1)
    for row, length in enumerate((3, 1)):
      if place >= length:
        expected[row, place] = best[row, place - 1]
  continued = jax.jit(generation.extended, static_argnums=(0, 5))
  lengths, limits = jnp.array([3, 1], jnp.int32), jnp.array([6, 6], jnp.int32)
  np.testing.assert_array_equal(continued(module, variables, rows, lengths, limits, 99), expected)
  end = int(expected[0, 3])
  ended = np.asarray(continued(module, variables, rows, lengths, limits, end))
  np.testing.assert_array_equal(ended[0], [*expected[0, :4], -1, -1])
  limited = np.asarray(continued(module, variables, rows, lengths, lengths + 2, 99))
  np.testing.assert_array_equal(limited[0], [*expected[0, :5], -1])
  np.testing.assert_array_equal(limited[1], [*expected[1, :3], -1, -1, -1])


def test_a_short_prompt_gets_no_more_tokens_for_a_long_one_beside_it(run):
  _, workdir = run
  alone = generation.generate(workdir, ["c"], max_tokens=2)
  assert alone == ["ye"]  # a token is a byte
  assert generation.generate(workdir, ["c", "abcdefgh" * 3], max_tokens=2)[0] == alone[0]


def test_what_cannot_be_continued_is_refused(run, tmp_path):
  _, workdir = run
  with pytest.raises(UserError, match="max_tokens=0 must be greater than 0"):
    generation.generate(workdir, ["x"], max_tokens=0)
  with pytest.raises(UserError, match="exceeds the model's 2048"):
    generation.generate(workdir, ["x"], max_tokens=5000)
  with pytest.raises(UserError, match="holds no run"):
    generation.generate(tmp_path, ["x"])


def test_a_learnt_tokenizer_that_is_damaged_is_refused(run, tmp_path):
  held = files.read_json(run[1] / "config.json")
  del held["config"]["dataset"]["chat_template"]
  held["config"]["dataset"]["vocabulary"] = 300
  held["model"]["tokenizer"] = hashlib.sha256(b"{}").hexdigest()
  files.write_json(tmp_path / "config.json", held)
  for content in ("{} ", ""):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="tokenizer.json is lost or damaged; the run's command writes it again"):
      generation.generate(tmp_path, ["x"])


def test_features_of_texts_are_mean_states_of_a_runs_decoder(run):
  made, workdir = run
  source = data.prepare(made.dataset.to_dict())
  made = sft.get_config("size=smoke,selector=rrd,features=backbone")
  made.features.update(path=str(workdir), batch_size=40)
  name, space = feature_registry.create(made)
  found = space.extract(source)
  assert name == "backbone" and found.shape == (48, 32)
  np.testing.assert_allclose(found[8:16], found[:8], rtol=1e-5)  # of the same texts
  assert np.linalg.norm(found[1] - found[0]) > 1e-3
