"""The Sampler in a loop that is not ours: every method, stopped and continued, against the functions themselves."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynsel_jax import batching, sampler, selectors
from dynsel_jax.batching import Purpose
from dynsel_jax.options import UserError
from dynsel_jax.types import PROJECTION_WIDTH

N, B, EPOCHS, CLASSES = 53, 8, 6, 4
RNG = np.random.default_rng(0)
LABELS = np.append(RNG.integers(0, CLASSES - 1, N - 1), CLASSES - 1)
COLUMNS = ["representativeness", "rarity", "irreducible_loss", "aum", "dual", "el2n", "label_probability", "moderate"]
COLUMNS = {name: RNG.random(N).astype(np.float32) for name in COLUMNS}
COLUMNS["proxy_rank"] = RNG.random((N, EPOCHS)).astype(np.float32)


def make(method, **changes):
  settings = {"num_samples": N, "epochs": EPOCHS, "batch_size": B, "labels": LABELS, "columns": COLUMNS, "seed": 3}
  return sampler.Sampler(method, **{**settings, **changes})


def losses_of(index, epoch):
  draws = np.random.default_rng(epoch).lognormal(0, 1, N).astype(np.float32)
  return draws[index]


def extras_of(made, index, epoch):
  draws = np.random.default_rng(100 + epoch).random(N).astype(np.float32)
  all_of_them = {"correct": draws[index] < 0.7, "confidence": draws[index], "margin": 2 * draws[index] - 1}
  all_of_them |= {
    "nuclear_norm": draws[index],
    "projection": np.outer(draws[index], np.ones(PROJECTION_WIDTH, np.float32)),
  }
  return {name: all_of_them[name] for name in made.extras}


def train(made, seen, stop_after=None):
  """Runs the loop of a user; `seen` gets the samples of each step that were trained on, with their weights."""
  for epoch in made.epochs():
    for index, weight in epoch:
      losses, extras = losses_of(index, epoch.number), extras_of(made, index, epoch.number)
      if made.selector.thin is None:
        made.observe(index, losses, **extras)
        seen.append((index.tolist(), weight.tolist()))
      else:
        positions, weight = made.thin(index, losses, **extras)
        seen.append((index[positions].tolist(), weight.tolist()))
      if len(seen) == stop_after:
        return
    for index in made.to_refresh():
      made.observe(index, losses_of(index, epoch.number), trained=False, **extras_of(made, index, epoch.number))


def by_hand(method):
  """Calls the functions of the selector as a trainer of one's own would, one step after another."""
  made = make(method)
  selector, seen = made.selector, []
  init_key, key = jax.random.split(jax.random.key(3))
  state = jax.jit(selector.init)(jax.random.split(init_key)[1])
  observe, select = jax.jit(selector.observe), jax.jit(selector.select)
  thin = jax.jit(selector.thin) if selector.thin else None

  def signals(index, epoch, trained=None):
    rows = np.maximum(np.asarray(index), 0)
    extras = {name: jnp.asarray(values) for name, values in extras_of(made, rows, epoch).items()}
    return batching.signals(index, jnp.asarray(losses_of(rows, epoch)), jnp.int32(epoch), trained=trained, **extras)

  for epoch in range(EPOCHS):
    select_key, order_key = batching.epoch_keys(key, jnp.int32(epoch))
    selection, _ = select(select_key, state, jnp.int32(epoch))
    plan = batching.order(order_key, selection)
    for step in range(-(-int(plan.size) // B)):
      index, weight = batching.batch_of(plan, jnp.int32(step), B)
      positions, trained = np.flatnonzero(np.asarray(index) >= 0), None
      if thin is not None and bool(selection.thin):
        thin_key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, epoch), Purpose.THIN), step)
        scored = signals(index, epoch, jnp.zeros(B, bool))
        positions, factor = map(np.asarray, thin(thin_key, state, scored))
        positions, factor = positions[factor > 0], factor[factor > 0]
        weight = weight.at[positions].multiply(factor)
        trained = jnp.zeros(B, bool).at[positions].set(True)
      seen.append((np.asarray(index)[positions].tolist(), np.asarray(weight)[positions].tolist()))
      state = observe(state, signals(index, epoch, trained))
    if selector.refresh is not None:
      names = np.flatnonzero(np.asarray(selector.refresh(state, jnp.int32(epoch)))).astype(np.int32)
      for start in range(0, len(names), B):
        part = np.pad(names[start : start + B], (0, max(0, start + B - len(names))), constant_values=-1)
        state = observe(state, signals(jnp.asarray(part), epoch, jnp.zeros(B, bool)))
  return seen, state


