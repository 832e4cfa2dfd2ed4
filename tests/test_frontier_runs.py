"""The runs of a frontier: held-out sets, the sweep, tuned arms, and programs that runs share."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.sweeps import base, language_models
from configs.sweeps import frontier as frontier_sweep
from dynsel_jax import data, offline, options
from dynsel_jax.training import setup
from dynsel_jax.types import Selection
from experiments import frontier, held_out, sweep
from experiments.sweeps import arms, one_program, run_cell
from tests.support import ROOT, run_folders, small_runs

LABELS = np.random.default_rng(0).integers(0, 5, 1000).astype(np.int32)


def test_the_last_tenth_is_held_out_and_nothing_else_is_touched():
  np.testing.assert_array_equal(held_out.training_rows(LABELS), np.arange(900))
  whole, source = data.load("digits"), held_out.digits()
  count = len(whole.train["labels"]) // 10
  np.testing.assert_array_equal(source.train["inputs"], whole.train["inputs"][:-count])
  np.testing.assert_array_equal(source.validation["labels"], whole.train["labels"][-count:])
  np.testing.assert_array_equal(source.test["inputs"], whole.test["inputs"])


def test_imbalance_makes_classes_rarer_one_by_one():
  rows = held_out.training_rows(LABELS, imbalance=16.0)
  whole, kept = np.bincount(LABELS[:900]), np.bincount(LABELS[rows])
  np.testing.assert_allclose(kept / whole, 16.0 ** -(np.arange(5) / 4), atol=0.01)
  assert np.all(np.diff(rows) > 0) and rows.max() < 900


def test_duplicates_are_copies_of_the_first_hundredth_in_place_of_others():
  rows = held_out.training_rows(LABELS, duplicates=0.5)
  counts = np.bincount(rows, minlength=900)
  assert len(rows) == 900 and np.all(counts[450:] == 0)
  assert np.all(counts[:9] == 51) and np.all(counts[9:450] == 1)


@pytest.mark.parametrize(("name", "value"), [("imbalance", 0.5), ("duplicates", 1.0), ("duplicates", -0.1)])
def test_a_fault_out_of_range_is_refused(name, value):
  with pytest.raises(options.UserError, match=f"dataset.{name}="):
    held_out.training_rows(LABELS, **{name: value})


def test_decoded_arrays_are_the_same_set_as_the_prepared_one(tmp_path):
  whole = data.load("digits")
  splits = {"train": whole.train, "test": whole.test}
  arrays = {f"{split}_{name}": array for split, arrays in splits.items() for name, array in arrays.items()}
  np.savez(tmp_path / "digits.npz", **arrays)
  assert held_out.digits(data_dir=str(tmp_path)).fingerprint == held_out.digits().fingerprint


def test_the_sweep_gives_each_method_two_budgets_and_everything_all_rates():
  found = arms.arms(base.cells(frontier_sweep.get_sweep("methods=random+es+eswp,lengths=3+12,rates=0.1+0.2,seeds=2")))
  assert [arm.name for arm in found] == [
    "full_epochs12",
    "full_epochs3",
    "random_keep0.5",
    "random_keep0.3",
    "es_epochs12",
    "es_epochs6",
    "eswp_epochs12",
    "eswp_epochs6",
  ]
  assert all(list(arm.cells) == [0.1, 0.2] and arm.seeds == [0, 1] for arm in found)
  assert len({cell.name for arm in found for of_rate in arm.cells.values() for cell in of_rate.values()}) == 32
  epochs = [cell.fields["epochs"] for arm in found for cell in arm.cells[0.1].values()]
  assert epochs == [12] * 2 + [3] * 2 + [12] * 6 + [6] * 2 + [12] * 2 + [6] * 2
  assert all(sweep.config_of(cell) for cell in found[2].cells[0.1].values())


def test_the_sweep_of_language_models_gives_the_wrapped_method_the_budget_of_the_plain_one():
  arguments = "train=a.jsonl,test=b.jsonl,lengths=1+4,rates=1e-3,methods=random+es+rrd,seeds=1"
  cells = base.cells(language_models.get_sweep(arguments))
  assert [cell.row.rpartition("-learning")[0] for cell in cells] == [
    "full_epochs4",
    "full_epochs1",
    "random_keep0.5",
    "es_epochs4",
    "rrd_keep0.5",
    "pods_random_keep0.5",
  ]
  configs = [sweep.config_of(cell) for cell in cells]
  assert [config.epochs for config in configs] == [4, 1, 4, 4, 4, 4]
  assert list(configs[-1].wrappers.names) == ["pods"]
  assert configs[-1].selector.to_dict() == configs[2].selector.to_dict()
  assert {config.dataset.train for config in configs} == {"a.jsonl"}
  tuned = language_models.get_sweep("config=configs/sft.py,methods=es,wrapped=ranked_by_class:es,seeds=1")
  assert [sweep.config_of(cell).model.lora_rank for cell in base.cells(tuned)] == [8] * 12


def test_an_argument_that_is_no_number_is_refused():
  with pytest.raises(options.UserError, match="rates=fast"):
    frontier_sweep.get_sweep("rates=fast")


def _arm(rates, seeds):
  cells = {rate: {s: base.Cell(f"full-lr{rate}", f"seed{s}", "", {}) for s in seeds} for rate in rates}
  return arms.Arm("full", cells)


def _finish(folder, seed, validation):
  run_folders.write(folder, "full", seed)
  lines = folder / "metrics.jsonl"
  *others, last = lines.read_text().splitlines()
  lines.write_text("\n".join([*others, json.dumps(json.loads(last) | {"validation_accuracy": validation})]) + "\n")


def test_a_rate_is_chosen_on_the_tuning_seeds_and_the_others_run_at_it_alone(tmp_path, monkeypatch):
  arm, made = _arm([0.1, 0.2, 0.4], range(4)), []

  def attempt(task, **hooks):
    rate, seed = task.name.removeprefix("full-lr").split("-seed")
    _finish(task.folder, int(seed), {"0.1": 0.7, "0.2": 0.9, "0.4": 0.8}[rate] + 0.01 * int(seed))
    made.append(task.name)
    return run_cell.Outcome("done", "", seconds=1.0)

  monkeypatch.setattr(run_cell, "attempt", attempt)
  monkeypatch.setattr(run_cell, "finished_summary", lambda task: run_cell.finished_run(task.folder))
  assert arms.tuned_rate(arm, tmp_path, [0, 1]) is None
  arms.make(arm, tmp_path, 2, lambda cell: None, lambda cell, outcome: None, {})
  tuning = [f"full-lr{rate}-seed{seed}" for seed in (0, 1) for rate in (0.1, 0.2, 0.4)]
  assert made == [*tuning, "full-lr0.2-seed2", "full-lr0.2-seed3"]
  arms.make(arm, tmp_path, 2, lambda cell: None, lambda cell, outcome: None, {})
  assert len(made) == 8  # all are finished


def test_an_arm_with_a_failed_run_is_not_tuned(tmp_path, monkeypatch):
  arm, seen = _arm([0.1, 0.2], range(2)), []
  monkeypatch.setattr(run_cell, "finished_summary", lambda task: None)
  monkeypatch.setattr(run_cell, "attempt", lambda task, **hooks: run_cell.Outcome("failed", "no luck"))
  arms.make(arm, tmp_path, 1, lambda cell: None, lambda cell, outcome: seen.append((cell.name, outcome.text)), {})
  assert seen == [("full-lr0.1-seed0", "no luck"), ("full-lr0.2-seed0", "no luck")]


def test_a_folder_of_another_config_does_not_pass_for_a_finished_run(tmp_path, monkeypatch):
  [arm] = arms.arms(base.cells(frontier_sweep.get_sweep("set=digits,lengths=2,rates=0.1,methods=,seeds=1")))
  [cell] = arm.cells[0.1].values()
  config = sweep.config_of(cell).copy_and_resolve_references().unlock()
  config.batch_size = 32
  (tmp_path / cell.name).mkdir()
  (tmp_path / cell.name / "config.json").write_text(json.dumps({"config": config.to_dict()}))
  monkeypatch.setattr(run_cell, "attempt", lambda task, **hooks: pytest.fail("it was begun"))
  seen = []
  arms.make(arm, tmp_path, 1, sweep.config_of, lambda cell, outcome: seen.append(outcome), {})
  assert [outcome.state for outcome in seen] == ["failed"] and "batch_size (32 there, 64 here)" in seen[0].text


SWEEP = """
from configs.sweeps import base

