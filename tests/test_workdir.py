"""Files of a run: torn lines, refused folders, and what is never half-written."""

import errno
import json

import numpy as np
import pytest

from dynsel_jax import options
from dynsel_jax.metric import ACCURACY, Metric
from dynsel_jax.runs import console, metrics_file, timing, workdir

MADE = {"config": {"epochs": 2, "model": {"name": "mlp", "hidden": (8, 8)}}, "data_fingerprint": "ab"}


EPOCH = {"epoch": 1, "train_loss": 0.5, "metric": 0.25, "realised_keep_fraction": 0.3}


def _metrics(epoch):
  return {"epoch": epoch, "train_loss": 0.5, "selector": {"alpha": 0.25}, "kept_by_class": [1, 2]}


def test_rewind_drops_later_and_torn_lines(tmp_path):
  folder = workdir.Workdir(str(tmp_path))
  folder.begin(MADE, {})
  folder.rewind(0)
  for epoch in (1, 2, 3):
    folder.write_epoch(_metrics(epoch), np.ones(4, np.int32))
  path = tmp_path / "metrics.jsonl"
  path.write_text(path.read_text() + '{"epoch": 4, "train')
  folder.close()
  folder.rewind(2)
  assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]
  folder.write_epoch(_metrics(3), np.ones(4, np.int32))
  folder.close()
  assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_the_same_config_is_the_same_run_after_a_round_trip_through_json(tmp_path):
  folder = workdir.Workdir(str(tmp_path))
  folder.check_same_run(MADE)  # nothing there yet
  folder.begin(MADE, {})
  folder.check_same_run(MADE)


@pytest.mark.parametrize(
  ("made", "line"),
  [
    ({**MADE, "data_fingerprint": "cd"}, "data_fingerprint ('ab' there, 'cd' here)"),
    ({**MADE, "config": {**MADE["config"], "epochs": 3}}, "epochs (2 there, 3 here)"),
    ({**MADE, "config": {**MADE["config"], "new": 1}}, "new ('absent' there, 1 here)"),
    ({**MADE, "config": {"epochs": 2, "model": {"name": "mlp", "hidden": (8, 9)}}}, "model.hidden ([8, 8] there"),
  ],
)
def test_another_config_or_other_data_is_refused(tmp_path, made, line):
  folder = workdir.Workdir(str(tmp_path))
  folder.begin(MADE, {})
  with pytest.raises(options.UserError) as error:
    folder.check_same_run(made)
  assert line in str(error.value)


def test_nothing_is_made_by_asking_whether_a_folder_can_be_written(tmp_path):
  workdir.check_writable(str(tmp_path / "a" / "b"))
  assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
  ("name", "kind"),
  [("config.json", "file"), ("tokenizer.json", "file"), ("noise.npz", "file"), ("checkpoints", "folder")],
)
def test_a_folder_where_a_run_keeps_a_file_is_refused_and_the_other_way_round(tmp_path, name, kind):
  (tmp_path / name).mkdir() if kind == "file" else (tmp_path / name).touch()
  with pytest.raises(options.UserError, match=f"{name} is not a {kind}, .*: move it away"):
    workdir.check_writable(str(tmp_path))


def test_a_summary_that_cannot_reach_the_disk_leaves_the_old_one(tmp_path, monkeypatch):
  folder = workdir.Workdir(str(tmp_path))
  folder.write_summary({"steps": 1})

  def full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(workdir.os, "fsync", full)
  with pytest.raises(OSError, match="No space"):
    folder.write_summary({"steps": 2})
  assert folder.read_summary() == {"steps": 1}


def test_timers_add_to_the_seconds_of_earlier_parts():
  timers = timing.Timers()
  with timers.phase("training"):
    pass
  timers.add({**dict.fromkeys(timing.PHASES, 0.0), "training": 100.0, "total": 200.0})
  seconds = timers.seconds()
  assert 100 <= seconds["training"] < 101
  assert 200 <= seconds["total"] < 201
  assert seconds["evaluating"] == 0
  assert set(seconds) == {*timing.PHASES, "total"}


def test_a_plain_line_an_epoch_where_there_is_no_terminal(capsys):
  shown = console.Console(ACCURACY, 2)
  shown.step(0.5, 1.0)
  shown.epoch(EPOCH)
  shown.close()
  assert capsys.readouterr().out.startswith("epoch 1/2  loss 0.5000  accuracy 25.00%  kept 30.0%  left 0:0")


def test_the_console_speaks_of_the_tasks_metric(capsys):
  shown = console.Console(Metric("mean_absolute_error", "mm", larger_is_better=False), 2)
  shown.epoch(EPOCH)
  shown.close()
  assert "  mean absolute error 0.2500 mm  " in capsys.readouterr().out


def test_a_bar_on_a_terminal(capsys, monkeypatch):
  monkeypatch.setattr("sys.stderr.isatty", lambda: True)
  shown = console.Console(ACCURACY, 4, done=1)
  shown.step(1.5, 0.75)
  shown.epoch({**EPOCH, "epoch": 2})
  shown.close()
  bar = capsys.readouterr().err.split("\r")[-1]
  assert "50%|" in bar
  assert "epoch 3/4 loss 0.5000 accuracy 25.00% kept 30.0%" in bar


@pytest.mark.parametrize("epochs", [0, 1, 63, 64, 65, 2000])
def test_lines_of_many_epochs_take_little_room_in_a_checkpoint(epochs):
  lines = [metrics_file.line({"epoch": epoch, "loss": 1 / (epoch + 1), "name": "ü"}) for epoch in range(epochs)]
  held = json.loads(json.dumps(metrics_file.packed(lines)))
  assert metrics_file.unpacked(held) == lines == metrics_file.unpacked({"lines": lines})
  assert len(json.dumps(held)) < len("".join(lines)) * (0.6 if epochs == 2000 else 2) + 100
