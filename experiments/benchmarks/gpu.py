"""The benchmark of everything that has to be fast on one GPU, within a given number of seconds.

Each program is compiled by a process of its own (`gpu_workers`), several at a time, since compiling takes longer than
measuring. While one is timed the others are paused. As soon as a program is compiled it is timed once, so that
something is known however early the benchmark is cut off; when all are, they are timed in turns, and the ratios come
from these turns. Each result is printed at once.
"""

import gzip
import json
import os
import pathlib
import queue
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from dynsel_jax import options
from experiments.benchmarks import gpu_variants, integer
from experiments.benchmarks.gpu_workers import WORKERS

__all__ = ["benchmark_gpu"]

AT_ONCE = 14  # programs that are compiled at a time, each on about one core
LAST = 0.2  # fraction of the seconds that is kept for the turns and the profiles
PROFILED = ("full", "es_meta", "full_512")
TURNS = 5
# Relative to a step of `full`, these take so many times the samples.
SAMPLES = {"full_512": 4, "es_meta": 4, "seeds_4": 4}


def benchmark_gpu(seconds: str = "200", folder: str = ".", size: str = "full", names: str = "") -> None:
  """Prints milliseconds of each program and their ratios to a step of `full`; writes them and profiles into `folder`.

  Args:
    seconds: after which no more is begun.
    folder: for `gpu.json` and `kernels_*.txt`.
    size: "full", or "tiny" to try the benchmark without a GPU.
    names: workers to be run, joined by commas; all if empty.
  """
  options.check_choice("size", size, ("full", "tiny"))
  limit = integer("seconds", seconds)
  chosen = names.split(",") if names else list(WORKERS)
  for name in chosen:
    options.check_choice("names", name, WORKERS)
  pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  bench = _Bench(size, folder, time.monotonic() + limit)
  try:
    bench.measure(chosen, limit)
  finally:
    bench.close()


class _Process:
  """A worker, as the parent sees it."""

  def __init__(self, name: str, size: str, folder: str, answers: queue.Queue):
    self.name, self.busy = name, True  # busy with compiling
    variant = WORKERS[name].variant
    flags = gpu_variants.VARIANTS[variant].flags if variant else ""
    self.dumps = pathlib.Path(folder, f"dump_{name}") if name in PROFILED and size == "full" else None
    if self.dumps is not None:
      flags += f" --xla_dump_to={self.dumps} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*fun.*"
    environment = {
      **os.environ,
      "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
      "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
      "STARTED": str(time.time()),
    }
    self.log = pathlib.Path(folder, f"log_{name}.txt")
    command = [sys.executable, "-m", "experiments.benchmarks.gpu_workers", name, size, folder]
    with self.log.open("w") as log:
      self.process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment,
        start_new_session=True,
      )
    threading.Thread(target=self._listen, args=(answers,), daemon=True).start()

  def _listen(self, answers: queue.Queue) -> None:
    assert self.process.stdout is not None
    for line in self.process.stdout:
      answers.put((self, json.loads(line)))
    answers.put((self, None))

  def ask(self, what: str) -> None:
    """Sends a line to the worker; one that has ended is noticed by its answer."""
    try:
      assert self.process.stdin is not None
      print(what, file=self.process.stdin, flush=True)
    except OSError:
      pass

  def signal(self, number: int) -> None:
    """Sends a signal to the worker and the processes that it started."""
    if self.process.poll() is None:
      os.killpg(self.process.pid, number)


