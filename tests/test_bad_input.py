"""Bad input: one clear line that names the field and the value, an exit status, and nothing half-written."""

import os
import subprocess
import sys

import pytest
import runs
from conftest import ROOT

from dynsel_jax import options


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"selector__keep_fraction": 0.0}, "keep_fraction=0.0 must lie in (0, 1]"),
    ({"selector__keep_fraction": 1.5}, "keep_fraction=1.5 must lie in (0, 1]"),
    ({"batch_size": 0}, "batch_size=0 must be a multiple of the 1 device(s)"),
    ({"batch_size": 600}, "batch_size=600 is larger than a selection of 432 samples (1442 * keep_fraction=0.3)"),
    ({"eval_batch_size": 0}, "eval_batch_size=0 must be"),
    ({"epochs": 0}, "epochs=0 must be greater than 0"),
    ({"dataset__name": "no_such_set"}, "no_such_set"),
    ({"dataset__augmentations": ("crop", "turn")}, "turn"),
    ({"model__dtype": "float16"}, "model.dtype='float16' is not known; known: bfloat16, float32"),
    ({"model__name": "mlpp"}, "known: mlp"),
    ({"selector__name": "randon"}, "random_static"),
    ({"selector__name": "no.such.module:thing"}, "no.such.module"),
    ({"optimizer__momentum": 0.5, "optimizer__name": "adam"}, "optimizer 'adam' has no option 'momentum'"),
    ({"learning_rate": -0.1}, "learning_rate=-0.1 must be greater than 0"),
    ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
    ({"weighting": "mean"}, "weighting='mean' is not known; known: mean_one, sum_to_n"),
    ({"checkpoint_every_steps": -1}, "checkpoint_every_steps=-1"),
  ],
)
def test_one_line_names_the_field_and_the_value(changes, line, tmp_path):
  workdir = tmp_path / "run"
  with pytest.raises(options.UserError) as error:
    runs.train(runs.config(**changes), workdir)
  assert line in str(error.value)
  assert "\n" not in str(error.value)
  assert not workdir.exists()


def test_a_batch_that_the_devices_cannot_share(tmp_path):
  with pytest.raises(options.UserError, match=r"batch_size=126 must be a multiple of the 4 device\(s\)"):
    runs.train(runs.config(batch_size=126, eval_batch_size=356), tmp_path / "run", 4)


def test_a_workdir_below_a_file(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(options.UserError, match="file is a file, not a folder"):
    runs.train(runs.config(), tmp_path / "file" / "run")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_workdir_without_permission(tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(options.UserError, match="cannot be written"):
    runs.train(runs.config(), tmp_path / "run")


@pytest.mark.parametrize(
  ("arguments", "line"),
  [
    (["--config=configs/digits.py:selector=randon"], "randon"),
    (["--config=configs/digits.py", "--config.selector.keep_fractoin=0.5"], "keep_fractoin"),
    (["--config=configs/none.py"], "configs/none.py"),
    ([], "--config"),
  ],
)
def test_the_command_ends_with_one_line_and_status_2(arguments, line, tmp_path):
  done = subprocess.run(
    [sys.executable, "-m", "experiments.train", *arguments, f"--workdir={tmp_path}/run"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  (only,) = done.stderr.strip().splitlines()
  assert only.startswith("error: ")
  assert line in only
  assert not (tmp_path / "run").exists()