@functools.cache
def trained(method):
  """Trains to the end; returns what was trained on, and the leaves of the method's last state."""
  made, seen = make(method), []
  train(made, seen)
  return seen, [np.asarray(leaf) for leaf in jax.tree.leaves(made._state)]


@pytest.mark.parametrize("method", selectors.METHODS)
def test_every_method_selects_as_its_functions_do(method):
  seen, leaves = trained(method)
  expected, state = by_hand(method)
  assert seen == expected
  for ours, theirs in zip(leaves, jax.tree.leaves(state), strict=True):
    np.testing.assert_array_equal(ours, theirs)


def through_json(state):
  return json.loads(json.dumps({k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state.items()}))


@pytest.mark.parametrize("method", selectors.METHODS)
def test_a_loop_stopped_within_an_epoch_and_loaded_again_visits_the_same_samples(method):
  expected, seen = trained(method)[0], []
  first = make(method)
  train(first, seen, stop_after=len(expected) - 9)
  second = make(method)
  second.load_state_dict(through_json(first.state_dict()))
  train(second, seen)
  assert seen == expected
  assert second.backward_visits == sum(len(index) for index, _ in expected)


def test_each_program_is_traced_once_over_epochs_of_any_size():
  made, seen = make("infobatch"), []
  train(made, seen)
  assert len({len(index) for index, _ in seen}) > 1
  assert made._programs.plan._cache_size() == made._programs._observe_many._cache_size() == 1


@pytest.mark.parametrize("size", [53, 50])
def test_the_ranks_share_each_batch(size):
  alone = make("random", num_samples=size, labels=None, columns={}, keep_fraction=1.0)
  ranks = [
    make("random", num_samples=size, labels=None, columns={}, keep_fraction=1.0, rank=r, world_size=4) for r in range(4)
  ]
  for epoch, *parts in zip(alone.epochs(), *(rank.epochs() for rank in ranks), strict=True):
    for (whole, weights), *of_ranks in zip(epoch, *parts, strict=True):
      np.testing.assert_array_equal(np.concatenate([index for index, _ in of_ranks]), whole)
      np.testing.assert_array_equal(np.concatenate([weight for _, weight in of_ranks]), weights)
      assert max(len(i) for i, _ in of_ranks) - min(len(i) for i, _ in of_ranks) <= 1


def test_an_epoch_that_is_left_early_ends_there():
  made = make("infobatch")
  for epoch in made.epochs():
    for number, (index, _) in enumerate(epoch):
      made.observe(index, losses_of(index, epoch.number))
      if number == 1:
        break
  assert made.epoch == EPOCHS and made.backward_visits == EPOCHS * 2 * B


def test_losses_that_are_not_finite_are_counted_and_do_no_harm():
  made = make("infobatch")
  for epoch in made.epochs():
    for index, _ in epoch:
      made.observe(index, np.where(index == 7, np.nan, losses_of(index, epoch.number)))
  assert 1 <= made.non_finite <= EPOCHS


def test_what_it_reports():
  made = make("kakurenbo")
  epoch = next(made.epochs())
  assert len(epoch) == 7 and epoch.number == 0 and epoch.learning_rate_multiplier == 1.0
  assert made.extras == ("correct", "confidence") and make("infobatch").loss_normalization == "batch_size"
  made = make("es", epochs=6)
  train(made, [])
  assert (
    made.backward_visits < made.num_samples * 6 and made.forward_visits > made.num_samples * 6
  )  # scored, then trained
  made = make("selective_backprop")
  index, _ = next(iter(made.current()))
  made.thin(index, losses_of(index, 0), second_pass=False)
  assert (made.forward_visits, made.backward_visits) == (B, B // 2)
  made = make("random", keep_fraction=0.5)
  for index, _ in next(made.epochs()):
    made.observe(index, losses_of(index, 0))
    assert made.realised_keep_fraction <= 26 / 53 + 1e-9
  made = make("random", keep_fraction=0.5)
  train(made, [])
  assert made.realised_keep_fraction == pytest.approx(26 / 53) and made.forward_visits == 26 * EPOCHS


WRONG = {
  "of another epoch": (lambda s, i: s.observe([N - 1 - int(i[0] == N - 1)] * 2, [1.0, 1.0]), "has not given"),
  "out of range": (lambda s, i: s.observe([N], [1.0]), f"index contains {N}"),
  "of floats": (lambda s, i: s.observe(i.astype(float), np.ones(len(i))), "integers"),
  "a mean loss": (lambda s, i: s.observe(i, 0.3), "one loss for each sample"),
  "another length": (lambda s, i: s.observe(i, np.ones(3)), "losses has shape (3,)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_observation_is_refused_in_one_line(name):
  call, words = WRONG[name]
  made = make("random", keep_fraction=0.2)
  index, _ = next(iter(next(made.epochs())))
  if name == "of another epoch":
    absent = next(n for n in range(N) if not made._plan.given[n])
    call = lambda s, i: s.observe([absent], [1.0])  # noqa: E731
  with pytest.raises(UserError, match=words.replace("(", "\\(").replace(")", "\\)")) as error:
    call(made, index)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"num_samples": 0}, "num_samples=0"),
    ({"batch_size": 9, "world_size": 2}, "batch_size=9 must be a multiple"),
    ({"rank": 2, "world_size": 2}, "rank=2"),
    ({"labels": None, "method": "rcap"}, "selector=rcap reads labels"),
    ({"labels": LABELS[:5]}, "labels has shape"),
    ({"seed": 2**32}, "seed="),
    ({"method": "banana"}, "selector.name='banana' is not known"),
    ({"nonsense": 1}, "no option 'nonsense'"),
    ({"wrap": ["banana"]}, "wrap='banana'"),
    ({"wrap": ["annealed", "annealed"]}, "names a wrapper twice"),
  ],
)
def test_a_wrong_sampler_is_refused_in_one_line(changes, words):
  with pytest.raises(UserError, match=words):
    make(**{"method": "infobatch", **changes})


