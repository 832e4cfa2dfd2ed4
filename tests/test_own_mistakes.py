"""A user's own data set, model and task from outside the repository: a run by the command, and one line for a mistake.

Each mistake must be named by its field, its value and what to do instead, before anything is written.
"""

import json
import os
import re
import subprocess
import sys

import pytest

from dynsel_jax import data, models, options, recipes, tasks
from dynsel_jax.runs import finished
from tests.support import ROOT, small_runs

DATA = """
import numpy as np
from dynsel_jax import data

def arrays(size):
  inputs = np.random.default_rng(0).normal(size=(size, 6))  # float64, as a user's arrays often are
  return {"inputs": inputs, "targets": inputs @ np.arange(6.0) / 7, "group": np.arange(size) % 3}

def load(*, size: int = 300):
  return data.from_arrays("planes", arrays(size), arrays(80), validation=arrays(40))

def named(*, stream: bool = False, tokenizer: str = "", threads: int = 0):
  assert (stream, tokenizer, threads) == (True, "words", 2)
  return load()

def pair():
  return arrays(300), arrays(80)

def positional(size):
  return load(size=size)

def required(*, size):
  return load(size=size)

not_a_function = 3
"""

NET = """
import jax.numpy as jnp
from flax import linen as nn

class Net(nn.Module):
  num_outputs: int
  kind: str = "good"

  @nn.compact
  def __call__(self, inputs, valid, train):
    outputs = nn.Dense(self.num_outputs)(nn.relu(nn.Dense(8)(inputs)))
    if self.kind == "bare":
      return outputs
    if self.kind == "branching":
      outputs = outputs if outputs.sum() > 0 else -outputs
    return outputs, {}

class Short(nn.Module):
  @nn.compact
  def __call__(self, inputs):
    return nn.Dense(1)(inputs), {}

def net(num_outputs, dtype, axis_name, *, width: int = 8):
  return Net(num_outputs)

def wide(num_outputs, dtype, axis_name):
  return Net(num_outputs + 1)

def bare(num_outputs, dtype, axis_name):
  return Net(num_outputs, "bare")

def branching(num_outputs, dtype, axis_name):
  return Net(num_outputs, "branching")

def short(num_outputs, dtype, axis_name):
  return Short()

def function(num_outputs, dtype, axis_name):
  return lambda inputs: inputs

def few_arguments(num_outputs):
  return Net(num_outputs)
"""

TASK = """
import jax.numpy as jnp
import numpy as np
from dynsel_jax import tasks

def task(source, view, **changes):
  def losses(outputs, batch):
    errors = jnp.abs(outputs[:, 0] - batch["targets"])
    return errors, {"signed": outputs[:, 0] - batch["targets"]}

  def metrics(outputs, batch, valid):
    error = jnp.abs(outputs[:, 0] - batch["targets"])
    return {"error": (jnp.sum(jnp.where(valid, error, 0.0)), jnp.sum(valid))}

  metric = tasks.Metric("error", "mm", larger_is_better=False)
  return tasks.Task("absolute", metric, ("signed",), 1, view, losses, metrics)._replace(**changes)

def changed(**changes):
  return lambda source, view: task(source, view, **changes)

def nothing(source, view):
  return None

def few_arguments(source):
  return task(source, None)

zero_outputs = changed(num_outputs=0)
named_metric = changed(metric="error")
one_string = changed(signals="signed")
other_signal = changed(signals=("signed", "angle"))
other_metric = changed(metric=tasks.Metric("accuracy"))
mean_loss = changed(losses=lambda outputs, batch: (jnp.mean(outputs), {"signed": outputs[:, 0]}))
wide_loss = changed(losses=lambda outputs, batch: (outputs, {"signed": outputs[:, 0]}))
whole_loss = changed(losses=lambda outputs, batch: (jnp.zeros(len(outputs), jnp.int32), {"signed": outputs[:, 0]}))
bare_loss = changed(losses=lambda outputs, batch: outputs[:, 0])
short_signal = changed(losses=lambda outputs, batch: (outputs[:, 0], {"signed": outputs[1:]}))
wide_objective = changed(objective=lambda outputs, batch: outputs)
mean_metric = changed(metrics=lambda outputs, batch, valid: {"error": jnp.mean(outputs)})
rows_of_metric = changed(metrics=lambda outputs, batch, valid: {"error": (outputs[:, 0], jnp.sum(valid))})
no_dict = changed(metrics=lambda outputs, batch, valid: (jnp.sum(outputs), jnp.sum(valid)))
numpy_loss = changed(losses=lambda outputs, batch: (np.abs(np.asarray(outputs))[:, 0], {"signed": outputs[:, 0]}))
missing_array = changed(losses=lambda outputs, batch: (batch["labels"], {"signed": outputs[:, 0]}))
bare_inputs = changed(inputs=lambda key, index, batch: batch["inputs"])
cut_inputs = changed(inputs=lambda key, index, batch: batch if key is None else {"inputs": batch["inputs"]})
only_rows = changed(rows=lambda outputs, batch: {"output": outputs[:, 0]})
only_summarize = changed(summarize=lambda rows: {"error": 0.0})
bare_rows = changed(rows=lambda outputs, batch: outputs[:, 0], summarize=lambda rows: {"error": 0.0})
wide_rows = changed(rows=lambda outputs, batch: {"output": outputs}, summarize=lambda rows: {"error": 0.0})
late = changed(
  metric=tasks.Metric("median"),
  rows=lambda outputs, batch: {"output": outputs[:, 0]},
  summarize=lambda rows: {"mode": 0},
)
"""


