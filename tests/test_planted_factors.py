"""Known factors mixed into features: the whole pipeline must rank samples as the factors themselves would.

Each sample is a sum of three of 64 random directions. Frequencies have a long tail, and every other direction belongs
to one class, so representativeness and rarity are known by construction.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from dynsel_jax import data, factors, selectors
from dynsel_jax.factors import fit, quality, sae, scores
from dynsel_jax.offline import factor_stage
from dynsel_jax.runs import timing
from dynsel_jax.types import SampleTable

NUM_FACTORS, D_IN, NUM_SAMPLES, NUM_CLASSES, ACTIVE = 64, 64, 2500, 5, 3
SEEDS = (0, 1, 2)


def planted(seed):
  """Returns features, labels, directions, and the planted representativeness and rarity."""
  rng = np.random.default_rng(seed)
  directions = rng.normal(size=(NUM_FACTORS, D_IN))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  labels = rng.integers(0, NUM_CLASSES, NUM_SAMPLES)
  own_class = np.where(np.arange(NUM_FACTORS) % 2, np.arange(NUM_FACTORS) // 2 % NUM_CLASSES, -1)
  allowed = (own_class < 0)[None, :] | (own_class[None, :] == labels[:, None])
  draw = rng.gumbel(size=allowed.shape) - 0.3 * np.log1p(np.arange(NUM_FACTORS))
  chosen = np.argsort(-np.where(allowed, draw, -np.inf), axis=1)[:, :ACTIVE]
  present = np.zeros(allowed.shape, bool)
  np.put_along_axis(present, chosen, True, axis=1)
  features = (rng.uniform(0.7, 1.3, present.shape) * present) @ directions
  features += 0.01 * rng.normal(size=features.shape)

  frequency = present.sum(axis=0)
  spread = np.array([len(set(labels[column])) for column in present.T])
  common = np.argsort(-frequency, kind="stable")[: NUM_FACTORS // 10]
  weight = np.zeros(NUM_FACTORS)
  weight[common] = 1 / spread[common]
  return features.astype(np.float32), labels.astype(np.int32), directions, present @ weight, present @ (1 / frequency)


def rank_correlation(a, b):
  def ranks(x):
    _, place, count = np.unique(x.astype(np.float32), return_inverse=True, return_counts=True)
    return (np.cumsum(count) - count / 2)[place]

  return np.corrcoef(ranks(np.asarray(a)), ranks(np.asarray(b)))[0, 1]


@pytest.fixture(autouse=True)
def _standard_promotion():
  """The optimizer's own arithmetic mixes types; the rest of the suite is strict."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@functools.cache
def fitted(topk):
  """Fits one autoencoder a seed, with one compilation; returns them with their data."""
  plan = fit.make_fit(
    NUM_SAMPLES, D_IN, num_latents=NUM_FACTORS, k=ACTIVE, topk=topk, epochs=60, batch_size=250, learning_rate=1e-2
  )
  advance = jax.jit(functools.partial(plan.advance, num_steps=plan.num_steps))
  result = []
  for seed in SEEDS:
    features, *truth = planted(seed)
    init_key, order_key = jax.random.split(jax.random.key(seed))
    normalizer = sae.fit_normalizer(jnp.asarray(features))
    state, _ = advance(order_key, plan.init(init_key), normalizer, jnp.asarray(features))
    result.append((fit.SAE(state.params, normalizer), jnp.asarray(features), *truth))
  return result


def correlations(params, normalizer, features, labels, planted_scores, topk):
  codes = factors.encode_all(params, normalizer, features, k=ACTIVE, topk=topk)
  columns = factors.columns(codes, jnp.asarray(labels), NUM_CLASSES, num_latents=NUM_FACTORS)
  return [
    rank_correlation(columns[name], truth)
    for name, truth in zip(("representativeness", "rarity"), planted_scores, strict=True)
  ]


@pytest.mark.parametrize("seed", SEEDS)
def test_usual_rule_recovers_the_planted_scores(seed):
  (params, normalizer), features, labels, _, *planted_scores = fitted("value")[seed]
  representativeness, rarity = correlations(params, normalizer, features, labels, planted_scores, "value")
  assert representativeness > 0.8 and rarity > 0.6


@pytest.mark.parametrize("seed", SEEDS)
def test_paper_rule_recovers_the_planted_scores_once_the_signs_are_settled(seed):
  (params, normalizer), features, labels, directions, *planted_scores = fitted("absolute")[seed]
  rows = np.asarray(params.W_enc / jnp.linalg.norm(params.W_enc, axis=1, keepdims=True))
  cosine = rows @ directions.T
  assert np.mean(np.abs(cosine).max(axis=0) > 0.9) > 0.85  # nearly every direction has a latent,
  assert 0.3 < np.mean(cosine.max(axis=0) > 0.9) < 0.7  # half of them with the wrong sign

  flipped = quality.mostly_negative(params, normalizer, features, k=ACTIVE)
  oriented = correlations(sae.flip(params, flipped), normalizer, features, labels, planted_scores, "absolute")
  literal = correlations(params, normalizer, features, labels, planted_scores, "absolute")
  assert min(oriented) > 0.8
  assert max(literal) < 0.7


def test_a_run_trains_on_the_planted_representatives_first_and_on_the_planted_rarities_later(tmp_path):
  """From a file of features to the selections of two epochs, through the offline stage that a run goes through."""
  features, labels, _, *planted_scores = planted(0)
  truth = dict(zip(factor_stage.COLUMNS, planted_scores, strict=True))
  np.save(tmp_path / "features.npy", features)
  made = digits.get_config("selector=rrd,features=file")
  made.update_from_flattened_dict({"features.path": str(tmp_path / "features.npy"), "cache_dir": str(tmp_path)})
  made.factors.update(expansion_factor=1, k=ACTIVE, orient=True, epochs=60, batch_size=250, learning_rate=1e-2)
  samples = {"inputs": np.zeros((NUM_SAMPLES, 1, 1, 1), np.uint8), "labels": labels}
  source = data.from_arrays("planted", samples, samples)
  found = factor_stage.Stage(made, source, timing.Timers()).columns

  placed = jnp.asarray(labels)

  @jax.jit
  def chosen(columns, epoch):
    table = SampleTable(NUM_SAMPLES, placed, NUM_CLASSES, columns)
    selector = selectors.create("rrd", table, 20, keep_fraction=0.3, alpha_min=0.0, penalty=0.0)
    selection, _ = selector.select(jax.random.key(1), selector.init(jax.random.key(0)), epoch)
    return selection.keep

  known = {name: scores.min_max(jnp.asarray(score, jnp.float32)) for name, score in truth.items()}
  for epoch, wanted in ((0, truth["representativeness"]), (16, truth["rarity"])):
    reached, best = (wanted[np.asarray(chosen(columns, epoch))] for columns in (found, known))
    gain = (reached.mean() - wanted.mean()) / (best.mean() - wanted.mean())
    assert gain > 0.6  # 0 is a random selection, 1 that of the planted scores