class _Bench:
  """The processes of the benchmark, and what they have measured so far."""

  def __init__(self, size: str, folder: str, end: float):
    self.size, self.folder, self.end = size, folder, end
    self.answers: queue.Queue = queue.Queue()
    self.processes: list[_Process] = []
    self.ready: list[_Process] = []
    self.taken: dict[str, list[float]] = {}  # milliseconds, of the turns
    self.first: dict[str, float] = {}
    self.started: dict[str, Mapping[str, float]] = {}

  def measure(self, names: list[str], seconds: int) -> None:
    """Compiles, times and profiles."""
    waiting = list(names)
    until = self.end - LAST * seconds
    while time.monotonic() < until and (waiting or any(process.busy for process in self.processes)):
      while waiting and sum(process.busy for process in self.processes) < self._at_once():
        self.processes.append(_Process(waiting.pop(0), self.size, self.folder, self.answers))
      process, answer = self._answer(until)
      if process is None:
        break
      process.busy = False
      if answer is None:
        print(f"{process.name}: failed, {_last_line(process.log)}", flush=True)
        continue
      self.started[process.name] = answer
      self.ready.append(process)
      self._first_time(process)
    for process in self.processes:  # what is not compiled by now would disturb the rest
      if process.busy:
        print(f"{process.name}: not compiled in time", flush=True)
        process.signal(signal.SIGKILL)
    self._turns()
    self._profiles()
    self._report()

  def _at_once(self) -> int:
    """Returns how many may compile now: few with `full`, whose choice of algorithms is undisturbed, and then reused."""
    return 2 if any(process.name == "full" and process.busy for process in self.processes) else AT_ONCE

  def _answer(self, until: float) -> tuple[Any, Any]:
    try:
      return self.answers.get(timeout=max(until - time.monotonic(), 0.1))
    except queue.Empty:
      return None, None

  def _ask(self, process: _Process, what: str) -> Any:
    """Asks a worker and waits for its answer; answers of others, which became ready meanwhile, are kept."""
    process.ask(what)
    kept, answer = [], None
    while time.monotonic() < self.end:
      other, answer = self._answer(self.end)
      if other is process or other is None:
        break
      kept.append((other, answer))
    for item in kept:
      self.answers.put(item)
    return answer

  def _first_time(self, process: _Process) -> None:
    """Times a program that has just been compiled, while the others are paused."""
    others = [other for other in self.processes if other is not process and other.busy]
    for other in others:
      other.signal(signal.SIGSTOP)
    time.sleep(0.05)  # what they had given the GPU ends meanwhile
    answer = self._ask(process, "time")
    for other in others:
      other.signal(signal.SIGCONT)
    made = self.started[process.name]
    for label, values in (answer or {}).items():
      self.first[f"{process.name}, {label}"] = statistics.median(values)
      print(
        f"{process.name}, {label}: {statistics.median(values):.3f} ms; after {made['imported']:.1f} s of imports,"
        f" {made['made'] - made['imported']:.1f} s of building and {made['ready'] - made['made']:.1f} s of compiling",
        flush=True,
      )

  def _turns(self) -> None:
    for _ in range(TURNS):
      for process in self.ready:
        if time.monotonic() > self.end - 10:  # for the profiles
          return
        for label, values in (self._ask(process, "time") or {}).items():
          self.taken.setdefault(f"{process.name}, {label}", []).append(statistics.median(values))

  def _profiles(self) -> None:
    for process in self.ready:
      if process.name in PROFILED and time.monotonic() < self.end:
        self._ask(process, "profile")
        path = pathlib.Path(self.folder, f"kernels_{process.name}.txt")
        if path.is_file():
          print(f"\n{process.name}\n" + "\n".join(path.read_text().splitlines()[:17]), flush=True)

  def _report(self) -> None:
    base = statistics.median(self.taken.get("full, step", [float("nan")]))
    print("\nms a unit, by turns; ratio to a step of full for as many samples")
    for label, values in self.taken.items():
      ratio = statistics.median(values) / base / SAMPLES.get(label.partition(",")[0], 1)
      print(f"{label:40} {statistics.median(values):9.3f} ({min(values):.3f} to {max(values):.3f}), ratio {ratio:.3f}")
    found = {"turns": self.taken, "first": self.first, "started": self.started}
    pathlib.Path(self.folder, "gpu.json").write_text(json.dumps(found, indent=1))

  def close(self) -> None:
    """Ends every process, and keeps of the compiler's dumps the final text."""
    for process in self.processes:
      process.signal(signal.SIGKILL)
      process.process.wait()
      if process.dumps is not None and process.dumps.is_dir():
        # The loop over the steps is the largest of the programs.
        found = sorted(process.dumps.glob("*after_optimizations.txt"), key=lambda path: path.stat().st_size)
        if found:
          content = gzip.compress(found[-1].read_bytes())
          pathlib.Path(self.folder, f"hlo_{process.name}.txt.gz").write_bytes(content)
        shutil.rmtree(process.dumps)


def _last_line(log: pathlib.Path) -> str:
  lines = log.read_text(errors="replace").strip().splitlines()
  return lines[-1][:200] if lines else "it said nothing"
