"""A user's own data set, model and task, named by their paths as the documented command names them."""

import re
import sys

import pytest

from configs import digits
from dynsel_jax import data, options, recipes, tasks
from dynsel_jax.runs import finished
from tests.support import ROOT, small_runs

FILES = {
  "data": """
import numpy as np
from dynsel_jax import data

def load(*, size: int = 400, data_dir: str = "", cache_dir: str = "") -> data.Source:
  inputs = np.random.default_rng(0).normal(size=(size, 8)).astype(np.float32)
  labels = (inputs.sum(axis=1) > 0).astype(np.int32)
  train, test = ({"inputs": inputs[rows], "labels": labels[rows]} for rows in (slice(100, None), slice(100)))
  return data.from_arrays(f"signs{data_dir}", train, test, class_names=("minus", "plus"))
""",
  "net": """
from flax import linen as nn

class Net(nn.Module):
  num_outputs: int
  width: int

  @nn.compact
  def __call__(self, inputs, valid, train):
    features = nn.relu(nn.Dense(self.width)(inputs))
    return nn.Dense(self.num_outputs)(features), {"features": features}

def net(num_outputs, dtype, axis_name, *, width: int = 16) -> nn.Module:
  return Net(num_outputs, width)
""",
  "task": """
import jax.numpy as jnp
from dynsel_jax import tasks

def task(source, view, *, margin: float = 1.0) -> tasks.Task:
  def losses(outputs, batch):
    sign = jnp.where(batch["labels"] == 1, 1.0, -1.0)
    return jnp.maximum(0.0, margin - sign * outputs[:, 0]), {}

  def metrics(outputs, batch, valid):
    wrong = (outputs[:, 0] > 0) != (batch["labels"] == 1)
    return {"error": (jnp.sum(wrong & valid), jnp.sum(valid))}

  metric = tasks.Metric("error", unit="%", larger_is_better=False)
  return tasks.Task("hinge", metric, signals=(), num_outputs=1, inputs=view, losses=losses, metrics=metrics)
""",
}


@pytest.fixture
def my_lab(tmp_path, monkeypatch):
  """Makes the package `my_lab`; other tests have one of their own."""

  def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
      del sys.modules[name]

  forget()
  (tmp_path / "my_lab").mkdir()
  for name, text in FILES.items():
    (tmp_path / "my_lab" / f"{name}.py").write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  yield
  forget()


def _variants():
  """The variants of the documented command."""
  page = (ROOT / "docs" / "own_parts.md").read_text()
  return re.search(r"--config=configs/digits\.py:(dataset=my_lab\S+)", page).group(1)


def test_the_documented_command_trains_them_with_their_options_as_flags(my_lab, tmp_path):
  made = digits.get_config(f"{_variants()},size=smoke")
  assert made.dataset.to_dict() == {
    "name": "my_lab.data:load",
    "augmentations": (),
    "label_noise": made.dataset.label_noise.to_dict(),
    "data_dir": "",
    "size": 400,
  }
  assert made.model.to_dict() == {"name": "my_lab.net:net", "dtype": "float32", "width": 16}
  assert made.task.to_dict() == {"name": "my_lab.task:task", "margin": 1.0}
  made.update_from_flattened_dict({"dataset.size": 500, "model.width": 8, "task.margin": 0.5, "cache_dir": "cache"})
  summary, state = small_runs.train(made.lock(), tmp_path / "run")
  assert summary["final_test_error"] == summary["final_metric"] < 0.3
  assert state.usage.visits.shape == (400,)
  assert state.train.params["Dense_0"]["kernel"].shape == (8, 8)
  run = finished.read(tmp_path / "run")
  assert (run.task, run.metric) == ("hinge", tasks.Metric("error", "%", larger_is_better=False))
  assert run.made["class_names"] == ["minus", "plus"]


def test_a_loader_is_given_the_folders_that_it_asks_for(my_lab):
  section = {"name": "my_lab.data:load", "data_dir": "_here", "size": 200}
  assert data.prepare(section, cache_dir="cache").name == "signs_here"


def test_a_method_that_needs_a_signal_of_another_task_is_refused_in_one_line(my_lab, tmp_path):
  made = digits.get_config(f"{_variants()},size=smoke,selector=kakurenbo")
  with pytest.raises(
    options.UserError, match="selector=kakurenbo reads 'correct', .*: the task hinge .*classification"
  ):
    small_runs.train(made, tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["dataset", "model", "task"])
def test_a_path_that_leads_nowhere_is_named(kind, my_lab):
  with pytest.raises(
    options.UserError, match=f"{kind}.name='my_lab.net:nothing': module 'my_lab.net' has no 'nothing'"
  ):
    recipes.get_config("digits", **({"model": "mlp"} | {kind: "my_lab.net:nothing"}))
