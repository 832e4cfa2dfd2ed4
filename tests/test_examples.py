"""Each file of examples/ runs, is short, and does what it shows; skipped where the library that it is for is absent."""

import importlib
import json

import jax
import pytest

from dynsel_jax import offline, recipes, selectors
from tests.support import ROOT, simulation, small_runs

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
NEEDS = {
  "flax_nnx": ("flax", "sklearn"),
  "grain_loader": ("grain", "sklearn"),
  "hf_trainer": ("torch", "transformers", "accelerate"),
  "new_selector": ("sklearn",),
  "own_parts": ("flax", "sklearn"),
  "plain_jax": (),
  "pytorch_loop": ("torch", "sklearn"),
}
pytestmark = pytest.mark.filterwarnings("default")  # other people's


@pytest.fixture(autouse=True)
def promotion_as_users_have_it():
  with jax.numpy_dtype_promotion("standard"):
    yield


def example(name):
  for library in NEEDS[name]:
    pytest.importorskip(library, reason=f"{library} is not installed")
  return importlib.import_module(f"examples.{name}")


def test_every_example_is_tested_and_short():
  assert sorted(NEEDS) == EXAMPLES
  for name in EXAMPLES:
    lines = (ROOT / "examples" / f"{name}.py").read_text().splitlines()
    assert len(lines) < 80 and f"python examples/{name}.py" in map(str.strip, lines)


def test_a_jitted_epoch_learns_with_fewer_steps():
  accuracy, steps = example("plain_jax").train(epochs=8)
  assert accuracy > 0.6
  assert 0.5 < steps < 0.95


def test_grain_reads_what_infobatch_selects():
  accuracy, fraction = example("grain_loader").train(epochs=5)
  assert accuracy > 0.8
  assert 0.5 < fraction < 1


@pytest.mark.parametrize("name", ["flax_nnx", "pytorch_loop"])
def test_a_stopped_loop_goes_on_with_the_same_samples(name):
  train = example(name).train
  accuracy, whole, _ = train(epochs=4)
  assert accuracy > 0.6
  assert 2 * 1440 < sum(map(len, whole)) < 4 * 1440
  stop = 30  # in the middle of the second epoch
  _, first, checkpoint = train(epochs=4, stop_after=stop)
  _, rest, _ = train(epochs=4, checkpoint=checkpoint)
  assert first + rest == whole and len(first) == stop


def test_a_trainer_of_hugging_face_learns_to_count():
  loss, fraction = example("hf_trainer").train(epochs=3, size=128)
  assert loss < 3.4  # chance is log 32
  assert 0.6 < fraction < 1


def test_parts_of_the_users_own_make_a_run(tmp_path):
  parts = example("own_parts")
  mine = {
    kind: f"{parts.__name__}:{name}" for kind, name in (("dataset", "load"), ("model", "net"), ("task", "quantile"))
  }
  config = recipes.get_config("patients", **mine, selector="infobatch")
  config.update(batch_size=64, epochs=3, learning_rate=0.05)
  summary = offline.train_and_evaluate(config, str(tmp_path / "run")).summary
  assert summary["final_test_pinball_loss"] == summary["final_metric"] < 0.4
  assert 0 < small_runs.lines(tmp_path / "run")[-1]["test_above"] < 0.5


def test_a_selector_of_the_users_own_keeps_the_contract_and_trains():
  accuracy, fraction = example("new_selector").train("examples.new_selector:forgotten", epochs=4, keep_fraction=0.25)
  assert accuracy > 0.6
  assert fraction == 0.25
  selector = selectors.create("examples.new_selector:forgotten", simulation.table(), 8)
  for epoch in simulation.run(simulation.compiled(selector)):
    simulation.assert_epoch(epoch)


def test_the_cells_of_the_notebook_run_in_order(monkeypatch):
  for library in ("sklearn", "matplotlib"):
    pytest.importorskip(library, reason=f"{library} is not installed")
  import matplotlib

  matplotlib.use("Agg")
  cells = json.loads((ROOT / "examples" / "what_is_selected.ipynb").read_text())["cells"]
  code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
  assert sum(len(cell.splitlines()) for cell in code) < 80
  names = {"EPOCHS": 4}
  for cell in code:
    exec(cell.replace("EPOCHS = 20", "EPOCHS = 4"), names)
  assert names["visits"].sum() > 1440
