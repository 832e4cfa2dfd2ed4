"""Run folders as a run would leave them, with made-up numbers, for the tests of reports."""

import json

import numpy as np

__all__ = ["write"]

PHASES = ("features", "factors", "compiling", "selecting", "training", "evaluating", "total")


def write(path, method="random", seed=0, *, keep=0.5, final=0.9, epochs=4, samples=200, dataset="digits", **changes):
  """Writes a finished run that ends at the accuracy `final`, and returns its summary; `changes` are of its config."""
  path.mkdir(parents=True)
  rng = np.random.default_rng([seed, len(method), samples])
  selector = {"name": method, **({} if method == "full" else {"keep_fraction": keep})}
  config = {"seed": seed, "dataset": {"name": dataset}, "selector": selector, "epochs": epochs, "learning_rate": 0.1}
  device = {"kind": "cpu", "platform": "cpu", "count": 1}
  (path / "config.json").write_text(json.dumps({"config": config | changes, "device": device}))
  share = 1.0 if method == "full" else keep
  size = int(share * samples)
  visits = np.zeros(samples, np.int32)
  lines = []
  for epoch in range(1, epochs + 1):
    visits[rng.permutation(samples)[:size]] += 1
    by_class = np.bincount(rng.permutation(np.arange(samples) % 4)[:size], minlength=4)
    training = epoch * size / 100
    seconds = dict(zip(PHASES, (0.0, 3.0 if seed == 0 else 0.0, 2.0, 0.1 * epoch, training, 0.2 * epoch), strict=False))
    seconds["total"] = sum(seconds.values()) + 0.5
    lines.append(
      {
        "epoch": epoch,
        "test_accuracy": final - 0.3 * 0.5 ** (8 * epoch / epochs) + (0.002 * rng.normal() if epoch < epochs else 0),
        "realised_keep_fraction": size / samples,
        "unique_seen": int(np.count_nonzero(visits)),
        "forward_visits": epoch * size,
        "backward_visits": epoch * size,
        "kept_by_class": by_class.tolist(),
        "seconds": seconds,
      }
    )
  lines[-1]["test_accuracy"] = final
  (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  summary = {
    "final_test_accuracy": final,
    "best_test_accuracy": max(line["test_accuracy"] for line in lines),
    "epochs": epochs,
    "realised_keep_fraction": size / samples,
    **{name: lines[-1][name] for name in ("forward_visits", "backward_visits", "seconds")},
  }
  (path / "summary.json").write_text(json.dumps(summary))
  np.savez(path / "usage.npz", visits=visits, last_loss=rng.random(samples).astype(np.float32))
  return summary