@pytest.fixture(autouse=True)
def their_lab(tmp_path, monkeypatch):
  """Writes the package `their_lab` outside the repository; other tests may have written another."""

  def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "their_lab"]:
      del sys.modules[name]

  forget()
  (tmp_path / "their_lab").mkdir()
  for name, text in (("data", DATA), ("net", NET), ("task", TASK)):
    (tmp_path / "their_lab" / f"{name}.py").write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  yield tmp_path
  forget()


def _config(dataset="load", model="net", task="task", selector="infobatch"):
  names = {"dataset": f"their_lab.data:{dataset}", "model": f"their_lab.net:{model}", "task": f"their_lab.task:{task}"}
  made = recipes.get_config("", **names, selector=selector)
  made.update(batch_size=32, eval_batch_size=32, epochs=2, learning_rate=0.01)
  return made


def test_the_command_runs_parts_from_outside_the_repository_to_the_end(their_lab):
  variants = "dataset=their_lab.data:load,model=their_lab.net:net,task=their_lab.task:task,selector=infobatch"
  command = [sys.executable, "-m", "experiments.train", f"--config=configs/digits.py:{variants}"]
  command += [f"--workdir={their_lab / 'run'}", "--config.epochs=4", "--config.learning_rate=0.01"]
  environment = {**os.environ, "PYTHONPATH": str(their_lab)}
  done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "infobatch on planes: 300 training and 80 test samples, their_lab.net:net with" in done.stdout
  assert re.search(
    r"^test error +0\.\d+ mm \(best 0\.\d+ mm, 0\.\d+ mm at the best validation error", done.stdout, re.M
  )
  read = finished.read(their_lab / "run")
  assert (read.task, read.metric) == ("absolute", tasks.Metric("error", "mm", larger_is_better=False))
  assert len(read.metrics) == 4 and read.metrics[-1]["test_error"] < read.metrics[0]["test_error"]
  assert "validation_error" in read.metrics[0] and "kept_by_class" not in read.metrics[0]
  assert read.visits.shape == (300,)
  held = json.loads((their_lab / "run" / "config.json").read_text())
  assert held["task"]["signals"] == ["signed"]
  assert held["model"].items() >= {"num_outputs": 1, "input_shape": [6], "input_dtype": "float32"}.items()


def test_a_loader_may_have_options_that_other_data_sets_have_too():
  section = {"name": "their_lab.data:named", "data_dir": "", "augmentations": (), "label_noise": {}}
  source = data.prepare({**section, "stream": True, "tokenizer": "words", "threads": 2})
  assert source.name == "planes"


def test_arrays_of_64_bits_are_held_in_32(their_lab):
  source = data.load("their_lab.data:load", size=50)
  assert {name: array.dtype.name for name, array in source.train.items()} == {
    "inputs": "float32",
    "targets": "float32",
    "group": "int32",
  }


