"""UDS against the published code's numbers, and its extras against numpy.

The reference is in the official scale, which is larger than ours by sqrt(N V) / 2 for N tokens and a vocabulary V.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import data, selectors, tasks
from dynsel_jax.data import gather
from dynsel_jax.data.source import Text
from dynsel_jax.options import UserError
from dynsel_jax.selectors import uds
from dynsel_jax.tasks import logit_geometry
from dynsel_jax.types import PROJECTION_WIDTH, SampleTable
from tests.support import oracles, simulation

RNG = np.random.default_rng(0)


def _close(found, expected):
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("case", [None, "short"])
def test_scores_and_memory_are_those_of_the_published_code(case):
  reference = oracles.load("uds", case)
  logits, max_length = reference["logits"], int(reference["max_length"])
  steps, batch, tokens, words = logits.shape
  scale = np.sqrt(max_length * words) / 2  # of the official projections over ours
  padded = jnp.asarray(np.pad(logits, ((0, 0), (0, 0), (0, max_length - tokens), (0, 0))))
  by_token, by_word = (
    logit_geometry.cosines(
      jnp.asarray(reference[f"{axis}_indices"], jnp.int32), jnp.asarray(reference[f"{axis}_signs"])
    )
    for axis in ("token", "vocabulary")
  )
  norms = jax.jit(logit_geometry.nuclear_norm)(padded)
  projections = jax.jit(logit_geometry.project)(padded, by_token, by_word)
  _close(norms, reference["nuclear_norm"])
  _close(projections * scale, reference["projected"])
  memory = uds.empty_memory(int(reference["buffer_size"]), projections.shape[-1])
  distances, remember = jax.jit(uds.diversity), jax.jit(uds.remember)
  alpha = float(reference["alpha"]) * scale
  for step in range(steps):
    inter = distances(memory, projections[step])
    _close(inter * scale, reference["inter"][step])
    score = norms[step] + alpha * inter
    _close(score, reference["combined"][step])
    chosen = np.isin(np.arange(batch), np.argsort(-np.asarray(score))[: int(reference["keep"])])
    np.testing.assert_array_equal(np.flatnonzero(chosen), reference["selected"][step])
    place = np.full(batch, batch)
    place[reference["written"][step]] = np.arange(len(reference["written"][step]))  # the order is arbitrary there
    memory = remember(memory, projections[step], jnp.asarray(place, jnp.int32), jnp.asarray(chosen))
    assert int(memory.filled) == reference["queue_count_after"][step]
    assert int(memory.pointer) == reference["queue_pointer_after"][step]
  _close(memory.rows * scale, reference["queue_final"])


@pytest.mark.parametrize("total", [0, 3, 7])
def test_of_more_rows_than_the_memory_holds_the_last_are_kept(total):
  rows = jnp.asarray(RNG.normal(size=(8, 2)), jnp.float32)
  place = RNG.permutation(8)
  chosen = place < total
  memory = uds.remember(
    uds.empty_memory(4, 2)._replace(pointer=jnp.int32(3)), rows, jnp.asarray(place), jnp.asarray(chosen)
  )
  expected = np.zeros((4, 2), np.float32)
  for number, row in enumerate(np.argsort(place)[:total]):
    expected[(3 + number) % 4] = rows[row]
  np.testing.assert_array_equal(memory.rows, expected)
  assert (int(memory.filled), int(memory.pointer)) == (min(total, 4), (3 + total) % 4)


@pytest.mark.parametrize("shape", [(3, 5, 9), (2, 9, 4), (4, 1, 6)])
def test_the_nuclear_norm_is_the_sum_of_singular_values(shape):
  logits = RNG.normal(size=shape).astype(np.float32)
  expected = np.linalg.svd(logits.astype(np.float64), compute_uv=False).sum(-1)
  np.testing.assert_allclose(logit_geometry.nuclear_norm(jnp.asarray(logits)), expected, rtol=1e-5)
  rows = np.concatenate([logits, np.zeros((shape[0], 3, shape[2]), np.float32)], axis=1)
  np.testing.assert_allclose(logit_geometry.nuclear_norm(jnp.asarray(rows)), expected, rtol=1e-5)  # zeros do not count


def test_states_and_head_give_what_their_product_gives():
  states, head = (RNG.normal(size=shape).astype(np.float32) for shape in ((3, 6, 8), (8, 40)))
  logits = states @ head
  norms = np.linalg.svd(logits, compute_uv=False).sum(-1)

  @jax.jit
  def by_factors(states, head, logits):
    tokens = logit_geometry.random_cosines(0, logit_geometry.TOKEN_ROWS, 6)
    words = logit_geometry.random_cosines(1, logit_geometry.WORD_ROWS, 40)
    whole = logit_geometry.project(logits, tokens, words)
    norm = logit_geometry.nuclear_norm_of_product(states, head)
    return norm, logit_geometry.projection_of_product(states, head, 6), whole

  norm, projection, whole = map(np.asarray, by_factors(states, head, logits))
  assert whole.shape == (3, PROJECTION_WIDTH)
  _close(norm, norms)
  _close(projection, whole)


@pytest.mark.parametrize("words", [30, 5])  # more and fewer than the width of the states
def test_a_language_model_gives_both_of_its_real_tokens(words):
  states, head = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 4, 8), (words, 8)))
  ids = np.array([[1, 2, 3, 4], [1, 2, -1, -1]], np.int32)
  dataset = {"inputs": np.zeros((3, 6), np.int32), "targets": np.ones((3, 6), bool)}
  source = data.from_arrays("made_up", dataset, dataset)._replace(text=Text(("",) * 3, -1, words, (6,)))
  task = tasks.create("language_model", source, gather.view(source), logit_geometry=True)
  batch = {"inputs": jnp.asarray(ids), "targets": jnp.ones((2, 6), bool)}

  @jax.jit
  def extras(states, head):
    return task.losses(task.reduced({"states": states, "head": head}, batch), batch)[1]

  found = extras(states, head)
  assert set(task.signals) == found.keys() and found["projection"].shape == (2, PROJECTION_WIDTH)
  for row, count in enumerate((4, 2)):
    logits = states[row, :count].astype(np.float64) @ head.T
    assert float(found["nuclear_norm"][row]) == pytest.approx(np.linalg.svd(logits, compute_uv=False).sum(), rel=1e-4)
  changed = extras(np.where((ids < 0)[..., None], 99.0, states).astype(np.float32), head)
  np.testing.assert_array_equal(changed["projection"], found["projection"])  # padding does not count
  assert tasks.giving("projection") == ["classification", "language_model"]


def test_cosines_keep_the_digits_of_a_long_axis():
  length, indices = 152_064, np.array([0, 1, 77_777, 152_063])
  signs = np.where(np.arange(length) % 3, 1.0, -1.0).astype(np.float32)
  found = logit_geometry.cosines(jnp.asarray(indices, jnp.int32), jnp.asarray(signs))
  turns = np.outer(indices, np.arange(length)) % length
  expected = np.sqrt(2 / 4) * np.cos(2 * np.pi * turns / length) * signs
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_projection_keeps_the_length_on_average():
  logits = jnp.asarray(RNG.normal(size=(1, 2000)), jnp.float32)
  found = np.linalg.norm(jax.jit(logit_geometry.of_one_row)(logits)["projection"])
  assert found == pytest.approx(np.linalg.norm(logits), rel=0.15)
  few = logit_geometry.of_one_row(logits[:, :10])
  np.testing.assert_array_equal(few["projection"][0, :10], logits[0, :10])
  assert not few["projection"][:, 10:].any() and few["nuclear_norm"] == jnp.linalg.norm(logits[0, :10])


def _signals(norms, rows, *, trained, index=(4, 2, 7, -1)):
  seen = simulation.signals(list(index), epoch=0, trained=trained)
  projection = jnp.zeros((4, PROJECTION_WIDTH)).at[:, 0].set(jnp.asarray(rows, jnp.float32))
  return seen._replace(extras={"nuclear_norm": jnp.asarray(norms, jnp.float32), "projection": projection})


def test_the_sum_of_both_parts_decides_and_only_trained_samples_are_remembered():
  selector = selectors.create("uds", SampleTable(10), 3, batch_fraction=0.5, alpha=2.0, memory_size=3)
  state = selector.init(jax.random.key(0))
  first = _signals([3.0, 2.0, 1.0, 99.0], [0.0, 5.0, 1.0, 99.0], trained=[True, True, False, True])
  positions, weights = selector.thin(jax.random.key(1), state, first)
  assert positions.tolist() == [0, 1] and weights.tolist() == [1, 1]
  state = selector.observe(state, first)
  assert state.memory.rows[:, 0].tolist() == [5.0, 0.0, 0.0] and int(state.memory.filled) == 2  # by index: 2, then 4
  # Distances to 5 and 0 are 2.5 on average anywhere between them, and 4.5 at 7.
  second = _signals([1.0, 3.0, 2.0, 9.0], [7.0, 1.0, 2.0, 9.0], trained=False, index=(1, 3, 5, -1))
  positions, _ = selector.thin(jax.random.key(2), state, second)
  assert positions.tolist() == [0, 1]  # 1 + 2 * 4.5, 3 + 2 * 2.5, 2 + 2 * 2.5
  _, info = selector.select(jax.random.key(3), selector.observe(state, second), jnp.int32(1))
  assert float(info["diversity_ratio"]) == pytest.approx((0 + 2.5) / 2)  # medians of 0, 0, 0 and of 9, 5/3, 5/2


def test_what_is_not_finite_is_worst_and_never_remembered():
  selector = selectors.create("uds", SampleTable(10), 3, batch_fraction=0.25)
  bad = _signals([np.inf, 1.0, np.nan, 9.0], [1.0, np.nan, 2.0, 9.0], trained=True)
  state = selector.observe(selector.init(jax.random.key(0)), bad)
  assert int(state.memory.filled) == 2 and np.isfinite(state.memory.rows).all()
  positions, _ = selector.thin(jax.random.key(1), state, _signals([np.inf, 1, np.nan, 9], [0] * 4, trained=False))
  assert positions.tolist() == [1]


@pytest.mark.parametrize(
  ("settings", "line"),
  [
    ({"alpha": -1.0}, "alpha=-1.0 must be at least 0"),
    ({"memory_size": 0}, "memory_size=0 must be greater than 0"),
    ({"batch_fraction": 0.0}, r"batch_fraction=0.0 must lie in \(0, 1\]"),
  ],
)
def test_wrong_options_are_named(settings, line):
  with pytest.raises(UserError, match=line):
    selectors.create("uds", SampleTable(10), 3, **settings)
