"""Which kernels a step runs on a GPU, by time, as a text file out of JAX's profiler. Host-side."""

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any

import jax

__all__ = ["table", "write"]

SHOWN = 40


def write(folder: str, name: str, call: Callable[[], Any], units: int) -> None:
  """Profiles three calls of `units` steps each, and writes `kernels_NAME.txt` into `folder`."""
  with tempfile.TemporaryDirectory() as traces:
    with jax.profiler.trace(traces):
      for _ in range(3):
        call()
    found = sorted(pathlib.Path(traces).rglob("*.xplane.pb"))
    text = table(jax.profiler.ProfileData.from_file(str(found[-1])), 3 * units) if found else "no trace was written\n"
  pathlib.Path(folder, f"kernels_{name}.txt").write_text(text)


def table(profile: Any, num_steps: int) -> str:
  """Returns the kernels of all streams of the first GPU by their time in a step.

  Args:
    profile: a `jax.profiler.ProfileData`.
    num_steps: steps that were profiled.
  """
  planes = [plane for plane in profile.planes if "GPU" in plane.name] or list(profile.planes)
  plane = max(planes, key=lambda plane: sum(len(list(line.events)) for line in plane.lines))
  streams = [line for line in plane.lines if line.name.startswith("Stream")] or list(plane.lines)
  spent: dict[tuple[str, str], float] = collections.defaultdict(float)
  runs: collections.Counter[tuple[str, str]] = collections.Counter()
  first, last = float("inf"), 0.0
  for line in streams:
    for event in line.events:
      stats = {key: value for key, value in event.stats if key}
      kernel = (_short(event.name), str(stats.get("hlo_op", "")))
      spent[kernel] += event.duration_ns
      runs[kernel] += 1
      first, last = min(first, event.start_ns), max(last, event.end_ns)
  total, count = sum(spent.values()) / num_steps / 1e3, sum(runs.values()) / num_steps
  lines = [
    f"{plane.name}: {count:.0f} kernels and copies a step, busy {total:.0f} us of"
    f" {(last - first) / num_steps / 1e3:.0f} us a step (profiled, so slower than alone)",
    "      us  runs  kernel, operation",
  ]
  for kernel in sorted(spent, key=lambda k: -spent[k])[:SHOWN]:
    lines.append(f"{spent[kernel] / num_steps / 1e3:8.1f} {runs[kernel] / num_steps:5.1f}  {', '.join(kernel)}")
  lines += ["", "      us  runs  by kind of kernel"]
  kinds: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
  for kernel, time in spent.items():
    of_kind = kinds[re.sub(r"[_.]?\d+", "", kernel[0])]
    of_kind[0] += time / num_steps / 1e3
    of_kind[1] += runs[kernel] / num_steps
  for kind in sorted(kinds, key=lambda k: -kinds[k][0])[:SHOWN]:
    lines.append(f"{kinds[kind][0]:8.1f} {kinds[kind][1]:5.1f}  {kind}")
  return "\n".join(lines) + "\n"


def _short(name: str) -> str:
  return name if len(name) <= 110 else f"{name[:107]}..."
