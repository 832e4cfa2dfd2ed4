"""Loggers beside the run's own files: what they are told, and that they change nothing in a run."""

import sys
import types

import pytest

from dynsel_jax.options import UserError
from dynsel_jax.runs import loggers, workdir
from tests.support import small_runs


class FakeRun:
  """Records what Weights & Biases would be told."""

  def __init__(self):
    self.lines, self.summary, self.closed = [], {}, 0

  def define_metric(self, name, step_metric):
    assert (name, step_metric) == ("*", "epoch")

  def log(self, line):
    self.lines.append(line)

  def finish(self):
    self.closed += 1


@pytest.fixture
def wandb(monkeypatch):
  module = types.ModuleType("wandb")
  module.runs, module.given = [], []

  def init(**given):
    module.given.append(given)
    module.runs.append(FakeRun())
    return module.runs[-1]

  module.init = init
  monkeypatch.setitem(sys.modules, "wandb", module)
  return module


def test_a_run_tells_each_epoch_and_its_summary(wandb, tmp_path):
  summary, _ = small_runs.train(small_runs.config("full", loggers=("wandb",)), tmp_path / "run")
  (run,), (given,) = wandb.runs, wandb.given
  assert [line["epoch"] for line in run.lines] == [1, 2] and run.closed == 1
  written = small_runs.lines(tmp_path / "run", without=())
  assert [line["test_accuracy"] for line in run.lines] == [line["test_accuracy"] for line in written]
  assert run.summary["final_metric"] == summary["final_metric"]
  assert (given["name"], given["project"], given["config"]["selector.name"]) == ("run", "dynsel_jax", "full")


def test_a_continued_run_has_the_same_id(wandb, tmp_path):
  for _ in range(2):
    (logger,) = loggers.create(("wandb",), tmp_path, {"seed": 0})
    logger.close()
  first, second = (given["id"] for given in wandb.given)
  assert first == second and len(first) == 12


def test_what_the_library_refuses_is_one_line(wandb, tmp_path):
  def refuse(**given):
    raise RuntimeError("no key\nconfigured")

  wandb.init = refuse
  with pytest.raises(UserError, match="loggers=wandb.*no key configured.*WANDB_MODE=offline"):
    loggers.create(("wandb",), tmp_path, {})


@pytest.mark.parametrize("before", [{}, {"loggers": ()}, {"loggers": ("wandb",)}])
@pytest.mark.parametrize("after", [{}, {"loggers": ("wandb",)}])
def test_loggers_may_come_and_go(before, after, tmp_path):
  folder, data = workdir.Workdir(str(tmp_path)), {"data_fingerprint": "a", "columns_fingerprint": "b"}
  folder.begin({"config": {"seed": 0, **before}, **data, "seconds": {}}, {})
  folder.check_same_run({"config": {"seed": 0, **after}, **data})
  with pytest.raises(UserError, match="belongs to a different run: seed .0 there, 1 here."):
    folder.check_same_run({"config": {"seed": 1, **after}, **data})


@pytest.mark.parametrize(
  ("name", "line"),
  [("tensorboard", "loggers='tensorboard' is not known; known: wandb"), ("wandb", "pip install 'dynsel_jax.wandb.'")],
)
def test_a_logger_that_is_not_there_is_refused_before_the_run(name, line, monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(UserError, match=line):
    small_runs.build(small_runs.config(loggers=(name,)))
