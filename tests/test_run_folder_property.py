"""Hypothesis damages run folders: the same command gives the undisturbed run's bits, or one line and loses nothing."""

import random
import shutil

import hypothesis
import pytest
from hypothesis import strategies

from dynsel_jax.options import UserError
from dynsel_jax.runs.interruption import RunFailedError
from experiments.faults import commands, damage
from tests.support import small_runs

NAMES = ("checkpoints", "config.json", "metrics.jsonl", "usage.npz", "summary.json", ".lock", "damaged_checkpoints")


def _config():
  return small_runs.config("infobatch", epochs=2, checkpoint_every_steps=5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """A finished run, and a copy of it that stopped at its last checkpoint but one."""
  folder = tmp_path_factory.mktemp("runs")
  small_runs.train(_config(), folder / "finished")
  shutil.copytree(folder / "finished", folder / "stopped")
  (folder / "stopped" / "summary.json").unlink()
  return folder


@strategies.composite
def faults(draw):
  """One to three faults: a seed for the choice of a file with a kind of damage, or something that is put there."""
  one = strategies.tuples(
    strategies.sampled_from([*damage.KINDS, "folder in its place", "file of that name"]),
    strategies.sampled_from(NAMES),
    strategies.integers(0, 2**16),
  )
  return draw(strategies.lists(one, min_size=1, max_size=3))


def _make(fault, workdir):
  kind, name, seed = fault
  rng = random.Random(seed)
  path = workdir / name
  if kind in damage.KINDS:
    found = damage.sources_of_damage(workdir, None)
    damage.damage(rng.choice(found[rng.choice(sorted(found))]), kind, rng)
  elif kind == "folder in its place":
    if path.is_file():
      path.unlink()
    path.mkdir(exist_ok=True)
    (path / "7").mkdir(exist_ok=True)
  else:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.write_bytes(rng.randbytes(rng.randrange(200)))


@pytest.mark.parametrize("which", ["finished", "stopped"])
@hypothesis.given(faults=faults())
@hypothesis.settings(max_examples=8, deadline=None, derandomize=True, database=None)
def test_a_damaged_folder_gives_the_same_bits_or_one_line(runs, tmp_path_factory, which, faults):
  workdir = tmp_path_factory.mktemp("damaged") / "run"
  shutil.copytree(runs / which, workdir)
  for fault in faults:
    _make(fault, workdir)
  try:
    small_runs.train(_config(), workdir)
  except (UserError, RunFailedError) as error:
    assert "\n" not in str(error) and str(workdir) in str(error)
  else:
    assert commands.differences(workdir, runs / "finished") == []
