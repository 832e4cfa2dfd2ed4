"""Faults of a run's folder: the bits of the undisturbed run and a warning, or one line and nothing lost.

`python -m experiments.faults campaign` makes hundreds at random, see docs/faults.md; these are the ones to keep.
"""

import errno
import json
import logging
import re
import shutil

import jax
import numpy as np
import pytest

from dynsel_jax import options
from dynsel_jax.runs import files, interruption, metrics_file
from dynsel_jax.runs.workdir import Workdir
from dynsel_jax.training import checkpoint, trainer
from experiments.faults import commands
from tests.support import small_runs

EPOCHS = 3


def _config(selector="infobatch", **changes):
  return small_runs.config(selector, epochs=EPOCHS, checkpoint_every_steps=4, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """An undisturbed run."""
  folder = tmp_path_factory.mktemp("whole")
  small_runs.train(_config(), folder / "run")
  return folder / "run"


@pytest.fixture
def run(whole, tmp_path):
  """A copy of it from which the last steps are missing."""
  folder = tmp_path / "run"
  shutil.copytree(whole, folder)
  (folder / "summary.json").unlink()
  shutil.rmtree(_steps(folder)[-1])
  return folder


def _steps(folder):
  return sorted((path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()), key=lambda p: int(p.name))


@pytest.fixture
def said(caplog):
  """Returns the warnings so far."""
  with caplog.at_level(logging.WARNING, logger="absl"):
    yield lambda: [record.getMessage() for record in caplog.records if record.name == "absl"]


def _state_file(step):
  return max((path for path in step.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def _flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 4
  path.write_bytes(content)


DAMAGES = {
  "flipped": _flip,
  "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
  "emptied": lambda path: path.write_bytes(b""),
  "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_checkpoint_costs_a_warning_that_names_it(whole, run, damage, said):
  last = _steps(whole)[-2:]  # the run has one checkpoint left: give it the other back
  shutil.copytree(last[-1], run / "checkpoints" / last[-1].name)
  damage(_state_file(run / "checkpoints" / last[-1].name))
  small_runs.train(_config(), run)
  assert commands.differences(run, whole) == []
  (warning,) = said()
  assert f"the checkpoint of step {last[-1].name} is damaged" in warning
  assert (run / "damaged_checkpoints" / last[-1].name).is_dir() and str(run / "damaged_checkpoints") in warning


def test_checkpoints_that_are_all_damaged_are_kept_aside_and_the_next_command_begins_anew(whole, run):
  for step in _steps(run):
    _flip(step / "seal" / "metadata")
  with pytest.raises(options.UserError, match="all checkpoints in .* are damaged .* begins the run anew"):
    small_runs.train(_config(), run)
  assert not _steps(run) and list((run / "damaged_checkpoints").iterdir())
  small_runs.train(_config(), run)
  assert commands.differences(run, whole) == []


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_stray_folder_is_no_checkpoint(whole, run, content, said):
  (run / "checkpoints" / "999").mkdir()
  if content:
    (run / "checkpoints" / "999" / "_CHECKPOINT_METADATA").write_text(content)
  small_runs.train(_config(), run)
  assert commands.differences(run, whole) == []
  assert sum("the checkpoint of step 999 is damaged" in line for line in said()) == 1  # Orbax may warn too


def test_without_its_config_a_run_still_refuses_another_seed_and_takes_its_own(whole, run):
  (run / "config.json").unlink()
  before = sorted(path.name for path in run.rglob("*"))
  with pytest.raises(options.UserError, match=re.escape("belongs to a different run: seed (0 there, 1 here)")):
    small_runs.train(_config(seed=1), run)
  assert before == sorted(path.name for path in run.rglob("*"))
  small_runs.train(_config(), run)
  assert commands.differences(run, whole) == []  # with a config.json of the same content


CONFIGS = {
  "torn": lambda text: text[: len(text) // 2],
  "empty": lambda text: "",
  "no object": lambda text: "[]",
  "another seed": lambda text: text.replace('"seed": 0', '"seed": 5'),
  "another metric": lambda text: text.replace('"larger_is_better": true', '"larger_is_better": false'),
  "other seconds": lambda text: text.replace('"total"', '"totel"'),
  "other arrays": lambda text: text.replace('"arrays"', '"brrays"'),
}


@pytest.mark.parametrize("damage", CONFIGS.values(), ids=CONFIGS)
def test_a_damaged_config_is_written_again_as_the_checkpoints_have_it(whole, run, damage, said):
  text = (run / "config.json").read_text()
  assert damage(text) != text
  (run / "config.json").write_text(damage(text))
  small_runs.train(_config(), run)
  assert commands.differences(run, whole) == []
  assert said() == [f"{run}/config.json is damaged and is written again"]


@pytest.mark.parametrize("damage", ["torn", "another seed"])
def test_a_damaged_config_without_checkpoints_is_refused_until_it_is_deleted(whole, run, damage):
  shutil.rmtree(run / "checkpoints")
  text = (run / "config.json").read_text()
  (run / "config.json").write_text(CONFIGS[damage](text))
  with pytest.raises(options.UserError, match="contains a config.json that is damaged, .*; if .*, delete the file"):
    small_runs.train(_config(), run)
  (run / "config.json").unlink()
  small_runs.train(_config(), run)
  assert commands.differences(run, whole) == []


METRICS = {
  "lost": (None, "1-2"),
  "emptied": (lambda raw: b"", "1-2"),
  "torn": (lambda raw: raw[: raw.index(b"\n") + 40], "2"),
  "not UTF-8": (lambda raw: b"\xff\xfe" + raw, "1"),
  "changed": (lambda raw: raw.replace(b'"epoch": 2', b'"epoch": 2, "more": 1'), "2"),
  "without a line": (lambda raw: raw[raw.index(b"\n") + 1 :], "1"),
}


@pytest.mark.parametrize(("damage", "epochs"), METRICS.values(), ids=METRICS)
def test_lines_of_metrics_that_are_lost_come_back_from_the_checkpoint(whole, run, damage, epochs, said):
  path = run / "metrics.jsonl"
  if damage is None:
    path.unlink()
  else:
    path.write_bytes(damage(path.read_bytes()))
  small_runs.train(_config(), run)
  assert commands.differences(run, whole) == []
  assert said() == [f"{path} lost the lines of epochs {epochs}; they are written again from the checkpoint"]


def test_lines_that_no_checkpoint_holds_are_named(tmp_path, said):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"epoch": 2}\ntorn\n{"epoch": 5}\n')
  metrics_file.restore(path, 5, [])
  assert said() == [f"{path} lost the lines of epochs 1, 3-4, which cannot be restored"]
  assert path.read_text() == '{"epoch": 2}\n{"epoch": 5}\n'


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["usage.npz", "metrics.jsonl", "summary.json"])
def test_files_of_a_finished_run_are_written_again(whole, name, damage, tmp_path, said):
  run = tmp_path / "run"
  shutil.copytree(whole, run)
  damage(run / name)
  small_runs.train(_config(), run)
  assert commands.differences(run, whole) == []
  assert name in " ".join(said()) or damage is DAMAGES["deleted"]


@pytest.fixture(scope="module")
def factors(tmp_path_factory):
  """An undisturbed run that reads columns and follows factors."""
  folder = tmp_path_factory.mktemp("factors")
  made = _config("rrd", cache_dir=str(folder / "cache"), features__components=8, factors__epochs=2, factors__k=4)
  with jax.numpy_dtype_promotion("standard"):  # optax's Adam mixes a count of steps with floats
    small_runs.train(made, folder / "run")
  return made, folder / "run"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["columns.npz", "firings.npz"])
def test_columns_and_firings_are_made_again_with_the_same_bits(factors, name, damage, tmp_path, said):
  made, finished = factors
  run = tmp_path / "run"
  shutil.copytree(finished, run)
  shutil.rmtree(_steps(run)[-1])
  (run / "summary.json").unlink()
  damage(run / name)
  with jax.numpy_dtype_promotion("standard"):
    small_runs.train(made, run)
  assert commands.differences(run, finished) == []
  line, *_ = said()  # after it, that three epochs are few for a curriculum
  assert line == f"{run}/{name} is lost or damaged and is written again"


def test_arrays_that_come_out_otherwise_are_refused(whole, tmp_path):
  shutil.copytree(whole, tmp_path / "run")
  folder = Workdir(str(tmp_path / "run"))
  held = files.read_json(tmp_path / "run" / "config.json")
  files.write_json(tmp_path / "run" / "config.json", {**held, "arrays": {"firings": "0" * 64}})
  with pytest.raises(options.UserError, match="firings.npz is lost or damaged and was made again with another content"):
    folder.begin({}, {"firings": {"latents": np.zeros(3)}})


def _full(*arguments):
  raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
  ("owner", "place"), [(Workdir, "write_epoch"), (checkpoint.Checkpoints, "save"), (files.os, "fsync")]
)
def test_a_full_disk_ends_with_one_line_and_the_same_command_goes_on(whole, run, owner, place, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(owner, place, _full)
    with pytest.raises(
      interruption.RunFailedError, match="no space left for workdir=.*; .*continues the run"
    ) as failed:
      small_runs.train(_config(), run)
  assert "\n" not in str(failed.value)
  small_runs.train(_config(), run)
  assert commands.differences(run, whole) == []


def test_a_folder_that_is_deleted_under_a_run_ends_it_with_one_line(whole, run, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(trainer.Trainer, "refresh_scores", lambda self: shutil.rmtree(run, ignore_errors=True))
    with pytest.raises(interruption.RunFailedError, match="was deleted or moved while the run was writing it"):
      small_runs.train(_config(), run)
  shutil.rmtree(run, ignore_errors=True)
  small_runs.train(_config(), run)
  assert commands.differences(run, whole) == []


def test_a_signal_while_a_checkpoint_is_read_leaves_it_where_it_is(whole, run, monkeypatch):
  def interrupted(*arguments):
    raise interruption.Interrupted("stopped by SIGTERM before the first step")

  steps = _steps(run)
  with monkeypatch.context() as patch:
    patch.setattr(checkpoint.Checkpoints, "_read", interrupted)
    with pytest.raises(interruption.Interrupted):
      small_runs.train(_config(), run)
  assert _steps(run) == steps and not (run / "damaged_checkpoints").exists()


def test_checkpoints_that_vanish_from_a_finished_run_are_noted(whole, tmp_path, said):
  run = tmp_path / "run"
  shutil.copytree(whole, run)
  shutil.rmtree(run / "checkpoints")
  small_runs.train(_config(), run)
  assert commands.differences(run, whole) == []
  assert said() == [f"{run} was finished, and its last checkpoint is lost: it goes on after epoch 0"]


def test_what_a_person_writes_into_a_file_is_read_as_one_without_a_digest(tmp_path):
  path = tmp_path / "summary.json"
  files.write_json(path, {"a": 1.5, "b": [float("nan")], "c": {"d": float("inf")}})
  held = json.loads(path.read_text())
  assert files.read_json(path) == {"a": 1.5, "b": [None], "c": {"d": None}}
  held.pop(files.DIGEST)
  path.write_text(json.dumps(held | {"a": 2}))
  assert files.read_json(path)["a"] == 2
  path.write_text(json.dumps(held | {"a": 2, files.DIGEST: "0"}))
  with pytest.raises(ValueError, match="does not match its digest"):
    files.read_json(path)
