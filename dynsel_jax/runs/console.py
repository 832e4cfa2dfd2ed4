"""Shows the progress of a run to people: a bar on a terminal, one plain line per epoch elsewhere. Host-side."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from dynsel_jax.metric import Metric
from dynsel_jax.options import printable
from dynsel_jax.runs import timing

__all__ = ["Console", "closing_lines", "waiting"]

SECONDS_BETWEEN = 0.2  # between two redraws of the bar
SECONDS_BEFORE = {True: 0.3, False: 5.0}  # before it is said what is waited for, on a terminal and elsewhere
WAITING = {
  "loading": "loading",
  "features": "extracting features",
  "factors": "fitting factors",
  "proxy": "training the proxy",
  "compiling": "compiling",
}


def _clock(seconds: float) -> str:
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextlib.contextmanager
def waiting(phase: str) -> Iterator[None]:
  """Says on standard error what is being waited for, if it takes long: a phase of `timing` before the first step.

  A terminal shows it after a moment and until it is done; elsewhere it is a line, after seconds.
  """
  words, terminal = WAITING.get(phase), sys.stderr.isatty()
  if words is None:
    yield
    return

  def say() -> None:
    shown.append(words)
    print(f"{words} ...", file=sys.stderr, end="" if terminal else "\n", flush=True)

  shown: list[str] = []
  timer = threading.Timer(SECONDS_BEFORE[terminal], say)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()
    timer.join()
    if shown and terminal:
      print("\r\x1b[K", file=sys.stderr, end="", flush=True)


class Console:
  """The progress of a run of `epochs`, of which `done` are finished."""

  def __init__(self, metric: Metric, epochs: int, done: float = 0.0, *, quiet: bool = False):
    """Starts the bar on a terminal; `metric` is the task's headline. All processes but one are `quiet`."""
    self._metric = metric
    self._epochs, self._first, self._start, self._quiet = epochs, done, time.perf_counter(), quiet
    self._shown = 0.0
    self._words: dict[str, str] = {}
    self._bar = None
    if sys.stderr.isatty() and not quiet:
      layout = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]"
      self._bar = tqdm(total=epochs, initial=done, bar_format=layout, dynamic_ncols=True)

  def due(self) -> bool:
    """Whether it is time to redraw the bar; until then the loss need not be fetched from the device."""
    return self._bar is not None and time.perf_counter() - self._shown >= SECONDS_BETWEEN

  def step(self, progress: float, loss: float) -> None:
    """Shows that `progress` epochs are done, and the running epoch's loss."""
    self._words["loss"] = f"loss {loss:.4f}"
    self._show(progress)

  def epoch(self, metrics: dict[str, Any]) -> None:
    """Shows a finished epoch, given its line of `metrics.jsonl`."""
    self._words = {
      "loss": f"loss {metrics['train_loss']:.4f}",
      "metric": printable(f"{self._metric.words} {self._metric.show(metrics['metric'])}"),
      "kept": f"kept {metrics['realised_keep_fraction']:.1%}",
    }
    if self._bar is not None:
      self._show(metrics["epoch"])
      return
    if self._quiet:
      return
    done = metrics["epoch"]
    left = (time.perf_counter() - self._start) / (done - self._first) * (self._epochs - done)
    print(f"epoch {done}/{self._epochs}  {'  '.join(self._words.values())}  left {_clock(left)}", flush=True)

  def _show(self, progress: float) -> None:
    if self._bar is not None:
      self._shown = time.perf_counter()
      epoch = f"epoch {min(int(progress) + 1, self._epochs)}/{self._epochs}"
      self._bar.set_description_str(" ".join([epoch, *self._words.values()]), refresh=False)
      self._bar.n = progress
      self._bar.refresh()

  def close(self) -> None:
    """Ends the bar."""
    if self._bar is not None:
      self._bar.close()


def closing_lines(summary: dict[str, Any], metric: Metric, workdir: str) -> str:
  """Summarises a finished run in a few lines."""
  seconds = summary["seconds"]
  phases = timing.rounded({name: value for name, value in seconds.items() if name != "total"}, 0.1)
  spent = ", ".join(f"{timing.word(name)} {value:.1f}" for name, value in phases.items() if value >= 0.05)
  best = f"best {metric.show(summary['best_metric'])}"
  if (validation := summary.get(f"best_validation_{metric.name}")) is not None:
    selected = summary[f"test_{metric.name}_at_best_validation"]
    best += f", {metric.show(selected)} at the best validation {metric.words} {metric.show(validation)}"
  return "\n".join(
    printable(line)
    for line in [
      f"{f'test {metric.words}':15} {metric.show(summary['final_metric'])} ({best})",
      f"visits          {summary['backward_visits']:,} backward, {summary['forward_visits']:,} forward"
      f" in {summary['steps']:,} steps, {summary['epochs']} epochs",
      f"kept            {summary['realised_keep_fraction']:.1%} of the training set per epoch on average",
      f"seconds         {sum(phases.values()):.1f} ({spent})",
      f"files           {workdir}",
    ]
  )
