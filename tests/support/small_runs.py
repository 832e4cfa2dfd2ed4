"""Small runs on digits, shared by the tests of training."""

import json
import pathlib
import signal

import jax
import numpy as np
import pytest

from configs import digits
from dynsel_jax import data, offline
from dynsel_jax.runs import console
from dynsel_jax.training import setup

__all__ = [
  "build",
  "config",
  "devices",
  "interrupted_at",
  "lines",
  "planted_texts",
  "same_state",
  "train",
]


def config(selector="random", model="mlp", schedule="cosine", **changes):
  """The digits config for two epochs of 11 or 12 steps; `changes` sets fields by dotted names written with `__`."""
  made = digits.get_config(f"size=smoke,selector={selector},model={model},schedule={schedule}")
  made.batch_size = 128
  if model == "resnet_patch":
    made.model.update(width=8, stages=2)
  flat = {name.replace("__", "."): value for name, value in changes.items()}
  made.update_from_flattened_dict(flat)
  return made


def devices(count):
  """Returns the first `count` devices; skips the test where there are fewer, as on a machine with one accelerator."""
  found = jax.devices()
  if len(found) < count:
    pytest.skip(f"needs {count} devices, and here there is {len(found)}")
  return found[:count]


def build(made, num_devices=1, source=None):
  """Returns the run of `made` before its first step, on a table without columns."""
  source = data.prepare(made.dataset.to_dict()) if source is None else source
  return setup.build(setup.parts(made, source, devices(num_devices)), setup.table_of(source))


def train(made, workdir, num_devices=1, **hooks):
  """Runs to the end, with the offline stage; returns (summary, final state as numpy)."""
  result = offline.train_and_evaluate(made, workdir, devices(num_devices), **hooks)
  return result.summary, jax.tree.map(np.asarray, result.state)


def interrupted_at(step, monkeypatch, kind=signal.SIGTERM):
  """From now on a run gets the signal `kind` when it has done `step` steps of this process."""
  seen = []
  original = console.Console.due  # asked after each step

  def counting(self):
    seen.append(None)
    if len(seen) == step:
      signal.raise_signal(kind)
    return original(self)

  monkeypatch.setattr(console.Console, "due", counting)


def lines(workdir, *, without=("seconds",)):
  """The lines of metrics.jsonl, without the fields that differ between two runs of the same config."""
  read = [json.loads(line) for line in pathlib.Path(workdir, "metrics.jsonl").read_text().splitlines()]
  return [{name: value for name, value in line.items() if name not in without} for line in read]


def same_state(one, other):
  """Asserts that two final states agree bit for bit: parameters, optimizer, statistics, selector, usage."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(one):
    other_leaf = dict(jax.tree_util.tree_leaves_with_path(other))[path]
    np.testing.assert_array_equal(leaf, other_leaf, err_msg=jax.tree_util.keystr(path))


def planted_texts(made, folder):
  """Writes small text files for the config `made` and names them in it: random words, one of which tells the class."""
  rng = np.random.default_rng(0)
  others = ["river", "stone", "cloud", "apple", "green", "window", "paper", "silver", "mountain", "ocean"]
  for split, count in (("train", 96), ("test", 48)):
    pair = made.dataset.get("text_pair_column", "")
    names = [made.dataset.text_column, *([pair] if pair else []), made.dataset.label_column]
    rows = [",".join(names)]
    for number in range(count):
      words = rng.choice(others, rng.integers(3, 9)).tolist()
      words[rng.integers(len(words))] = ("yes", "no", "maybe")[number % 3]
      rows.append(",".join([" ".join(words), *(["river"] if pair else []), str(number % 3)]))
    path = pathlib.Path(folder, f"{split}.csv")
    path.write_text("\n".join(rows) + "\n")
    made.dataset[split] = str(path)
