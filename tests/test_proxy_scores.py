"""Static scores from a proxy run: recorded numbers against numpy, planted wrong labels, score files, errors."""

import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs import digits
from dynsel_jax import data, options
from dynsel_jax.offline import proxy_recorder, proxy_scores, score_file
from dynsel_jax.offline.plain_config import plain_config
from dynsel_jax.runs.interruption import Interrupted
from dynsel_jax.training import loop, setup
from experiments import score_dataset
from tests.support import ROOT, small_runs

EPOCHS, WINDOW, EARLY = 5, 3, 2


def _config(selector="random", **changes):
  made = small_runs.config(selector, epochs=EPOCHS, dataset__label_noise__rate=0.1, model__hidden=(32,))
  made.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
  return made


def _source():
  return data.prepare(_config().dataset.to_dict())


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
  """The folder, every column, and the probabilities of each epoch `[T, N, C]`."""
  folder, traces, original = tmp_path_factory.mktemp("scored"), [], proxy_recorder.record

  def spying(run, state, epoch, **settings):
    traces.append(proxy_recorder.outputs(run, state.train, ("probabilities",))["probabilities"])
    return original(run, state, epoch, **settings)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(proxy_recorder, "record", spying)
    patch.setattr(proxy_recorder, "MOSO_CHECKPOINTS", 2)
    columns = proxy_scores.score(_config(), folder, proxy_scores.SCORES, window=WINDOW, early_epochs=EARLY)
  score_file.write(folder / "scores.npz", columns, _source().fingerprint, {"seed": 0})
  return folder, columns, np.stack(traces)


def test_every_score_is_a_finite_column(scored):
  _, columns, traces = scored
  assert traces.shape == (EPOCHS, 1442, 10)
  assert set(columns) == set(proxy_scores.SCORES)
  for column in columns.values():
    assert (column.dtype, column.shape) == (np.float32, (1442,))
    assert np.isfinite(column).all()


def test_recorded_scores_equal_brute_force(scored):
  _, columns, traces = scored
  labels, rows = _source().train["labels"], np.arange(1442)
  of_label = traces[:, rows, labels]
  others = traces.copy()
  others[:, rows, labels] = -1
  error = traces - np.eye(10, dtype=np.float32)[labels]
  windows = [of_label[start : start + WINDOW] for start in range(EPOCHS - WINDOW + 1)]
  deviations = np.stack([window.std(0, ddof=1) for window in windows])
  correct = traces.argmax(2) == labels
  forgotten = (correct[:-1] & ~correct[1:]).sum(0)
  tdds = 0
  for start in range(EPOCHS - WINDOW + 1):
    old, new = traces[start : start + WINDOW - 1], traces[start + 1 : start + WINDOW]
    change = np.abs(new * (np.log(new + 1e-8) - np.log(old + 1e-8))).sum(2)
    tdds = 0.1 * tdds + 0.9 * np.linalg.norm(change - change.mean(0), axis=0)
  want = {
    "aum": (of_label - others.max(2)).mean(0),
    "dual": (deviations * np.stack([1 - window.mean(0) for window in windows])).mean(0),
    "dyn_unc": deviations.mean(0),
    "el2n": np.linalg.norm(error, axis=2)[:EARLY].mean(0),
    "entropy": -(traces[-1] * np.log(traces[-1])).sum(1),
    "forgetting": np.where(correct.any(0), forgotten, EPOCHS),
    "label_probability": of_label.mean(0),
    "margin": (of_label - others.max(2))[-1],
    "tdds": tdds,
  }
  for name, column in want.items():
    np.testing.assert_allclose(columns[name], column, rtol=1e-3, atol=1e-5, err_msg=name)


def test_wrong_labels_are_the_hard_ones(scored):
  _, columns, _ = scored
  noisy = _source().noisy
  for name in ("el2n", "grand", "forgetting", "irreducible_loss", "moderate"):
    assert columns[name][noisy].mean() > 1.3 * columns[name][~noisy].mean(), name
  for name in ("aum", "margin", "label_probability", "moso"):
    assert columns[name][noisy].mean() < columns[name][~noisy].mean(), name


