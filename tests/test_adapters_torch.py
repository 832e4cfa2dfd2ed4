"""PyTorch's DataLoader, torchdata's StatefulDataLoader and torch.distributed over a Sampler, stopped and continued."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from dynsel_jax import sampler
from dynsel_jax.options import UserError
from tests.support import ROOT

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
adapter = pytest.importorskip("dynsel_jax.adapters.torch")
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata calls it
N, B, EPOCHS = 53, 8, 4
STOP = 9  # batches: within the second epoch


@pytest.fixture(scope="module", autouse=True)
def one_thread():
  torch.set_num_threads(1)


def losses_of(index, epoch):
  return np.random.default_rng(epoch).lognormal(0, 1, N).astype(np.float32)[np.asarray(index)]


def selection_of(method="infobatch", **changes):
  return sampler.Sampler(method, **{"num_samples": N, "epochs": EPOCHS, "batch_size": B, "seed": 3, **changes})


def dataset(workers=0):
  values = torch.arange(N) * 10
  if workers:  # spawned: they start sooner if they need not import JAX
    return torch.utils.data.TensorDataset(values, torch.arange(N))
  return adapter.WithIndex(torch.utils.data.TensorDataset(values))


BATCHED = {
  "batch_sampler": lambda selection: {"batch_sampler": adapter.SelectionBatchSampler(selection)},
  "sampler": lambda selection: {"sampler": adapter.SelectionSampler(selection), "batch_size": B},
}


def loader_of(selection, kind="batch_sampler", workers=0, stateful=False):
  made = torch.utils.data.DataLoader
  if stateful:
    made = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
  # JAX has threads, and a process with threads must not be forked.
  spawned = {"multiprocessing_context": "spawn", "persistent_workers": True} if workers else {}
  return made(dataset(workers), num_workers=workers, **spawned, **BATCHED[kind](selection))


def train(selection, loader, seen, stop_after=None):
  """Runs the loop of a user; `seen` gets the samples of each batch and their weights."""
  for epoch in selection.epochs():
    for values, index in loader:
      assert torch.equal(values, index * 10)
      adapter.gather_observe(selection, index, torch.tensor(losses_of(index, epoch.number), requires_grad=True))
      seen.append((index.tolist(), selection.weight_of(index.numpy()).tolist()))
      if len(seen) == stop_after:
        return


@pytest.fixture(scope="module")
def whole():
  """The samples and weights of a run through the Sampler alone, without PyTorch."""
  selection, seen = selection_of(), []
  for epoch in selection.epochs():
    for index, weight in epoch:
      selection.observe(index, losses_of(index, epoch.number))
      seen.append((index.tolist(), weight.tolist()))
  assert {weight for _, weights in seen for weight in weights} == {1.0, 2.0}
  return seen


@pytest.mark.parametrize("kind", BATCHED)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_stopped_within_an_epoch_goes_on_with_the_same_samples(whole, kind, workers):
  first, seen = selection_of(), []
  train(first, loader_of(first, kind, workers), seen, stop_after=STOP)
  second = selection_of()
  second.load_state_dict(first.state_dict())
  loader = loader_of(second, kind, workers)
  assert len(loader) == len(second.current()) > 0
  train(second, loader, seen)
  assert seen == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_saved_beside_the_selection_goes_on_with_the_same_samples(whole, workers):
  first, seen = selection_of(), []
  loader = loader_of(first, "sampler" if workers else "batch_sampler", workers, stateful=True)
  train(first, loader, seen, stop_after=STOP)
  state, position = first.state_dict(), loader.state_dict()
  second = selection_of()
  second.load_state_dict(state)
  loader = loader_of(second, "sampler" if workers else "batch_sampler", workers, stateful=True)
  loader.load_state_dict(position)
  train(second, loader, seen)
  assert seen == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_without_its_selection_is_refused(workers):
  first = selection_of()
  loader = loader_of(first, workers=workers, stateful=True)
  train(first, loader, [], stop_after=STOP)
  position = loader.state_dict()
  loader = loader_of(selection_of(), workers=workers, stateful=True)
  loader.load_state_dict(position)
  with pytest.raises(UserError, match=r"the loader stands at \(epoch, batch\) \(1, 2\), the selection at \(0, 0\)"):
    next(iter(loader))


def test_pytorch_s_own_sampler_starts_the_epoch_anew_where_this_one_goes_on():
  def loader():
    generator = torch.Generator().manual_seed(0)
    return torch.utils.data.DataLoader(dataset(), batch_size=B, shuffle=True, generator=generator)

  whole = [index.tolist() for _, index in loader()]
  stopped = [index.tolist() for _, index in itertools.islice(loader(), 3)]
  continued = [index.tolist() for _, index in loader()]
  assert stopped == whole[:3] and continued == whole  # the first three batches are trained on twice


def test_workers_read_ahead_and_nothing_of_that_is_done():
  selection = selection_of()
  batches = iter(loader_of(selection, workers=2))
  _, index = next(batches)
  adapter.gather_observe(selection, index, torch.tensor(losses_of(index, 0)))
  assert batches._send_idx > 2 and selection.step == 1


def test_a_loop_without_epochs_goes_on_to_the_next(whole):
  selection, seen = selection_of(), []
  loader = loader_of(selection)
  for epoch in range(EPOCHS):
    for _, index in loader:
      adapter.gather_observe(selection, index, torch.tensor(losses_of(index, epoch)))
      seen.append((index.tolist(), selection.weight_of(index.numpy()).tolist()))
  assert seen == whole
  assert list(loader) == [] and len(loader) == 0


def test_an_epoch_that_nobody_observed_is_not_given_again_in_silence():
  loader = loader_of(selection_of())
  assert next(iter(loader)) and len(list(loader)) == 7  # a look at the first batch does no harm
  with pytest.raises(UserError, match="no batch of epoch 1 was observed"):
    next(iter(loader))


def test_weights_come_by_index():
  selection = selection_of()
  batches = adapter.SelectionBatchSampler(selection)
  for epoch in itertools.islice(selection.epochs(), 2):
    for _, index in torch.utils.data.DataLoader(dataset(), batch_sampler=batches):
      losses = torch.tensor(losses_of(index, epoch.number))
      weights = batches.weights_of(index)
      adapter.gather_observe(selection, index, losses)
      torch.testing.assert_close(adapter.weighted_mean(selection, index, losses), (weights * losses).mean())
  assert 2.0 in weights


def test_a_dict_and_a_lone_value_get_an_index_too():
  assert adapter.WithIndex([{"x": 1}])[0] == {"x": 1, "index": 0}
  assert adapter.WithIndex([7])[0] == (7, 0) and len(adapter.WithIndex([7])) == 1


RANK = """
import sys
import numpy as np, torch
from dynsel_jax.adapters import torch as adapter
from tests import test_adapters_torch as t