def get_sweep(arguments):
  methods = [base.Point(name, {"selector": name}, {}) for name in ("full", "random")]
  axes = [methods, base.field("learning_rate", [0.1]), base.seeds(1)]
  return base.Sweep(f"configs/digits.py:size=smoke,dataset={arguments}", axes, {})
"""


def test_a_failed_run_leaves_its_error_and_is_counted(tmp_path, capsys):
  (tmp_path / "one.py").write_text(SWEEP)
  argument = f"{tmp_path / 'one.py'}:{__name__}:_unreadable"
  assert frontier.make_all(argument, str(tmp_path / "out"), 1) == 2
  assert capsys.readouterr().err.count("failed, no such disk") == 2
  (error,) = (tmp_path / "out").glob("full-*/error.txt")
  assert "Traceback" in error.read_text() and "no such disk" in error.read_text()


def _unreadable():
  raise options.UserError("no such disk")


def test_a_process_that_dies_ends_the_sweep_with_one_line(tmp_path):
  (tmp_path / "one.py").write_text(SWEEP)
  (tmp_path / "my_lab_dying.py").write_text(
    "import os\nimport signal\n\ndef load():\n  os.kill(os.getpid(), signal.SIGKILL)\n"
  )
  flags = [f"--sweep={tmp_path / 'one.py'}:my_lab_dying:load", f"--workdir={tmp_path / 'out'}"]
  command = [sys.executable, "-m", "experiments.frontier", *flags, "--tuning_seeds=1", "--processes=2"]
  environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
  done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
  assert done.returncode == 1
  (only,) = done.stderr.strip().splitlines()
  assert only.startswith("error: ") and "processes died" in only and "the same command" in only


def test_a_rated_selector_scales_every_epoch_and_hides_its_rate_from_the_method():
  import dynsel_jax

  table = dynsel_jax.SampleTable(8, None, 0, {})
  inner = dynsel_jax.create("random", table, 2, keep_fraction=0.5)
  outer = one_program.rated(inner)
  held = outer.init(jax.random.key(0))
  held = (np.float32(0.25), held[1])
  selection, _ = outer.select(jax.random.key(1), held, np.int32(0))
  plain, _ = inner.select(jax.random.clone(jax.random.key(1)), held[1], np.int32(0))
  assert isinstance(selection, Selection)
  np.testing.assert_array_equal(selection.keep, plain.keep)
  assert selection.learning_rate_multiplier == 0.25
  assert outer.thin is None and outer.refresh is None


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
  """Two runs of different seed and rate on the same programs, and the programs that the second one compiled."""
  root, compiled = tmp_path_factory.mktemp("shared"), []
  build = one_program.build_once()
  results = []
  for seed, rate in ((0, 0.2), (1, 0.1)):
    made = small_runs.config(seed=seed, learning_rate=rate, checkpoint_every_steps=0)
    programs = []

    def noting(parts, table, programs=programs):
      run = build(parts, table)
      programs.append(run.programs)
      return run

    result = offline.train_and_evaluate(made, root / str(seed), small_runs.devices(1), build=noting)
    results.append(result)
    compiled.append(programs[0])
  return results, compiled


def test_runs_that_differ_by_seed_and_rate_share_their_programs(shared):
  _, (first, second) = shared
  assert first is second


def test_a_run_on_shared_programs_is_the_run_of_its_config(shared, tmp_path):
  (_, second), _ = shared
  made = small_runs.config(seed=1, learning_rate=0.1, checkpoint_every_steps=0)
  alone = offline.train_and_evaluate(made, tmp_path / "alone", small_runs.devices(1))
  for name in ("final_metric", "backward_visits", "steps"):
    assert second.summary[name] == pytest.approx(alone.summary[name], abs=0.01)
  for ours, theirs in zip(
    jax.tree.leaves(second.state.train.params), jax.tree.leaves(alone.state.train.params), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
  np.testing.assert_array_equal(second.state.usage.visits, alone.state.usage.visits)


def test_a_model_that_starts_from_a_run_is_not_shared(tmp_path, monkeypatch):
  (tmp_path / "checkpoints").mkdir()
  made = small_runs.config(model="vit_micro", model__patch=2, model__weights=str(tmp_path))
  monkeypatch.setattr(setup.warm_start, "first_params", lambda module, params: jax.tree.map(jnp.ones_like, params))
  source = data.prepare(made.dataset.to_dict())
  parts = setup.parts(made, source, small_runs.devices(1))
  run = one_program.build_once()(parts, setup.table_of(source))
  assert run.recipe.schedule is parts.schedule
  assert all(np.all(np.asarray(leaf) == 1) for leaf in jax.tree.leaves(run.initial.train.params))


def test_a_schedule_that_ends_at_a_rate_of_its_own_is_not_shared():
  build = one_program.build_once()
  source = data.prepare(small_runs.config().dataset.to_dict())
  parts = setup.parts(small_runs.config(schedule__end=0.01), source, small_runs.devices(1))
  one, other = (build(parts, setup.table_of(source)) for _ in range(2))
  assert one.programs is not other.programs and one.recipe.schedule is parts.schedule