@pytest.mark.parametrize(
  ("parts", "line"),
  [
    (
      {"dataset": "positional"},
      "dataset.name='their_lab.data:positional' must be callable with (*, options): missing a",
    ),
    (
      {"dataset": "pair"},
      "dataset.name='their_lab.data:pair' must return a dynsel_jax.data.Source, not tuple; dynsel_jax.data.from",
    ),
    ({"model": "function"}, "model.name='their_lab.net:function' must return a flax.linen.Module, not function"),
    ({"model": "few_arguments"}, "model.name='their_lab.net:few_arguments' must be callable with (int, "),
    (
      {"model": "wide"},
      "model.name=their_lab.net:wide gives outputs of shape (32, 2), and"
      " task.name=their_lab.task:task needs num_outputs=1 as the last dimension",
    ),
    (
      {"model": "bare"},
      "model.name=their_lab.net:bare: the module must return its outputs and a dict of intermediates",
    ),
    ({"model": "short"}, "model.name=their_lab.net:short: the module fails ("),
    ({"model": "branching"}, "net.py, line 15), as NumPy functions, `if` and int() do: use jax.numpy"),
    ({"task": "nothing"}, "task.name='their_lab.task:nothing' must return a dynsel_jax.tasks.Task, not NoneType"),
    ({"task": "few_arguments"}, "task.name='their_lab.task:few_arguments' must be callable with (Source, function, *"),
    (
      {"task": "zero_outputs"},
      "task.name='their_lab.task:zero_outputs': num_outputs=0 must be an integer of at least 1",
    ),
    ({"task": "named_metric"}, "named_metric': metric='error' must be a dynsel_jax.tasks.Metric"),
    ({"task": "one_string"}, "one_string': signals='signed' must be a tuple of names"),
    (
      {"task": "other_signal"},
      "other_signal: signals names 'angle', which is not among the extras that losses gives: signed",
    ),
    ({"task": "other_metric"}, "other_metric: metric names 'accuracy', and the task gives error"),
    (
      {"task": "mean_loss"},
      "mean_loss: losses has shape () and type float32; it must be one number for each of 32 rows",
    ),
    (
      {"task": "wide_loss"},
      "wide_loss: losses has shape (32, 1) and type float32; it must be one number for each of 32",
    ),
    (
      {"task": "whole_loss"},
      "whole_loss: losses has shape (32,) and type int32; it must be one number for each of 32 rows, float32",
    ),
    ({"task": "bare_loss"}, "bare_loss: losses must return the losses and a dict of extras"),
    (
      {"task": "short_signal"},
      "short_signal: the extra 'signed' of losses has shape (31, 1); it must have 32 rows",
    ),
    ({"task": "wide_objective"}, "wide_objective: objective has shape (32, 1) and type float32; it must be one number"),
    (
      {"task": "mean_metric"},
      "mean_metric: metrics gives 'error' of shape (); it must be a tuple (sum, count) of scalars",
    ),
    ({"task": "rows_of_metric"}, "gives 'error' of shape (32,), (); it must be a tuple (sum, count) of scalars"),
    ({"task": "no_dict"}, "no_dict: metrics must return a dict of (sum, count) by name"),
    ({"task": "numpy_loss"}, "numpy_loss: losses uses the value of a traced array ("),
    ({"task": "missing_array"}, "missing_array: losses fails ("),
    ({"task": "bare_inputs"}, "bare_inputs: inputs must return a dict with 'inputs', which the model is given"),
    (
      {"task": "cut_inputs"},
      "cut_inputs: inputs must return the same names, shapes and types with a key as without one",
    ),
    ({"task": "only_rows"}, "only_rows' has rows and no summarize: give both, or neither"),
    ({"task": "only_summarize"}, "only_summarize' has summarize and no rows: give both, or neither"),
    ({"task": "bare_rows"}, "bare_rows: rows must return a dict of the rows' numbers by name"),
    (
      {"task": "wide_rows"},
      "wide_rows: 'output' of rows has shape (32, 1) and type float32; it must be one number for",
    ),
    (
      {"selector": "kakurenbo"},
      "selector=kakurenbo reads 'correct', 'confidence': the task absolute and the table give"
      " signed; tasks that give 'correct': classification, language_model",
    ),
  ],
)
def test_what_a_part_must_not_return_is_named_with_the_remedy(parts, line, tmp_path):
  made = _config(**parts)
  with pytest.raises(options.UserError) as error:
    small_runs.train(made, tmp_path / "run")
  assert line in str(error.value)
  assert "\n" not in str(error.value)
  assert not (tmp_path / "run").exists()


def test_a_headline_that_only_the_end_of_an_epoch_can_show_is_named_too(tmp_path):
  with pytest.raises(options.UserError, match="task absolute: metric names 'median', and the task gives error, mode"):
    small_runs.train(_config(task="late"), tmp_path / "run")


@pytest.mark.parametrize("kind", ["dataset", "model", "task"])
@pytest.mark.parametrize(
  ("path", "line"),
  [
    ("no_lab.parts:load", "'no_lab.parts:load': there is no module 'no_lab'"),
    ("their_lab.parts:load", "'their_lab.parts:load': there is no module 'their_lab.parts'"),
    ("their_lab.data:lood", "'their_lab.data:lood': module 'their_lab.data' has no 'lood'"),
    ("their_lab.data:not_a_function", "'their_lab.data:not_a_function' must be a function, not int"),
  ],
)
def test_a_path_that_leads_nowhere_is_named_by_its_field(kind, path, line):
  room = {"dataset": data, "model": models, "task": tasks}[kind]
  with pytest.raises(options.UserError) as error:
    room.defaults(path)
  assert str(error.value).startswith(f"{kind}.name={line}") and "\n" not in str(error.value)


def test_an_option_of_a_loader_without_a_default_is_named():
  with pytest.raises(options.UserError, match="their_lab.data:required has an option 'size' without a default"):
    _config(dataset="required")
