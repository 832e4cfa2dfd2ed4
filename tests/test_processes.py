"""Two processes of two CPU devices each, over JAX's distributed runtime: the run of one process with four devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import PIL.Image

from configs import digits, imagenet
from dynsel_jax import data
from dynsel_jax.runs import lock
from tests.support import ROOT
from tests.support.small_runs import lines, train

EPOCHS = 6
COUNTS = ("step", "size", "forward_visits", "backward_visits")
CONFIG = "configs/digits.py:size=smoke,selector=eswp"


def free_port():
  with socket.socket() as found:
    found.bind(("localhost", 0))
    return found.getsockname()[1]


DIGITS = (f"--config={CONFIG}", f"--config.epochs={EPOCHS}", "--config.batch_size=128")


def start(workdir, *flags, of_one=(), config=(*DIGITS, "--config.selector.anneal_first=0.2")):
  """Starts both processes; `of_one` are flags of the second alone."""
  environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "2"}
  shared = [sys.executable, "-m", "experiments.train", *config, f"--workdir={workdir}", *flags]
  shared += [f"--coordinator=localhost:{free_port()}", "--processes=2"]
  return [
    subprocess.Popen(
      [*shared, f"--process={number}", *(of_one if number else ())],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]


def ended(processes):
  """Waits; returns the exit statuses and what was written to (stdout, stderr)."""
  said = [process.communicate(timeout=240) for process in processes]
  return [process.returncode for process in processes], said


def wait_for(path, processes):
  deadline = time.monotonic() + 240
  while not path.exists() or not path.read_text():
    assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
    time.sleep(0.02)


def test_two_processes_stopped_and_continued_give_the_run_that_was_not_and_that_of_one_process(tmp_path):
  workdir = tmp_path / "stopped"
  processes = start(workdir)
  wait_for(workdir / "metrics.jsonl", processes)
  processes[1].send_signal(signal.SIGTERM)  # one is told, both save
  statuses, said = ended(processes)
  assert statuses == [0, 0]
  assert all("and saved" in errors for _, errors in said)
  assert len(lines(workdir)) < EPOCHS

  statuses, said = ended(start(workdir))
  assert statuses == [0, 0]
  assert ["test accuracy" in output for output, _ in said] == [True, False]  # one speaks
  assert len(json.loads((workdir / "summary.json").read_text())["resumed_from"]) == 1
  assert json.loads((workdir / "config.json").read_text())["device"]["count"] == 4

  assert ended(start(tmp_path / "whole"))[0] == [0, 0]
  assert lines(workdir) == lines(tmp_path / "whole")
  usage = np.load(workdir / "usage.npz")
  np.testing.assert_equal(dict(usage), dict(np.load(tmp_path / "whole" / "usage.npz")))

  # One process adds the devices' gradients up in another order.
  config = digits.get_config(CONFIG.partition(":")[2])
  config.update(epochs=EPOCHS, batch_size=128)
  config.selector.anneal_first = 0.2
  _, state = train(config, tmp_path / "one", num_devices=4)
  assert np.mean(usage["visits"] != state.usage.visits) < 0.01
  for line, other in zip(lines(workdir), lines(tmp_path / "one"), strict=True):
    assert [line[count] for count in COUNTS] == [other[count] for count in COUNTS]
    np.testing.assert_allclose(line["train_loss"], other["train_loss"], rtol=1e-3)


def test_two_processes_read_what_their_devices_train_on(tmp_path):
  folder, digits_set = tmp_path / "digits", data.load("digits")
  for split, dataset, size in (("train", digits_set.train, 300), ("test", digits_set.test, 70)):
    for position in range(size):
      path = folder / split / str(dataset["labels"][position]) / f"{position:04}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      PIL.Image.fromarray(dataset["inputs"][position, ..., 0]).save(path)
  for position in (3, 150, 299):
    (path,) = (folder / "train").rglob(f"{position:04}.png")
    path.write_bytes(b"no image")
  fields = {"dataset.data_dir": str(folder), "dataset.image_mode": "L", "dataset.image_size": 7, "dataset.resize": 8}
  fields |= {"batch_size": 64, "eval_batch_size": 32, "epochs": EPOCHS, "checkpoint_every_steps": 4}
  variants = "size=smoke,selector=infobatch,model=mlp"
  flags = [f"--config={ROOT}/configs/imagenet.py:{variants}", *(f"--config.{k}={v}" for k, v in fields.items())]

  workdir = tmp_path / "stopped"
  processes = start(workdir, config=flags)
  wait_for(workdir / "metrics.jsonl", processes)
  processes[0].send_signal(signal.SIGTERM)
  assert ended(processes)[0] == [0, 0]
  assert ended(start(workdir, config=flags))[0] == [0, 0]  # with the same bits, as the test above makes sure

  made = imagenet.get_config(variants)
  made.update_from_flattened_dict(fields)
  train(made, tmp_path / "one", num_devices=4)
  for line, other in zip(lines(workdir), lines(tmp_path / "one"), strict=True):
    assert line["corrupt"] == other["corrupt"]
    np.testing.assert_allclose(line["train_loss"], other["train_loss"], rtol=5e-3)
  assert line["corrupt"] == 3


def test_processes_whose_workdir_another_run_writes_are_all_refused(tmp_path):
  writing = lock.Lock(tmp_path)
  assert writing.take(make=True)
  statuses, said = ended(start(tmp_path))
  writing.release()
  assert statuses == [2, 2]
  for _, errors in said:
    assert f"error: workdir={tmp_path} is being written by process {os.getpid()}" in errors
  assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_processes_with_different_configs_are_refused(tmp_path):
  statuses, said = ended(start(tmp_path / "run", of_one=["--config.seed=1"]))
  assert statuses == [2, 2]
  for _, errors in said:
    assert "error: process 1 of 2 was started with a different config or data from process 0" in errors
  assert not (tmp_path / "run").exists()


def test_several_processes_need_all_three_flags(tmp_path):
  command = [sys.executable, "-m", "experiments.train", f"--config={CONFIG}", f"--workdir={tmp_path}"]
  done = subprocess.run([*command, "--coordinator=localhost:1"], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1].startswith(
    "error: coordinator=localhost:1: --processes and --process must be given too"
  )
  assert jax.process_count() == 1