def run(folder, rank):
  torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
  selection = t.selection_of("kakurenbo", num_samples=50, rank=rank, world_size=2)
  dataset = adapter.WithIndex(torch.utils.data.TensorDataset(torch.arange(50)))
  loader = torch.utils.data.DataLoader(dataset, batch_sampler=adapter.SelectionBatchSampler(selection))
  seen = []
  for epoch in selection.epochs():
    for _, index in loader:
      losses = torch.tensor(t.losses_of(index, epoch.number))
      adapter.gather_observe(selection, index, losses, correct=losses < 1, confidence=losses / 10)
      seen += index.tolist()
    for index in selection.to_refresh():
      losses = t.losses_of(index, epoch.number)
      selection.observe(index, losses, trained=False, correct=losses < 1, confidence=losses / 10)
  state = {k: v for k, v in selection.state_dict().items() if isinstance(v, np.ndarray)}
  np.savez(f"{folder}/{rank}.npz", seen=seen, backward_visits=selection.backward_visits, **state)

if __name__ == "__main__":
  run(sys.argv[1], int(sys.argv[2]))
"""


def test_two_ranks_observe_the_losses_of_both(tmp_path):
  script = tmp_path / "ranks.py"
  script.write_text(RANK)
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
  pipes = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
  ranks = [subprocess.Popen([sys.executable, script, tmp_path, str(rank)], **pipes) for rank in range(2)]
  for rank in ranks:
    output, _ = rank.communicate(timeout=300)
    assert rank.returncode == 0, output
  alone = selection_of("kakurenbo", num_samples=50)
  for epoch in alone.epochs():
    for index, _ in epoch:
      losses = losses_of(index, epoch.number)
      alone.observe(index, losses, correct=losses < 1, confidence=losses / 10)
    for index in alone.to_refresh():
      losses = losses_of(index, epoch.number)
      alone.observe(index, losses, trained=False, correct=losses < 1, confidence=losses / 10)
  one, other = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
  assert one["backward_visits"] == other["backward_visits"] == len(one["seen"]) + len(other["seen"])
  for name in one.files:
    if name != "seen":
      np.testing.assert_array_equal(one[name], other[name])
      np.testing.assert_array_equal(
        one[name], np.asarray({**alone.state_dict(), "backward_visits": alone.backward_visits}[name])
      )
