"""Memory and processor seconds per epoch over one long run, and over many runs in one process. Host-side."""

import contextlib
import io
import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

import ml_collections

from configs import digits
from dynsel_jax import offline

__all__ = ["soak"]

_POINTS = (0.005, 0.05, 0.25, 0.5, 0.75, 1.0)  # of the long run, at which it is measured


def _megabytes() -> float:
  """Returns the process's resident memory."""
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _config(epochs: int) -> ml_collections.ConfigDict:
  config = digits.get_config("size=smoke,selector=infobatch")
  config.epochs = epochs
  return config


def _train(epochs: int, workdir: pathlib.Path, **hooks: Any) -> None:
  shutil.rmtree(workdir, ignore_errors=True)
  with contextlib.redirect_stdout(io.StringIO()):
    offline.train_and_evaluate(_config(epochs), workdir, **hooks)


def _long_run(workdir: pathlib.Path, epochs: int) -> Iterator[str]:
  points = sorted({max(1, round(point * epochs)) for point in _POINTS})
  measured: list[str] = []
  last = [0, time.process_time()]

  def measure(run: Any, state: Any, epoch: int) -> Any:
    del run
    if epoch + 1 in points:
      now = time.process_time()
      per_epoch = 1e3 * (now - last[1]) / (epoch + 1 - last[0])
      measured.append(f"| {epoch + 1:,} | {_megabytes():.0f} | {per_epoch:.1f} |")
      last[:] = [epoch + 1, now]
    return state

  _train(epochs, workdir, after_epoch=measure)
  yield "| epochs of one run | resident memory, MB | processor ms an epoch since the line before |"
  yield "|---:|---:|---:|"
  yield from measured


def soak(folder: pathlib.Path, epochs: int, runs: int) -> Iterator[str]:
  """Makes one run of so many epochs, then so many runs of six epochs in this process; yields lines in Markdown."""
  yield from _long_run(folder / "long", epochs)
  yield ""
  yield "| runs in one process | resident memory, MB | processor s for the run |"
  yield "|---:|---:|---:|"
  for number in range(1, runs + 1):
    start = time.process_time()
    _train(6, folder / "short")
    if number in (1, 2, 3, 5) or number % 5 == 0 or number == runs:
      yield f"| {number} | {_megabytes():.0f} | {time.process_time() - start:.1f} |"