def test_a_state_of_another_sampler_is_refused():
  state = make("infobatch").state_dict()
  for other, words in ((make("seta"), "method"), (make("infobatch", prune_probability=0.2), "options")):
    with pytest.raises(UserError, match=f"another sampler: {words}"):
      other.load_state_dict(state)
  with pytest.raises(UserError, match="table"):
    make("infobatch", labels=LABELS[::-1]).load_state_dict(state)
  with pytest.raises(UserError, match="num_samples"):
    make("infobatch", num_samples=52, labels=None, columns={}).load_state_dict(state)
  with pytest.raises(UserError, match="state_dict"):
    make("infobatch").load_state_dict({"epoch": 3})


@pytest.mark.parametrize("wrap", [["class_balanced"], {"annealed": {"last": 0.5}}, ["noise_guarded"]])
def test_wrappers_go_around_any_method(wrap):
  made, seen = make("infobatch", wrap=wrap), []
  train(made, seen)
  assert made.epoch == EPOCHS and seen


def train_reading_ahead(made, seen, stop_after=None, group=1):
  """Runs a loop whose loader has read the whole epoch before the first batch is trained on."""
  for epoch in made.epochs():
    for index, weight in epoch.read_ahead(group):
      np.testing.assert_array_equal(made.weight_of(index), weight)
      positions, weight = made.thin(index, losses_of(index, epoch.number), **extras_of(made, index, epoch.number))
      seen.append((index[positions].tolist(), weight.tolist()))
      if len(seen) == stop_after:
        return
    for index in made.to_refresh():
      made.observe(index, losses_of(index, epoch.number), trained=False, **extras_of(made, index, epoch.number))


@pytest.mark.parametrize("method", ["infobatch", "kakurenbo", "selective_backprop"])
@pytest.mark.parametrize("back", [1, 9])
def test_a_loop_that_reads_ahead_is_done_with_what_it_observed(method, back):
  whole, seen = [], []
  train(make(method), whole)
  first = make(method)
  train_reading_ahead(first, seen, stop_after=len(whole) - back)
  second = make(method)
  second.load_state_dict(through_json(first.state_dict()))
  train_reading_ahead(second, seen)
  assert seen == whole


def test_an_epoch_that_was_read_to_its_end_stands_where_it_was_observed():
  made = make("infobatch")
  epoch = made.current()
  ahead = epoch.read_ahead()
  assert len(ahead) == len(epoch) == 7
  made.observe(ahead[0][0], losses_of(ahead[0][0], 0))
  made.observe(ahead[5][0], losses_of(ahead[5][0], 0), trained=False)  # scored, not trained on
  assert len(made.current()) == 6 and made.epoch == 0
  made.observe(ahead[2][0], losses_of(ahead[2][0], 0))
  assert [i.tolist() for i, _ in made.current().read_ahead()] == [i.tolist() for i, _ in ahead[3:]]
  made.observe(ahead[6][0], losses_of(ahead[6][0], 0))
  assert made.step == 7 and epoch.read_ahead() == [] and made.epoch == 0
  assert len(made.read_ahead()) == len(made.current()) and made.epoch == 1 and made.step == 0
  assert epoch.read_ahead() == []


