"""Tunix's PeftTrainer with a Sampler's hooks, stopped at a checkpoint and continued."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from dynsel_jax import sampler
from dynsel_jax.options import UserError

peft_trainer = pytest.importorskip(
  "tunix.sft.peft_trainer", reason="Tunix is not installed: pip install google-tunix", exc_type=ImportError
)
adapter = pytest.importorskip("dynsel_jax.adapters.tunix")
pytestmark = pytest.mark.filterwarnings("ignore")  # other people's
N, B, EPOCHS, FEATURES = 30, 4, 3, 5
SAVED = 10  # steps: within the second epoch
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, FEATURES)).astype(np.float32), RNG.normal(size=N).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def plain_jax():
  """Tunix promotes types."""
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), jax.debug_key_reuse(False):
    yield


class Trainer(adapter.SelectionMixin, peft_trainer.PeftTrainer):
  pass


def loss_fn(model, x, y, weight, index):
  losses = (model(x)[:, 0] - y) ** 2
  return jnp.sum(weight * losses), {"sample_loss": losses, "index": index}


def selection_of(method="infobatch", **changes):
  return sampler.Sampler(method, **{"num_samples": N, "epochs": EPOCHS, "batch_size": B, "seed": 3, **changes})


class Fetch:
  def __init__(self):
    self.seen = []

  def __call__(self, index):
    self.seen.append(index.tolist())
    return {"x": X[index], "y": Y[index], "index": index}


def trainer_of(folder, base=Trainer, loss=loss_fn, **changes):
  saving = ocp.CheckpointManagerOptions(save_interval_steps=1, max_to_keep=None)
  config = peft_trainer.TrainingConfig(
    eval_every_n_steps=1000, checkpoint_root_directory=str(folder), checkpointing_options=saving, **changes
  )
  model = nnx.Linear(FEATURES, 1, rngs=nnx.Rngs(0))
  return base(model, optax.adam(0.05), config).with_loss_fn(loss, has_aux=True)


def run(folder, selection, **changes):
  trainer, fetch = trainer_of(folder, **changes), Fetch()
  trainer.with_data_hooks(adapter.SelectionDataHooks(selection, fetch))
  trainer.train([])
  return trainer, fetch.seen


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_trainer_continued_from_a_checkpoint_trains_on_the_same_samples(tmp_path, accumulated):
  changes = {"gradient_accumulation_steps": accumulated}
  whole, seen = run(tmp_path / "whole", selection_of(), **changes)
  plain = selection_of()
  assert len(seen) < EPOCHS * -(-N // B) and [sorted(set(batch)) for batch in seen[:8]] == [
    sorted(index.tolist()) for index, _ in plain.current().read_ahead()
  ]
  first, stopped = selection_of(), []
  trainer, fetch = trainer_of(tmp_path / "part", max_steps=SAVED // accumulated, **changes), Fetch()
  trainer.with_data_hooks(adapter.SelectionDataHooks(first, fetch))
  trainer.train([])
  stopped = fetch.seen[:SAVED]
  again, rest = run(tmp_path / "part", selection_of(), **changes)
  assert stopped + rest == seen and again.train_steps == whole.train_steps
  for ours, theirs in zip(
    jax.tree.leaves(nnx.state(again.model)), jax.tree.leaves(nnx.state(whole.model)), strict=True
  ):
    np.testing.assert_array_equal(ours, theirs)
  state = json.loads((tmp_path / "part" / "selection" / f"{SAVED // accumulated}.json").read_text())
  assert (state["epoch"], state["step"]) == (1, SAVED - 8)


def test_tunix_alone_reads_and_throws_away_what_it_has_trained_on(tmp_path):
  order = np.arange(24) % N
  read = []

  def batches():
    for start in range(0, 24, B):
      index = order[start : start + B]
      read.append(index.tolist())
      yield {"x": X[index], "y": Y[index], "index": index, "weight": np.full(B, 1 / B, np.float32)}

  trainer_of(tmp_path, peft_trainer.PeftTrainer, max_steps=3).train(batches())
  read.clear()
  trainer_of(tmp_path, peft_trainer.PeftTrainer).train(batches())
  assert len(read) == 6  # all of them, to train on the last three


def test_the_weights_of_a_batch_are_divided_and_a_short_one_is_filled():
  for method, divided in (("infobatch", "batch_size"), ("full", "weight_sum")):
    selection = selection_of(method)
    hooks = adapter.SelectionDataHooks(selection, lambda index: {"index": index})
    batches = []
    for _ in range(8):
      batches.append(hooks.load_next_train_batch(None))
      assert hooks.load_next_train_batch(None)["index"].tolist() == batches[-1]["index"].tolist()  # not trained on yet
      hooks.trained({"sample_loss": jnp.ones(B)})
    assert (
      selection.loss_normalization == divided and selection.step == 6 and selection.forward_visits == 6 * B
    )  # two are not waited for
    assert [batch["weight"].tolist() for batch in (batches[0], batches[-1])] == [[0.25] * 4, [0.5, 0.5, 0.0, 0.0]]
    hooks.observe_pending()
    assert selection.step == 8 and selection.forward_visits == N
    hooks.load_next_train_batch(None)
    assert selection.epoch == 1


def test_an_evaluation_can_be_run_again():
  hooks = adapter.SelectionDataHooks(selection_of(), None, lambda: iter([1, 2]))
  for _ in range(2):
    assert [hooks.load_next_eval_batch(None) for _ in range(3)] == [1, 2, None]
  assert adapter.SelectionDataHooks(selection_of(), None).load_next_eval_batch(None) is None


def test_what_does_not_work_is_refused_in_one_line(tmp_path):
  def silent(model, x, y, weight, index):
    return loss_fn(model, x, y, weight, index)[0], {}

  with pytest.raises(UserError, match="must return .*sample_loss"):
    run(tmp_path / "a", selection_of(), loss=silent)
  for changes, words in (({"world_size": 2}, "several processes"), ({"method": "loss"}, "scores samples apart")):
    with pytest.raises(UserError, match=words):
      adapter.SelectionDataHooks(selection_of(**changes), None)
  trainer_of(tmp_path / "b", peft_trainer.PeftTrainer, max_steps=1).train(
    [{"x": X[:B], "y": Y[:B], "index": np.arange(B), "weight": np.ones(B, np.float32)}] * 2
  )
  with pytest.raises(UserError, match=r"there is no .*1\.json"):
    run(tmp_path / "b", selection_of())
