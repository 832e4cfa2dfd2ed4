"""Run folders as a run would leave them, with made-up numbers, for the tests of reports."""

import json
import os
import zlib

import numpy as np

__all__ = ["CLASSIFICATION", "REGRESSION", "give_classes", "write"]

PHASES = ("features", "factors", "compiling", "selecting", "training", "evaluating", "total")


ACCURACY = {"name": "accuracy", "unit": "%", "larger_is_better": True}
CLASSIFICATION = {"name": "classification", "metric": ACCURACY, "signals": ["correct"]}
REGRESSION = {
  "name": "regression",
  "metric": {"name": "mean_squared_error", "unit": "", "larger_is_better": False},
  "signals": [],
}


def write(
  path,
  method="random",
  seed=0,
  *,
  keep=0.5,
  final=0.9,
  epochs=4,
  samples=200,
  dataset="digits",
  task=None,
  **changes,
):
  """Writes a finished run whose metric ends at `final`, and returns its summary.

  Without a `task` the folder is that of an earlier version, which knew only classifiers; `changes` are of its config.
  """
  path.mkdir(parents=True)
  rng = np.random.default_rng([seed, len(method), samples])
  selector = {"name": method, **({} if method == "full" else {"keep_fraction": keep})}
  config = {"seed": seed, "dataset": {"name": dataset}, "selector": selector, "epochs": epochs, "learning_rate": 0.1}
  device = {"kind": "cpu", "platform": "cpu", "count": 1}
  made = {"config": config | changes, "device": device} | ({"task": task} if task else {})
  (path / "config.json").write_text(json.dumps(made))
  metric = task["metric"] if task else ACCURACY
  sign = 1 if metric["larger_is_better"] else -1
  size = samples if method == "full" else int(keep * samples)
  visits = np.zeros(samples, np.int32)
  lines = []
  for epoch in range(1, epochs + 1):
    visits[rng.permutation(samples)[:size]] += 1
    by_class = np.bincount(rng.permutation(np.arange(samples) % 4)[:size], minlength=4)
    training = epoch * size / 100
    seconds = dict(zip(PHASES, (0.0, 3.0 if seed == 0 else 0.0, 2.0, 0.1 * epoch, training, 0.2 * epoch), strict=False))
    seconds["total"] = sum(seconds.values()) + 0.5
    value = final - sign * 0.3 * 0.5 ** (8 * epoch / epochs) + 0.002 * rng.normal() if epoch < epochs else final
    lines.append(
      {
        "epoch": epoch,
        f"test_{metric['name']}": value,
        **({"metric": value} if task else {}),
        "realised_keep_fraction": size / samples,
        "unique_seen": int(np.count_nonzero(visits)),
        "forward_visits": epoch * size,
        "backward_visits": epoch * size,
        **({} if task == REGRESSION else {"kept_by_class": by_class.tolist()}),
        "seconds": seconds,
      }
    )
  (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  best = (max if sign == 1 else min)(line[f"test_{metric['name']}"] for line in lines)
  summary = {
    f"final_test_{metric['name']}": final,
    f"best_test_{metric['name']}": best,
    **({"final_metric": final, "best_metric": best} if task else {}),
    "epochs": epochs,
    "ended": 1000.0 * zlib.crc32(os.fsencode(path)),  # no two at the same time
    "realised_keep_fraction": size / samples,
    **{name: lines[-1][name] for name in ("forward_visits", "backward_visits", "seconds")},
  }
  (path / "summary.json").write_text(json.dumps(summary))
  np.savez(path / "usage.npz", visits=visits, last_loss=rng.random(samples).astype(np.float32))
  return summary


def give_classes(path, kept, sizes=None, names=()):
  """Rewrites a folder so that every epoch `kept` so many samples of each class, of classes of these sizes and names."""
  lines = [json.loads(line) | {"kept_by_class": kept} for line in (path / "metrics.jsonl").read_text().splitlines()]
  (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  for name, fields in (("config", {"class_names": names}), ("summary", {"class_sizes": sizes})):
    held = json.loads((path / f"{name}.json").read_text())
    (path / f"{name}.json").write_text(json.dumps(held | fields))