def test_a_last_incomplete_group_of_batches_is_left_out():
  made = make("full")
  assert [len(made.current().read_ahead(group)) for group in (1, 2, 3, 7, 8)] == [7, 6, 6, 7, 7]


@pytest.mark.parametrize(("size", "batches"), [(53, 7), (50, 6)])
def test_no_rank_reads_a_batch_without_a_sample(size, batches):
  alike = {"num_samples": size, "labels": None, "columns": {}, "world_size": 4}
  ranks = [make("full", rank=rank, **alike).current().read_ahead() for rank in range(4)]
  assert [len(parts) for parts in ranks] == [batches] * 4
  assert all(len(index) for parts in ranks for index, _ in parts)


def test_a_trainer_with_a_loop_of_its_own_is_given_each_epoch_once():
  made, given = make("full", epochs=2, columns={}), []
  while batches := made.read_ahead():
    given.append(made.epoch)
    for index, _ in batches:
      made.observe(index, losses_of(index, 0))
  assert given == [0, 1] and made.current() is None and list(made.epochs()) == []


def test_a_loop_over_epochs_is_not_overtaken():
  made = make("full", epochs=2, columns={})
  for epoch in made.epochs():
    for index, _ in epoch.read_ahead():
      made.observe(index, losses_of(index, 0))
    assert made.read_ahead() == [] and made.epoch == epoch.number
  assert made.current() is None


def test_the_weight_of_a_sample_that_is_left_out_is_refused():
  made = make("random", keep_fraction=0.2)
  made.current()
  absent = next(n for n in range(N) if not made._plan.given[n])
  for wrong in (absent, N, -1):
    with pytest.raises(UserError, match=f"index contains {wrong}, which the epoch does not train on"):
      made.weight_of([made._plan.indices[0], wrong])


def test_what_waits_in_the_queue_is_no_longer_its_owner_s():
  one, other = make("infobatch"), make("infobatch")
  index, _ = one.current().read_ahead()[0]
  other.current().read_ahead()
  losses = losses_of(index, 0)
  one.observe(index, losses)
  other.observe(index.tolist(), jnp.array(losses, copy=True))
  losses[:] = 0
  for ours, theirs in zip(jax.tree.leaves(one.state_dict()), jax.tree.leaves(other.state_dict()), strict=True):
    np.testing.assert_array_equal(ours, theirs)


def test_extras_of_several_types_are_one_array():
  made = make("kakurenbo")
  for number, (index, _) in enumerate(made.current()):
    correct = losses_of(index, 0) < 1
    made.observe(index, losses_of(index, 0), correct=correct if number % 2 else correct.astype(int), confidence=correct)
  assert made.forward_visits == made.backward_visits == N


@pytest.mark.parametrize("method", ["infobatch", "kakurenbo", "es"])
def test_padded_batches_make_the_same_run_as_short_ones(method):
  plain, padded = make(method), make(method)
  expected, seen = [], []
  train(plain, expected)
  for epoch in padded.epochs():
    for index, weight in epoch.padded():
      assert len(index) == len(weight) == B
      real = index >= 0
      assert not weight[~real].any() and real[: real.sum()].all()
      losses = np.where(real, losses_of(index, epoch.number), np.nan)  # whatever stands in the rows of padding
      extras = extras_of(padded, index, epoch.number)
      if padded.selector.thin is None:
        padded.observe(index, losses, **extras)
        seen.append((index[real].tolist(), weight[real].tolist()))
      else:
        positions, weight = padded.thin(index, losses, **extras)
        seen.append((index[positions].tolist(), weight.tolist()))
    for index in padded.to_refresh():
      padded.observe(index, losses_of(index, epoch.number), trained=False, **extras_of(padded, index, epoch.number))
  assert seen == expected
  assert padded.non_finite == 0
  assert (padded.forward_visits, padded.backward_visits) == (plain.forward_visits, plain.backward_visits)


def test_the_gathered_rows_of_padded_ranks_are_observed_once():
  ranks = [make("infobatch", rank=rank, world_size=4) for rank in range(4)]
  for epochs in zip(*(made.epochs() for made in ranks), strict=True):
    for parts in zip(*(epoch.padded() for epoch in epochs), strict=True):
      index = np.concatenate([part for part, _ in parts])
      assert len(index) == B
      for made in ranks:
        made.observe(index, losses_of(index, made.epoch))
  alone = make("infobatch")
  train(alone, [])
  assert [made.backward_visits for made in ranks] == 4 * [alone.backward_visits]
