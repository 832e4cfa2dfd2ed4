"""Reports: the frontier of plain training, and where methods lie beside it."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from dynsel_jax.metric import ACCURACY, Metric
from dynsel_jax.report import frontier, frontier_table, groups, page
from dynsel_jax.report.frontier import Outcome
from dynsel_jax.runs import finished
from tests.support import run_folders

LOSS = Metric("mean_squared_error", "", larger_is_better=False)
RNG = np.random.default_rng(0)


def _truth(cost):
  return 0.5 + 0.04 * np.log2(cost)


def _planted(costs, seeds, noise, offset=0.0):
  """Returns runs around a metric that is linear in log cost; a seed has the same luck at every length."""
  luck = dict(zip(seeds, RNG.normal(size=len(seeds)) * 0.01, strict=True))
  return [
    [Outcome(s, cost, _truth(cost) + offset + luck[s] + noise * RNG.normal(), _truth(cost) + offset) for s in seeds]
    for cost in costs
  ]


def test_a_straight_line_in_log_cost_is_found_again_between_its_knots():
  found = frontier.curve(_planted([1, 4, 16], range(3), noise=0.0)[::-1], ACCURACY)
  np.testing.assert_allclose(found.costs, [1, 4, 16])
  for cost in (1, 1.7, 4, 11, 16):
    assert np.mean(frontier.at(found, cost)) == pytest.approx(_truth(cost) + np.mean(found.metrics[:, 0]) - _truth(1))


@pytest.mark.parametrize("cost", [0.9, 17])
def test_the_curve_is_not_extended(cost):
  found = frontier.curve(_planted([1, 4, 16], range(3), noise=0.0), ACCURACY)
  assert np.isnan(frontier.at(found, cost)).all()
  where = frontier.position(found, [Outcome(s, cost, 0.9) for s in range(3)], ACCURACY)
  assert where.word == "unknown" and where.difference.n == 0 and math.isnan(where.frontier)


def test_the_paired_distance_and_its_interval_equal_those_made_by_hand():
  plain = _planted([1, 4], range(4), noise=0.01)
  ours = [Outcome(s, 2.0, 0.6 + 0.01 * s) for s in (1, 2, 3, 9)]
  where = frontier.position(frontier.curve(plain, ACCURACY), ours, ACCURACY)
  by_hand = [ours[s - 1].metric - (plain[0][s].metric + plain[1][s].metric) / 2 for s in (1, 2, 3)]  # 2 is halfway
  interval = stats.ttest_1samp(by_hand, 0).confidence_interval(0.95)
  np.testing.assert_allclose(where.difference, (np.mean(by_hand), *interval, 3))
  assert where.metric.n == 4


@pytest.mark.parametrize(("offset", "word"), [(0.05, "above"), (0.0, "on"), (-0.05, "below")])
@pytest.mark.parametrize("metric", [ACCURACY, LOSS])
def test_a_method_planted_beside_the_frontier_is_found_there(offset, word, metric):
  sign = 1 if metric.larger_is_better else -1
  rng = np.random.default_rng(1)
  noises = rng.normal(size=6) * 0.005
  noises -= noises.mean()

  def run(cost, seed, extra=0.0):
    return Outcome(seed, cost, sign * (_truth(cost) + extra), sign * _truth(cost))

  found = frontier.curve([[run(cost, s) for s in range(6)] for cost in (1, 3, 9)], metric)
  ours = [run(2.0, s, offset + noises[s]) for s in range(6)]
  assert frontier.position(found, ours, metric).word == word


def test_intervals_of_a_method_on_the_frontier_hold_zero_as_often_as_they_say():
  words = []
  for _ in range(400):
    runs = _planted([1, 2, 4, 3], range(3), noise=0.01)
    words.append(frontier.position(frontier.curve(runs[:3], ACCURACY), runs[3], ACCURACY).word)
  assert 0.91 < words.count("on") / 400 < 0.985


def test_a_longer_run_that_validates_worse_is_replaced_by_the_shorter_one():
  shorter, longer = [Outcome(0, 1, 0.7, 0.71)], [Outcome(0, 2, 0.8, 0.70)]
  longest = [Outcome(0, 4, 0.6, 0.72)]  # better on the validation set alone, and so it is taken
  found = frontier.curve([longest, longer, shorter], ACCURACY)
  np.testing.assert_allclose(found.metrics, [[0.7, 0.7, 0.6]])


def test_without_validation_nothing_is_replaced():
  found = frontier.curve([[Outcome(0, 2, 0.6)], [Outcome(0, 1, 0.7)]], ACCURACY)
  np.testing.assert_allclose(found.metrics, [[0.7, 0.6]])


def test_a_seed_that_a_length_lacks_counts_where_its_neighbours_have_it():
  whole, part = _planted([1, 2, 4], range(3), noise=0.0), 1
  found = frontier.curve([whole[0], whole[1], whole[2][:part]], ACCURACY)
  assert np.isfinite(frontier.at(found, 1.5)).tolist() == [True, True, True]
  assert np.isfinite(frontier.at(found, 3.0)).tolist() == [True, False, False]
  np.testing.assert_allclose(found.means[:2], np.mean(found.metrics[:, :2], axis=0))


def test_one_length_is_no_curve():
  assert frontier.curve(_planted([3], range(2), noise=0.0), ACCURACY) is None
  assert frontier.curve([], ACCURACY) is None


def test_settings_are_tuned_by_validation_on_common_seeds_never_by_test():
  poor = [Outcome(0, 1, 0.9, 0.5), Outcome(1, 1, 0.9, 0.5), Outcome(2, 1, 0.9, 0.99)]  # seed 2 is not common
  good = [Outcome(0, 1, 0.1, 0.6), Outcome(1, 1, 0.1, 0.6)]
  assert frontier.tuned([poor, good], ACCURACY) == 1
  assert frontier.tuned([poor, good], LOSS) == 0
  assert frontier.tuned([[Outcome(0, 1, 0.9)]], ACCURACY) == 0  # nothing to choose
  assert frontier.tuned([[Outcome(0, 1, 0.9)], [Outcome(0, 1, 0.8)]], ACCURACY) is None
  assert frontier.tuned([], ACCURACY) is None


def _write(root, method, seed, rate, epochs, final, validation=None, **changes):
  folder = root / f"{method}-lr{rate}-epochs{epochs}-seed{seed}"
  run_folders.write(folder, method, seed, epochs=epochs, final=final, learning_rate=rate, **changes)
  if validation is not None:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines[-1]["validation_accuracy"] = validation
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _collected(root):
  return groups.collect(finished.find([str(root)]))[0]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
  """Plain runs of two lengths and random ones, at two rates each; the test metric tempts to the wrong one."""
  tmp_path = tmp_path_factory.mktemp("tuned")
  for seed in range(2):
    luck = 0.001 * seed
    for epochs, best in ((2, 0.4), (4, 0.2)):
      for rate in (0.2, 0.4):
        right = rate == best
        _write(tmp_path, "full", seed, rate, epochs, 0.7 + 0.05 * epochs + luck, 0.8 if right else 0.7)
        if not right:
          run = tmp_path / f"full-lr{rate}-epochs{epochs}-seed{seed}" / "summary.json"
          run.write_text(json.dumps(json.loads(run.read_text()) | {"final_test_accuracy": 0.99}))
    _write(tmp_path, "random", seed, 0.2, 6, 0.95 + luck + 0.002 * seed, 0.9, keep=0.5)
    _write(tmp_path, "random", seed, 0.4, 6, 0.99, 0.1, keep=0.5)
  return tmp_path


def test_of_run_folders_the_frontier_has_a_tuned_rate_for_each_length_and_method(tuned):
  members = _collected(tuned)
  cost = frontier.COSTS["backward visits"]
  [(group, where)] = frontier.positions(members, cost)
  assert dict(group.shared)["learning_rate"] == 0.2 and group.method == "random"
  assert where.cost == 600  # between 400 and 800
  assert where.frontier == pytest.approx(0.8005 + 0.1 * math.log2(1.5))
  assert where.difference.mean == pytest.approx(0.95 + 0.0015 - where.frontier)
  assert where.word == "above"
  found = frontier.curve_of(group, members, cost)
  np.testing.assert_allclose(found.costs, [400, 800])
  rows = frontier_table.table(members).rows
  assert [(row["method"], row["learning_rate"]) for row in rows] == [("full", 0.4), ("full", 0.2), ("random", 0.2)]
  assert [row["backward_visits_mean"] for row in rows] == [400, 800, 600]  # plain runs ascend, and come first
  assert "backward_visits_word" not in rows[0] and rows[2]["backward_visits_word"] == "above"
  [*_, shown] = frontier_table.table(members).shown()
  assert shown[2] == "0.2" and shown[5].startswith("above, +9.") and shown[5] == shown[6]
  assert "Learning rates are the best on the validation set." in frontier_table.table(members).note
  of_one_rate = [member for member in members if dict(member.shared)["learning_rate"] == 0.2]
  assert "One learning rate was tried." in frontier_table.table(of_one_rate).note
  assert len(shown) == 8 and len(frontier_table.table(members, seconds=False).shown()[0]) == 7


def test_a_page_shows_tuned_runs_alone_and_compares_them_with_the_longest_plain_one(tuned, tmp_path):
  pytest.importorskip("jinja2", reason="the extra `report` is not installed")
  written = page.write(finished.find([str(tuned)]), str(tmp_path))
  assert any(note.startswith("Not shown: 3 learning rates") for note in written.notes)
  [longest, shorter, method] = (said for _, said in written.verdicts)
  assert "the reference" in longest and "-10.00 points against full training, the same with every seed" in shorter
  assert "against full training" in method or "than full training" in method
  assert "above the frontier of shorter plain runs" in method
  assert "Beside shorter plain runs" in (tmp_path / "report.md").read_text()


def test_plain_runs_of_another_recipe_are_not_the_frontier(tmp_path):
  for seed in range(2):
    _write(tmp_path, "full", seed, 0.1, 2, 0.7)
    _write(tmp_path, "full", seed, 0.1, 4, 0.8, batch_size=64)
    _write(tmp_path, "random", seed, 0.1, 6, 0.8)
  assert frontier.positions(_collected(tmp_path), frontier.COSTS["backward visits"]) == []
  assert frontier_table.table(_collected(tmp_path)) is None


def test_rates_that_only_the_test_set_tells_apart_are_left_out(tmp_path):
  for seed in range(2):
    for rate in (0.1, 0.2):
      _write(tmp_path, "full", seed, rate, 2, 0.7)
    _write(tmp_path, "full", seed, 0.1, 4, 0.8)
    _write(tmp_path, "random", seed, 0.1, 6, 0.8)
  assert frontier.positions(_collected(tmp_path), frontier.COSTS["backward visits"]) == []


def test_compute_counts_a_forward_pass_as_a_third_of_a_visit(tmp_path):
  _write(tmp_path, "full", 0, 0.1, 4, 0.8)
  [group] = _collected(tmp_path)
  [run] = group.runs
  assert frontier.COSTS["compute"](group, run) == frontier.COSTS["backward visits"](group, run) == 800
  scored = run._replace(summary=groups.summary(run) | {"forward_visits": 3200})
  assert frontier.COSTS["compute"](group, scored) == 800 + 2400 / 3


def test_tuned_groups_are_named_without_their_rate_where_that_tells_them_apart(tuned):
  members = _collected(tuned)
  rejected = {id(group) for group in frontier.rejected(members)}
  kept = [group for group in members if id(group) not in rejected]
  named = [g._replace(cell=f"{g.method}_{len(g.runs[0].metrics)}-learning_rate0.4") for g in kept]
  assert [group.label for group in frontier.without_rate(named)] == ["full_4", "full_2", "random_6"]
  same = [group._replace(cell=f"full-learning_rate{place}") for place, group in enumerate(kept)]
  assert [group.label for group in frontier.without_rate(same)] == [group.label for group in same]