def test_orders_of_picks_are_columns(scored):
  _, columns, _ = scored
  for name in ("d2", "herding", "k_center"):
    assert np.unique(columns[name]).size == 1442
    assert (columns[name].min(), columns[name].max()) == (np.float32(1 / 1442), 1)
  np.testing.assert_allclose(proxy_scores.order_column([2, 0, -1], 4), [0.75, 0, 1, 0])


def test_each_irreducible_loss_is_of_the_model_that_never_saw_the_sample(scored):
  folder, columns, _ = scored
  seen = [np.load(folder / f"half_{part}" / "usage.npz")["visits"] > 0 for part in (0, 1)]
  np.testing.assert_array_equal(seen[0], ~seen[1])
  assert seen[0].sum() == 721
  for part in (0, 1):
    proxy = plain_config(_config(), "dynsel_jax.offline.proxy_scores:half", part=part, seed=0)
    _, state, run = loop.train_and_evaluate(proxy, folder / f"half_{part}")  # finished: nothing is trained
    loss = proxy_recorder.outputs(run, state.train, ("loss",))["loss"]
    np.testing.assert_allclose(columns["irreducible_loss"][seen[1 - part]], loss[seen[1 - part]], rtol=1e-5)


def test_an_interrupted_proxy_run_gives_the_same_columns(scored, tmp_path, monkeypatch):
  names, settings = ("el2n", "forgetting", "tdds"), {"window": WINDOW, "early_epochs": EARLY}
  want = proxy_scores.score(_config(), tmp_path / "whole", names, **settings)
  with monkeypatch.context() as patch:
    small_runs.interrupted_at(30, patch)  # in the third epoch of 12 steps
    with pytest.raises(Interrupted):
      proxy_scores.score(_config(), tmp_path / "part", names, **settings)
  found = proxy_scores.score(_config(), tmp_path / "part", names, **settings)
  assert small_runs.lines(tmp_path / "part" / "proxy")[-1]["epoch"] == EPOCHS
  for name in names:
    np.testing.assert_array_equal(found[name], want[name])
    np.testing.assert_allclose(found[name], scored[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "option"), [("top", {"column": "grand"}), ("central", {}), ("strata", {})])
def test_a_run_keeps_the_subset_of_a_score_file(name, option, scored, tmp_path):
  folder, columns, _ = scored
  changes = {f"selector__{key}": value for key, value in option.items()}
  made = _config(name, scores__path=str(folder / "scores.npz"), **changes)
  summary, state = small_runs.train(made, tmp_path)
  assert summary["realised_keep_fraction"] == 432 / 1442
  if name == "top":
    np.testing.assert_array_equal(np.flatnonzero(state.usage.visits), np.sort(np.argsort(columns["grand"])[-432:]))


@pytest.mark.parametrize("name", ["rho_loss", "dual"])
def test_methods_with_columns_of_their_own_run_from_a_config(name, scored, tmp_path):
  made = _config(name, scores__path=str(scored[0] / "scores.npz"), epochs=1)
  summary, _ = small_runs.train(made, tmp_path)
  assert 0 < summary["realised_keep_fraction"] < 0.4


def test_factor_scores_are_columns_too(tmp_path):
  with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes a count of steps with floats
    made = digits.get_config("size=smoke,selector=top,features=pixels")
    made.cache_dir, made.factors.epochs, made.epochs = str(tmp_path / "cache"), 1, 1
    made.selector.column = "rarity"
    summary, _ = small_runs.train(made, tmp_path / "run")
  assert summary["realised_keep_fraction"] == 432 / 1442


def test_a_score_file_comes_back_as_it_was_written(scored):
  folder, columns, _ = scored
  read, about = score_file.read(folder / "scores.npz")
  for name, column in columns.items():
    np.testing.assert_array_equal(read[name], column)
  assert about["key"] == score_file.key_of(_source().fingerprint, {"seed": 0})
  assert about["key"] != score_file.key_of(_source().fingerprint, {"seed": 1})
  again = folder / "again.npz"
  score_file.write(again, columns, _source().fingerprint, {"seed": 0})
  assert again.read_bytes() == (folder / "scores.npz").read_bytes()


OWN = """
from dynsel_jax.selectors import static

def easiest(table, epochs):
  el2n = static.column_of(table, "el2n", "easiest: column")
  return static.fixed_subset(lambda key: el2n < 0.5)
"""


def test_a_users_own_selector_reads_the_columns_of_a_score_file(tmp_path, monkeypatch):
  (tmp_path / "own_easiest.py").write_text(OWN)
  monkeypatch.syspath_prepend(tmp_path)
  column = (np.arange(1442) % 3).astype(np.float32)
  score_file.write(tmp_path / "scores.npz", {"el2n": column}, data.load("digits").fingerprint, {})
  made = small_runs.config("own_easiest:easiest", scores__path=str(tmp_path / "scores.npz"), epochs=1)
  small_runs.train(made, tmp_path / "run")
  with np.load(tmp_path / "run" / "usage.npz") as usage:
    np.testing.assert_array_equal(usage["visits"] > 0, column == 0)


def test_wrong_files_are_named(scored, tmp_path):
  fingerprint, column = _source().fingerprint, np.ones(1442, np.float32)
  (tmp_path / "text.npz").write_text("no scores")
  np.savez(tmp_path / "other.npz", el2n=column)
  np.save(tmp_path / "array.npy", column)
  whole = (scored[0] / "scores.npz").read_bytes()
  (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
  score_file.write(tmp_path / "short.npz", {"el2n": column[:-1]}, fingerprint, {})
  score_file.write(tmp_path / "noise.npz", {"el2n": column}, "0" * 64, {})
  score_file.write(tmp_path / "aum.npz", {"aum": column}, fingerprint, {})
  for name, line in {
    "none.npz": "none.npz' is not a file",
    "text.npz": "is not a readable .npz or .npy file of arrays: it begins as neither does",
    "other.npz": "is not a score file; make one with experiments.score_dataset",
    "array.npy": "is not a score file; make one with experiments.score_dataset",
    "cut.npz": "is not a readable .npz or .npy file of arrays: ",
    "short.npz": "column 'el2n' has shape (1441,), not one value for each of 1442 samples",
    "noise.npz": "belongs to other data: fingerprint 000000000000 there",
    "aum.npz": "selector.column='el2n' is not a column of the table; it has: aum",
    "": "selector.column='el2n' is not a column of the table; it has: none",
  }.items():
    with pytest.raises(options.UserError) as error:
      small_runs.train(_config("top", scores__path=str(tmp_path / name) if name else ""), tmp_path / "run")
    assert line in str(error.value)
    assert "\n" not in str(error.value)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("scores", "window", "line"),
  [
    (("el2m",), 3, "scores='el2m' is not known"),
    ((), 3, "scores= is empty; known: aum, "),
    (("tdds",), 2, "window=2"),
    (("dual",), 6, "epochs=5"),
  ],
)
def test_wrong_settings_are_named(scores, window, line, tmp_path):
  with pytest.raises(options.UserError, match=line):
    proxy_scores.score(_config(), tmp_path / "run", scores, window=window)
  assert not (tmp_path / "run").exists()


def test_what_is_wrong_is_said_before_the_data_are_read(tmp_path, monkeypatch):
  monkeypatch.setattr(data, "prepare", None)
  for scores, window, stream, line in (
    ([], 3, False, "scores= is empty"),
    (["el2m"], 3, False, "scores='el2m' is not known"),
    (["tdds"], 2, False, "window=2"),
    (["el2n"], 3, True, "dataset.stream=True"),
  ):
    made = _config()
    made.dataset.stream = stream
    monkeypatch.setattr(score_dataset, "_SCORES", SimpleNamespace(value=scores))
    monkeypatch.setattr(score_dataset, "_WINDOW", SimpleNamespace(value=window))
    with pytest.raises(options.UserError, match=line):
      score_dataset.main(made, str(tmp_path))


def test_a_proxy_run_has_the_epochs_of_its_config():
  proxy = plain_config(_config(match_steps=True), "full")
  assert not proxy.match_steps and setup.matched(proxy).epochs == EPOCHS


def test_the_command_leaves_a_file(tmp_path):
  arguments = ["--config=configs/digits.py:size=smoke", "--scores=el2n,moderate", f"--workdir={tmp_path}"]
  command = [sys.executable, "-m", "experiments.score_dataset", *arguments]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.endswith("scores.npz: el2n, moderate of 1,442 samples\n")
  assert set(score_file.read(tmp_path / "scores.npz")[0]) == {"el2n", "moderate"}
